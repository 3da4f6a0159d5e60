"""What several tests of the tuner compile."""

from __future__ import annotations

import pathlib

import pytest
from onnx import TensorProto, helper


@pytest.fixture
def model(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """``c = a @ b``, for a user whose caches are empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    values = (("a", [40, 33]), ("b", [33, 64]), ("c", [40, 64]))
    a, b, c = (helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in values)
    graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["c"])], "product", [a, b], [c])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()
