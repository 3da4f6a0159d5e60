"""Models compiled in mixed precision: smaller weights, float32 at the borders, cached apart."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import polycomp as pc
from polycomp.driver.check import check_precision, first_wrong
from polycomp.driver.compile import compile_model
from polycomp.driver.observe import Observer
from polycomp.errors import InputError
from polycomp.importers.onnx.reference import read_reference
from polycomp.options import Options

SIZES = {"float32": 4, "float16": 2, "bfloat16": 2}


@pytest.fixture(autouse=True)
def cache_home(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def layers(scale: float = 0.1) -> onnx.ModelProto:
    """``softmax(relu(x @ a) @ b)``, whose nodes are called after what they do."""
    random = np.random.default_rng(0)
    weights = {name: random.normal(0, scale, (64, 64)).astype(np.float32) for name in "ab"}
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["first"], "multiply"),
        helper.make_node("Relu", ["first"], ["second"], "rectify"),
        helper.make_node("MatMul", ["second", "b"], ["third"], "multiply_again"),
        helper.make_node("Softmax", ["third"], ["y"], "normalise", axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "layers",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 64])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def feeds() -> dict[str, np.ndarray[Any, Any]]:
    return {"x": np.random.default_rng(1).standard_normal((3, 64)).astype(np.float32)}


def test_weights_are_half_as_large_and_results_near() -> None:
    results = {}
    for precision, size in SIZES.items():
        module = pc.compile(layers(), precision=precision, threads=1, jobs=1)
        assert module.manifest.weight_bytes == 2 * 64 * 64 * size
        assert [t.dtype for t in (*module.inputs, *module.outputs)] == ["float32", "float32"]
        assert module.manifest.metadata.get("precision", "float32") == precision
        results[precision] = module.run(feeds())["y"]
    assert results["float16"].dtype == np.float32
    np.testing.assert_allclose(results["float16"], results["float32"], rtol=0.01)
    np.testing.assert_allclose(results["bfloat16"], results["float32"], rtol=0.05)
    assert (results["float16"] != results["bfloat16"]).any()


def test_each_precision_is_cached_apart() -> None:
    data = layers().SerializeToString()

    def weight_bytes(**options: Any) -> int:
        return compile_model(data, Options(jobs=1, **options)).manifest.weight_bytes

    for _ in range(2):
        assert weight_bytes() == 2 * 64 * 64 * 4
        assert weight_bytes(precision="float16") == 2 * 64 * 64 * 2
        assert weight_bytes(precision="float16", keep_float32=("multiply",)) == 64 * 64 * (4 + 2)


@pytest.mark.parametrize("name", ["multiply", "MatMul"])
def test_what_is_kept_by_the_models_names(name: str) -> None:
    report = check_precision(
        read_reference(layers()),
        Options(jobs=1, precision="float16", keep_float32=(name,)),
        feeds(),
        Observer(),
        per_layer=True,
    )
    assert report.kept[0].node.sources == ("multiply",)
    assert report.kept[0].text == "it was asked to"
    errors = {c.tensor: c.error for c in report.layers}
    assert errors["first"] == 0
    assert (errors["third"] == 0) == (name == "MatMul")


def test_a_name_that_nothing_has() -> None:
    with pytest.raises(InputError, match="did you mean 'multiply'"):
        pc.compile(layers(), precision="float16", keep_float32=["multiplied"], jobs=1)


def test_the_report_names_what_overflows() -> None:
    random = feeds()
    report = check_precision(
        read_reference(layers(scale=300.0)), Options(jobs=1, precision="float16"), random, Observer(), per_layer=False
    )
    wrong = first_wrong(report.layers)
    assert wrong is not None
    assert wrong.node.name == "multiply_again"
    assert wrong.error == wrong.absolute == float("inf")
