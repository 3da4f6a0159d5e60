"""One test per way in which a model can be wrong, with the words its user reads."""

from __future__ import annotations

import pathlib

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_models import model, node

from polycomp.errors import (
    DTypeError,
    ExternalDataError,
    ModelError,
    PolycompError,
    ShapeError,
    UnsupportedOperatorError,
)
from polycomp.importers.onnx import import_onnx
from polycomp.options import Options

RELU = node("Relu", ["x"])


def _error(proto: onnx.ModelProto | bytes | str | pathlib.Path, **shapes: tuple[int, ...]) -> PolycompError:
    with pytest.raises(PolycompError) as caught:
        import_onnx(proto, Options(shapes=shapes))
    return caught.value


def _check(error: PolycompError, kind: type[PolycompError], *words: str) -> None:
    assert type(error) is kind
    for word in words:
        assert word in str(error)


def test_missing_file(tmp_path: pathlib.Path) -> None:
    _check(_error(tmp_path / "no.onnx"), ModelError, "cannot read the model file", "no.onnx", "No such file")


def test_empty_file(tmp_path: pathlib.Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"")
    _check(_error(tmp_path / "m.onnx"), ModelError, "is empty")


def test_no_onnx_file() -> None:
    _check(_error(b"\x89PNG\r\n\x1a\n"), ModelError, "is not an ONNX model, or it is truncated or damaged")


def test_what_is_no_model() -> None:
    _check(_error(7), ModelError, "a path, the file's bytes or a ModelProto, not int")  # type: ignore[arg-type]


def test_truncated_file() -> None:
    data = model([RELU], {"x": [2]}).SerializeToString()
    _check(_error(data[:-20]), ModelError, "truncated")


def test_no_nodes() -> None:
    _check(_error(model([], {"x": [2]})), ModelError, "the model's output 'y' is made by no node")


def test_unnamed_nodes_are_called_after_what_they_make() -> None:
    nodes = [node("Relu", ["x"], ["a"], ""), node("Add", ["a", "w"], ["y"], "")]
    _check(_error(model(nodes, {"x": [2, 3], "w": [2, 4]})), ShapeError, "'Add:y'")


def test_an_index_that_is_no_integer() -> None:
    constants = {"t": np.arange(3.0), "i": np.array([1.0])}
    _check(_error(model([node("Gather", ["t", "i"])], {}, constants=constants)), DTypeError, "Gather")


def test_no_opset() -> None:
    proto = model([RELU], {"x": [2]})
    del proto.opset_import[:]
    _check(_error(proto), ModelError, "opset_import is missing")


@pytest.mark.parametrize("opset", [6, 1000])
def test_opset_out_of_range(opset: int) -> None:
    _check(_error(model([RELU], {"x": [2]}, opset=opset)), UnsupportedOperatorError, f"ONNX opset {opset}", "7 to")


def test_all_unsupported_operators_at_once() -> None:
    nodes = [
        node("NonZero", ["x"], ["a"], "first"),
        node("NonZero", ["x"], ["b"], "second"),
        node("LSTM", ["x", "x", "x"], ["c"], "third"),
        node("Relu", ["x"], ["y"], "fine"),
    ]
    nodes.append(helper.make_node("Special", ["x"], ["d"], name="fourth", domain="com.acme"))
    text = "LSTM (1: 'third'); NonZero (2: 'first', 'second'); com.acme.Special (1: 'fourth')"
    _check(_error(model(nodes, {"x": [2, 2]})), UnsupportedOperatorError, text)


def test_subgraph() -> None:
    body = helper.make_graph([], "body", [], [])
    nodes = [node("If", ["x"], ["y"], "choice", then_branch=body, else_branch=body)]
    _check(_error(model(nodes, {"x": []})), UnsupportedOperatorError, "If with a subgraph (1: 'choice')")


def test_cast_to_an_unknown_type() -> None:
    nodes = [node("Cast", ["x"], name="c", to=TensorProto.FLOAT8E5M2)]
    _check(_error(model(nodes, {"x": [2]})), UnsupportedOperatorError, "Cast to FLOAT8E5M2 (1: 'c')")


def test_input_of_an_unknown_type() -> None:
    proto = model([RELU], {"x": [2]}, dtypes={"x": TensorProto.STRING})
    _check(_error(proto), UnsupportedOperatorError, "input 'x' has element type STRING", "FLOAT16")


def test_value_from_nowhere() -> None:
    _check(_error(model([node("Add", ["x", "w"])], {"x": [2]})), ModelError, "reads 'w', which is made nowhere")


def test_cycle() -> None:
    nodes = [node("Add", ["x", "b"], ["a"], "one"), node("Relu", ["a"], ["b"], "two"), node("Relu", ["b"])]
    _check(_error(model(nodes, {"x": [2]})), ModelError, "Add node 'one' reads 'b'", "cycle")


def test_value_made_twice() -> None:
    nodes = [node("Relu", ["x"], ["y"], "one"), node("Neg", ["x"], ["y"], "two")]
    _check(_error(model(nodes, {"x": [2]})), ModelError, "Neg node 'two' makes 'y', which node 'one' makes already")


def test_output_from_nowhere() -> None:
    _check(_error(model([RELU], {"x": [2]}, ["z"])), ModelError, "the model's output 'z' is made by no node")


