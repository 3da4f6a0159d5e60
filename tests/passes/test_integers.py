"""Products of bytes get the signs that the machine's instruction takes."""

from __future__ import annotations

import numpy as np
import pytest
from graph_builder import Make, check, ops

from polycomp.graph import Graph
from polycomp.options import Options
from polycomp.passes.fold import fold_constants
from polycomp.passes.integers import pack_integers
from polycomp.passes.layout import choose_layout
from polycomp.target import parse_target

TARGETS = {
    "mixed": "x86_64-linux-gnu,features=avx2+fma+avxvnni",
    "any": "x86_64-linux-gnu,features=avx2+fma",
    "same": "aarch64-linux-gnu,cpu=neoverse-n1",
}


def product(a: str, b: str, biased: bool = False) -> Graph:
    make = Make()
    matrix = np.random.default_rng(1).integers(np.iinfo(b).min, np.iinfo(b).max + 1, (7, 5))
    y = make.op("MatMulInteger", make.input(3, 7, dtype=a), make.constant(matrix, b))
    if biased:
        y = make.op("Add", y, make.constant([1, 2, 3, 4, 5], "int32"))
    return make.graph(y)


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize(("a", "b"), [("int8", "int8"), ("int8", "uint8"), ("uint8", "int8"), ("uint8", "uint8")])
@pytest.mark.parametrize("signs", TARGETS)
def test_signs(a: str, b: str, signs: str, biased: bool) -> None:
    target = parse_target(TARGETS[signs])
    assert target.dot_signs == signs
    packed = check(product(a, b, biased), pack_integers, target=target)
    turned = {"mixed": a == b, "same": a != b, "any": False}[signs]
    assert ops(packed).get("BitwiseXor", 0) == turned
    (last,) = [n for n in packed.nodes if n.op == "MatMulInterleaved"]
    assert len(last.inputs) == 2 + (biased or turned)
    assert "PackInterleaved" not in ops(fold_constants(packed, Options(target=target)))


@pytest.mark.parametrize(("a", "b"), [("int8", "int8"), ("int8", "uint8"), ("uint8", "int8"), ("uint8", "uint8")])
@pytest.mark.parametrize("signs", TARGETS)
@pytest.mark.parametrize("channels", [3, 18])
def test_signs_of_convolutions(a: str, b: str, signs: str, channels: int) -> None:
    make = Make()
    w = np.random.default_rng(1).integers(np.iinfo(b).min, np.iinfo(b).max + 1, (9, channels, 3, 3))
    sizes = {"strides": (1, 1), "dilations": (1, 1), "pads": (1, 1, 1, 1), "group": 1, "fill": 5}
    y = make.op("ConvInteger", make.input(1, channels, 4, 5, dtype=a), make.constant(w, b), **sizes)
    found = ops(check(make.graph(make.op("Relu", y)), choose_layout, target=parse_target(TARGETS[signs])))
    assert found["ConvIntegerBlocked"] == 1
    assert found.get("BitwiseXor", 0) == {"mixed": a == b, "same": a != b, "any": False}[signs]


def test_words_are_as_the_target_takes_them() -> None:
    """A CPU's instruction takes four bytes of each of some columns; a GPU's thread loads many of one column."""
    make = Make()
    image, w = make.input(1, 18, 4, 5, dtype="uint8"), make.constant(np.ones((9, 18, 3, 3)), "int8")
    sizes = {"strides": (1, 1), "dilations": (1, 1), "pads": (1, 1, 1, 1), "group": 1}
    convolution = make.graph(make.op("ConvInteger", image, w, **sizes))
    found = {}
    for name in ("any", "cuda"):
        target = parse_target(TARGETS.get(name, name))
        nodes = check(product("uint8", "int8"), pack_integers, target=target).nodes
        nodes += check(convolution, choose_layout, target=target).nodes
        found[name] = [n.attributes["word"] for n in nodes if n.op in ("PackInterleaved", "PackConvInterleaved")]
    assert found == {"any": [4, 4], "cuda": [16, 8]}


def test_matrices_that_are_computed_are_left() -> None:
    make = Make()
    y = make.op("MatMulInteger", make.input(3, 7, dtype="uint8"), make.input(7, 5, dtype="int8"))
    assert ops(check(make.graph(y), pack_integers)) == {"MatMulInteger": 1}
