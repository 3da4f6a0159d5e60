"""What several tests of the tuner compile."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from polycomp.target import host_target


@pytest.fixture
def model(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """``c = a @ b``, for a user whose caches are empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    values = (("a", [40, 33]), ("b", [33, 64]), ("c", [40, 64]))
    a, b, c = (helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in values)
    graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["c"])], "product", [a, b], [c])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()


@pytest.fixture
def convolutions(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Two convolutions by 3x3 with different epilogues, and one by 1x1; for a user whose caches are empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    channels = 2 * host_target().lanes(4)
    random = np.random.default_rng(0)
    weights = {n: random.standard_normal((channels, channels, s, s)) / 9 for n, s in (("u", 3), ("v", 3), ("w", 1))}
    nodes = [
        helper.make_node("Conv", ["x", "u"], ["a"], "first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("Conv", ["b", "v"], ["c"], "second", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c", "x"], ["d"], "add"),
        helper.make_node("Conv", ["d", "w"], ["y"], "third"),
    ]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, channels, 9, 7]) for n in "xy")
    constants = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "net", [x], [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()