def test_output_twice() -> None:
    _check(_error(model([RELU], {"x": [2]}, ["y", "y"])), ModelError, "names its output 'y' twice")


def test_unknown_attribute() -> None:
    nodes = [node("Softmax", ["x"], axes=1)]
    _check(_error(model(nodes, {"x": [2]})), ModelError, "Softmax node 'n' has the attribute 'axes'", "it has: axis")


def test_attribute_of_another_type() -> None:
    _check(_error(model([node("Softmax", ["x"], axis=1.5)], {"x": [2]})), ModelError, "is of type FLOAT", "type INT")


def test_unknown_attribute_value() -> None:
    nodes = [node("MaxPool", ["x"], kernel_shape=[2, 2], auto_pad="BOTH")]
    _check(_error(model(nodes, {"x": [1, 1, 4, 4]})), ModelError, "auto_pad='BOTH'", "SAME_UPPER")


def test_missing_attribute() -> None:
    _check(_error(model([node("Concat", ["x"])], {"x": [2]})), ModelError, "lacks its required attribute 'axis'")


def test_missing_input() -> None:
    _check(_error(model([node("Add", ["x"])], {"x": [2]})), ModelError, "Add node 'n' has 1 inputs", "takes 2")
    _check(_error(model([node("Add", ["", "x"])], {"x": [2]})), ModelError, "lacks its required input 0 (A)")


def test_shapes_that_contradict() -> None:
    nodes = [node("Add", ["x", "w"], name="sum")]
    _check(_error(model(nodes, {"x": [2, 3], "w": [2, 4]})), ShapeError, "sum")


def test_impossible_reshape() -> None:
    nodes = [node("Reshape", ["x", "s"], name="flat")]
    proto = model(nodes, {"x": [2, 3]}, constants={"s": np.array([4, -1])})
    _check(_error(proto), ShapeError, "Reshape node 'flat' cannot reshape [2, 3] to [4, -1]")


def test_shape_from_data() -> None:
    nodes = [node("Reshape", ["x", "s"], name="flat")]
    proto = model(nodes, {"x": [2, 3], "s": [2]}, dtypes={"s": TensorProto.INT64})
    _check(_error(proto), UnsupportedOperatorError, "'flat'", "depends on the data in its input 1 ('s')")


def test_shape_for_an_unknown_input() -> None:
    proto = model([RELU], {"x": ["n", 3]})
    _check(_error(proto, z=(1, 3)), ShapeError, "given for 'z'", "'x' [n, 3]")


@pytest.mark.parametrize("shape", [(2,), (2, 4), (2, 3, 1)])
def test_shape_that_does_not_fit_the_input(shape: tuple[int, ...]) -> None:
    proto = model([RELU], {"x": ["n", 3]})
    _check(_error(proto, x=shape), ShapeError, f"the shape {list(shape)} does not fit the input 'x'", "[n, 3]")


def test_initializer_too_short() -> None:
    proto = model([node("Add", ["x", "w"])], {"x": [2]}, constants={"w": np.zeros(2, np.float32)})
    proto.graph.initializer[0].raw_data = b"1234"
    _check(_error(proto), ModelError, "initializer 'w' of shape [2] needs 8 bytes of data, but holds 4")


def test_sparse_initializer() -> None:
    proto = model([RELU], {"x": [2]})
    proto.graph.sparse_initializer.add().values.name = "thin"
    _check(_error(proto), UnsupportedOperatorError, "sparse initializers", "'thin'")


def test_name_that_is_no_text() -> None:
    data = model([RELU], {"x": [2]}).SerializeToString().replace(b"Relu", b"Re\xffu")
    assert isinstance(_error(data), ModelError)


def _external(tmp_path: pathlib.Path, **entries: str) -> pathlib.Path:
    proto = model([node("Add", ["x", "w"])], {"x": [4]}, constants={"w": np.zeros(4, np.float32)})
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    return tmp_path / "m.onnx"


def test_external_data(tmp_path: pathlib.Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"????" + np.arange(4, dtype=np.float32).tobytes())
    graph = import_onnx(_external(tmp_path, location="w.bin", offset="4", length="16"))
    assert [c.tolist() for c in graph.constants.values()] == [[0, 1, 2, 3]]


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"location": "gone.bin"}, ["initializer 'w'", "gone.bin", "No such file"]),
        ({"location": "short.bin"}, ["needs 16 bytes", "only 3"]),
        ({"location": "../w.bin"}, ["outside of the model's folder"]),
        ({"location": "/etc/passwd"}, ["outside of the model's folder"]),
        ({"location": ""}, ["not a file name"]),
        ({"location": "short.bin", "offset": "-4"}, ["offset of '-4'"]),
        ({"location": "short.bin", "length": "3"}, ["needs 16 bytes", "its entry says 3"]),
    ],
)
def test_bad_external_data(tmp_path: pathlib.Path, entries: dict[str, str], words: list[str]) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "short.bin").write_bytes(b"123")
    _check(_error(_external(tmp_path / "inner", **entries)), ExternalDataError, *words)


def test_external_data_of_a_model_without_a_folder(tmp_path: pathlib.Path) -> None:
    data = _external(tmp_path, location="w.bin").read_bytes()
    _check(_error(data), ExternalDataError, "give the model as a path")
