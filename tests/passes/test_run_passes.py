"""All passes together: on the light models of the onnx package, symbolic sizes, and what is reported."""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np
import onnx
import pytest
from graph_builder import Make, check, feeds_of
from graph_oracle import evaluate_graph

from polycomp.dtypes import DType
from polycomp.errors import CompileError
from polycomp.expr import Var
from polycomp.graph import Graph, Symbol, TensorType, to_text, verify
from polycomp.importers.onnx import import_onnx
from polycomp.ops import operators
from polycomp.options import Options
from polycomp.passes import PASSES, run_passes

LIGHT = sorted((pathlib.Path(onnx.__file__).parent / "backend/test/data/light").glob("*.onnx"))
LARGE = ("vgg19", "alexnet", "zfnet512")  # their matrices of hundreds of megabytes say nothing more


@pytest.mark.parametrize("path", [p for p in LIGHT if not any(n in p.name for n in LARGE)], ids=lambda p: p.stem)
def test_light_models(path: pathlib.Path) -> None:
    graph = run_passes(import_onnx(path), Options(verify=True))
    used = {n.op for n in graph.nodes}
    assert "ConvBlocked" in used
    assert not used & {"BatchNormalization", "Gemm", "Sum", "Dropout", "Fill", "Conv"}
    kernels = [g for g in graph.groups if g.anchor.op != "Reshape"]
    assert len(kernels) < len(graph.nodes)


def test_light_models_keep_their_results() -> None:
    path = next(p for p in LIGHT if "squeezenet" in p.name)
    graph = import_onnx(path, Options())
    feeds = feeds_of(graph)
    expected = evaluate_graph(graph, feeds)
    found = evaluate_graph(run_passes(graph, Options()), feeds)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-6)


def _transformer_layer(symbolic: bool) -> Graph:
    m = Make()
    n = Var("n") if symbolic else 5
    x = m.input(1, n, 8)
    heads = [m.op("Reshape", m.op("MatMul", x, m.weight(8, 8)), shape=(1, n, 2, 4)) for _ in range(3)]
    perms = ((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3))
    q, k, v = (m.op("Transpose", h, perm=p) for h, p in zip(heads, perms, strict=True))
    scores = m.op("Div", m.op("MatMul", q, k), m.constant(2.0))
    mixed = m.op("MatMul", m.op("Softmax", scores, axis=3), v)
    joined = m.op("Reshape", m.op("Transpose", mixed, perm=(0, 2, 1, 3)), shape=(1, n, 8))
    y = m.op("Add", m.op("Add", m.op("MatMul", joined, m.weight(8, 8)), m.weight(8)), x)
    y = m.op("LayerNormalization", y, m.weight(8), m.weight(8), axis=2, epsilon=1e-5)
    return m.graph(y, symbols=(Symbol(n),) if isinstance(n, Var) else ())


@pytest.mark.parametrize("symbolic", [False, True])
def test_transformer_layer(symbolic: bool) -> None:
    graph = check(_transformer_layer(symbolic), run_passes, {"n": 6})
    kernels = sorted("+".join(n.op for n in g.nodes) for g in graph.groups if g.anchor.op != "Reshape")
    assert kernels == [
        "LayerNormalization",
        "MatMulPacked",
        "MatMulPacked",
        "MatMulPacked",
        "MatMulPacked+Add",
        "Transpose+Transpose+Transpose+MatMul+Mul+Softmax+MatMul+Transpose",
    ]


def test_observer_sees_every_pass() -> None:
    seen: list[str] = []
    run_passes(_transformer_layer(False), Options(), lambda name, graph: seen.append(name))
    assert seen == [name for name, _ in PASSES]
    assert len(set(seen)) == len(seen)


def test_text() -> None:
    m = Make()
    n = Var("n")
    graph = m.graph(m.op("Softmax", m.op("Add", m.input(n, 3), m.constant(1.0)), axis=1), symbols=(Symbol(n, 1, 9),))
    assert to_text(graph).splitlines() == [
        "graph g(x0: float32[n, 3]) -> (n1.0)",
        "  size 1 <= n <= 9",
        "  c0: float32[] = 1.0",
        "  n0.0: float32[n, 3] = Add(x0, c0)",
        "  n1.0: float32[n, 3] = Softmax(n0.0) {axis=1}",
    ]
    fused = to_text(run_passes(graph, Options()))
    assert "  group n1(x0, c0) -> (n1.0)" in fused
    assert "   * n1.0: float32[n, 3] = Softmax(n0.0) {axis=1}" in fused


def test_verifier_names_what_is_broken() -> None:
    m = Make()
    graph = m.graph(m.op("Exp", m.op("Neg", m.input(3))))
    swapped = dataclasses.replace(graph, nodes=graph.nodes[::-1])
    with pytest.raises(CompileError, match=r"Exp 'n1' reads 'n0.0' before it is made"):
        verify(swapped, operators())
    other = TensorType(DType.FLOAT32, (4,))
    wrong = dataclasses.replace(graph, types={**graph.types, "n0.0": other})
    with pytest.raises(CompileError, match=r"'n0.0' of Neg 'n0' is float32\[4\], not float32\[3\]"):
        verify(wrong, operators())
