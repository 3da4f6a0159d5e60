"""Whole compilations: outputs that share memory, the cache of modules, and what an observer is told."""

from __future__ import annotations

import pathlib
import subprocess
import sys
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from polycomp.driver.compile import compile_model
from polycomp.driver.observe import Observer
from polycomp.options import Options

F32 = TensorProto.FLOAT


@pytest.fixture(autouse=True)
def cache_home(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "polycomp"


def model(nodes: list[onnx.NodeProto], inputs: dict[str, list[Any]], outputs: dict[str, list[Any]]) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(name, F32, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, F32, shape) for name, shape in outputs.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def double_and_flatten() -> onnx.ModelProto:
    nodes = [helper.make_node("Add", ["x", "x"], ["double"]), helper.make_node("Flatten", ["double"], ["flat"])]
    return model(nodes, {"x": [2, 3, 4]}, {"double": [2, 3, 4], "flat": [2, 12]})


def run(proto: onnx.ModelProto, **inputs: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    return compile_model(proto, Options(jobs=1)).module(1).run(inputs)


def test_an_output_and_a_view_of_it_are_both_written() -> None:
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    outputs = run(double_and_flatten(), x=x)
    np.testing.assert_array_equal(outputs["double"], 2 * x)
    np.testing.assert_array_equal(outputs["flat"], (2 * x).reshape(2, 12))


def test_an_input_reshaped_is_copied() -> None:
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    proto = model([helper.make_node("Flatten", ["x"], ["flat"])], {"x": [2, 3, 4]}, {"flat": [2, 12]})
    np.testing.assert_array_equal(run(proto, x=x)["flat"], x.reshape(2, 12))


def test_a_size_left_open_is_bound_at_each_run() -> None:
    nodes = [helper.make_node("MatMul", ["x", "y"], ["xy"]), helper.make_node("Relu", ["xy"], ["z"])]
    proto = model(nodes, {"x": ["n", 5], "y": [5, "n"]}, {"z": ["n", "n"]})
    module = compile_model(proto, Options(jobs=1)).module(1)
    random = np.random.default_rng(0)
    for n in (1, 3, 17):
        x, y = random.standard_normal((n, 5), np.float32), random.standard_normal((5, n), np.float32)
        np.testing.assert_allclose(module.run({"x": x, "y": y})["z"], np.maximum(x @ y, 0), rtol=1e-5, atol=1e-5)


class Recorder(Observer):
    def __init__(self, wants_graphs: bool = False) -> None:
        self.stages: list[str] = []
        self.passes: list[str] = []
        self.counts: list[tuple[int, int]] = []
        self.wants_graphs = wants_graphs

    def stage(self, name: str) -> None:
        self.stages.append(name)

    def graph(self, name: str, text: str) -> None:
        self.passes.append(name)

    def kernels(self, done: int, total: int) -> None:
        self.counts.append((done, total))


def test_an_observer_is_told_everything_in_order() -> None:
    watch = Recorder(wants_graphs=True)
    compile_model(double_and_flatten(), Options(jobs=1), watch)
    assert watch.stages == ["import", "passes", "kernels", "link"]
    assert watch.passes[0] == "import"
    assert watch.passes[-1] == "fuse"
    assert watch.counts[-1][0] == watch.counts[-1][1] > 0


def test_kernels_compiled_before_come_from_the_cache(cache_home: pathlib.Path) -> None:
    compile_model(double_and_flatten(), Options(jobs=1))
    watch = Recorder()
    compile_model(double_and_flatten(), Options(jobs=1), watch)
    assert watch.counts == [(watch.counts[0][1], watch.counts[0][1])]


def test_a_damaged_kernel_is_compiled_again(cache_home: pathlib.Path) -> None:
    compile_model(double_and_flatten(), Options(jobs=1))
    for entry in (cache_home / "kernels").iterdir():
        entry.write_bytes(entry.read_bytes()[:-7])
    x = np.ones((2, 3, 4), np.float32)
    np.testing.assert_array_equal(run(double_and_flatten(), x=x)["double"], 2 * x)


def test_a_model_compiled_before_is_taken_whole() -> None:
    data = double_and_flatten().SerializeToString()
    first = compile_model(data, Options(jobs=1))
    watch = Recorder()
    second = compile_model(data, Options(jobs=1), watch)
    assert watch.stages == []
    assert second.manifest == first.manifest
    x = np.ones((2, 3, 4), np.float32)
    np.testing.assert_array_equal(second.module(1).run({"x": x})["flat"], 2 * x.reshape(2, 12))
    again = Recorder(wants_graphs=True)
    compile_model(data, Options(jobs=1), again)
    assert "fuse" in again.passes


def test_finding_a_module_imports_nothing_of_the_compiler(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(double_and_flatten(), path)
    compile_model(path, Options(jobs=1))
    script = """
import pathlib, sys
from polycomp.driver.compile import compile_model
from polycomp.options import Options
assert compile_model(pathlib.Path(sys.argv[1]), Options(jobs=1)).file is not None
print(sorted({"islpy", "llvmlite", "onnx"} & sys.modules.keys()))
"""
    result = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_a_damaged_module_is_compiled_again(cache_home: pathlib.Path) -> None:
    data = double_and_flatten().SerializeToString()
    compile_model(data, Options(jobs=1))
    (entry,) = (cache_home / "modules").iterdir()
    entry.write_bytes(entry.read_bytes()[:-7])
    watch = Recorder()
    compile_model(data, Options(jobs=1), watch)
    assert watch.stages


def test_weights_in_other_files_are_never_taken_from_the_cache(
    cache_home: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "model.onnx"
    for value in (1.0, 2.0):
        proto = model([helper.make_node("Mul", ["x", "w"], ["y"])], {"x": [2, 3]}, {"y": [2, 3]})
        weight = onnx.numpy_helper.from_array(np.full((2, 3), value, np.float32), "w")
        proto.graph.initializer.append(weight)
        onnx.save(proto, path, save_as_external_data=True, location="weights", size_threshold=0)
        result = compile_model(path, Options(jobs=1)).module(1).run({"x": np.ones((2, 3), np.float32)})["y"]
        np.testing.assert_array_equal(result, np.full((2, 3), value, np.float32))
        (tmp_path / "weights").unlink()


def test_without_the_cache_nothing_is_written(cache_home: pathlib.Path) -> None:
    compile_model(double_and_flatten().SerializeToString(), Options(jobs=1, cache=False))
    assert not cache_home.exists()
