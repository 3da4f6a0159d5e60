"""The README's commands and program run as they stand, on a model and an image as it supposes them."""

from __future__ import annotations

import pathlib
import re
import textwrap

import numpy as np
import onnx
import pytest
from documents import Reader
from onnx import TensorProto, helper, numpy_helper

_README = pathlib.Path(__file__).parents[2] / "README.md"
_BLOCK = re.compile(r"(?:^    .*\n|^\n(?=    ))+", re.MULTILINE)


def blocks() -> list[str]:
    """What the README shows indented: commands and Python, without `make`, which is the repository's."""
    found = [textwrap.dedent(block).strip() for block in _BLOCK.findall(_README.read_text())]
    return [block for block in found if block and not block.startswith("make ")]


def model() -> onnx.ModelProto:
    """Classes of images of any number and 224x224 pixels."""
    weights = np.random.default_rng(0).normal(0, 0.1, (8, 3, 7, 7)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["edges"], strides=[8, 8], kernel_shape=[7, 7]),
        helper.make_node("GlobalMaxPool", ["edges"], ["largest"]),
        helper.make_node("Flatten", ["largest"], ["classes"]),
    ]
    image = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, 224, 224])
    classes = helper.make_tensor_value_info("classes", TensorProto.FLOAT, ["n", 8])
    graph = helper.make_graph(nodes, "model", [image], [classes], [numpy_helper.from_array(weights, "w")])
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 17)])


def test_the_readme_does_what_it_says(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    onnx.save(model(), "model.onnx")
    array = np.random.default_rng(0).random((1, 3, 224, 224), np.float32)
    np.save("cat.npy", array)
    reader = Reader(_README, tmp_path)
    reader.names |= {"array": array, "x": np.ones((4, 8)), "w": np.ones((8, 3)), "b": np.ones(3)}
    shown = blocks()
    assert len(shown) >= 5
    for block in shown:
        if block.startswith("import"):
            exec(compile(f"{block}\n\nresult = layer(x, w, b)", "README.md", "exec"), reader.names)
        else:
            for command in block.splitlines():
                reader.shell(command)
    np.testing.assert_array_equal(reader.names["result"], np.full((4, 3), 9.0))


def test_a_command_that_fails_is_noticed(tmp_path: pathlib.Path) -> None:
    with pytest.raises(AssertionError):
        Reader(_README, tmp_path).shell("polycomp run nothing.pcm")
