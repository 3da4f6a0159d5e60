"""Reading a model: from a file, bytes or a ModelProto to a checked ModelProto."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Collection, Sequence

import onnx
import onnx.defs
import onnx.inliner
from google.protobuf.message import DecodeError, EncodeError, Message  # type: ignore[import-untyped]

from polycomp.errors import ModelError, UnsupportedOperatorError

OLDEST_OPSET = 7
DEFAULT_DOMAINS = frozenset(["", "ai.onnx"])

_MODULE_FILE = b"\x89PCM\r\n"

ModelLike = str | pathlib.Path | bytes | onnx.ModelProto


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A parsed model, its default-domain opset, and the folder that external data is relative to (None: unknown)."""

    proto: onnx.ModelProto
    opset: int
    folder: pathlib.Path | None


def load_model(model: ModelLike) -> LoadedModel:
    """Parse ``model`` and check that it is an ONNX model of a known opset.

    Raises ModelError for a file that cannot be read or parsed or holds no graph, UnsupportedOperatorError for an
    opset outside of ``OLDEST_OPSET`` and the newest that the installed onnx package knows.
    """
    folder = None
    if isinstance(model, str | pathlib.Path):
        path = pathlib.Path(model)
        folder = path.parent
        proto = _parse(_read(path), f"file {str(path)!r}")
    elif isinstance(model, onnx.ModelProto):
        proto = model
    elif isinstance(model, bytes):
        proto = _parse(model, "byte string")
    else:
        raise ModelError(f"a model is a path, the file's bytes or a ModelProto, not {type(model).__name__}")
    if not proto.HasField("graph"):
        raise ModelError("the model holds no graph; it is not an ONNX model, or it was cut off")
    try:
        _check_text(proto)
    except UnicodeDecodeError:
        raise ModelError(_NO_TEXT) from None
    opset = _opset(proto)
    if proto.functions:
        proto = _inline_functions(proto)
    return LoadedModel(proto, opset, folder)


def expand_functions(model: LoadedModel, known: Collection[str]) -> onnx.GraphProto:
    """The model's graph; operators that are not ``known`` but that ONNX defines by others are written out, and those
    that their definitions use in turn."""
    proto = model.proto
    while expandable := _expandable(proto.graph, known, model.opset):
        proto = _expand(proto, expandable, model.opset)
    return proto.graph


def _expandable(graph: onnx.GraphProto, known: Collection[str], opset: int) -> list[str]:
    wanted = {n.op_type for n in graph.node if n.domain in DEFAULT_DOMAINS} - set(known)
    return sorted(op for op in wanted if _has_body(op, opset))


def _expand(model: onnx.ModelProto, expandable: Sequence[str], opset: int) -> onnx.ModelProto:
    proto = onnx.ModelProto()
    proto.CopyFrom(model)
    for node in proto.graph.node:
        if node.op_type in expandable:
            _write_defaults(node, onnx.defs.get_schema(node.op_type, opset, ""))
    functions = [("", op) for op in expandable]
    what = f"the model uses {', '.join(expandable)}, which could not be expanded to other operators"
    try:
        expanded = onnx.inliner.inline_selected_functions(proto, functions, inline_schema_functions=True)
    except (RuntimeError, ValueError, EncodeError) as error:
        raise UnsupportedOperatorError(f"{what}: {error}") from None
    if any(n.op_type in expandable and n.domain in DEFAULT_DOMAINS for n in expanded.graph.node):
        raise UnsupportedOperatorError(f"{what}: onnx knows no definition for its types")
    return expanded


def _write_defaults(node: onnx.NodeProto, schema: onnx.defs.OpSchema) -> None:
    """Give absent attributes their default values, which bodies refer to by name."""
    given = {a.name for a in node.attribute}
    for name, attribute in schema.attributes.items():
        default = attribute.default_value
        if name not in given and default.name:
            node.attribute.append(default)


def _has_body(op: str, opset: int) -> bool:
    try:
        schema = onnx.defs.get_schema(op, opset, "")
    except onnx.defs.SchemaError:
        return False
    return bool(schema.has_function or schema.has_context_dependent_function)  # type: ignore[attr-defined]


def _read(path: pathlib.Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read the model file {str(path)!r}: {error.strerror}") from None


def _parse(data: bytes, what: str) -> onnx.ModelProto:
    if not data:
        raise ModelError(f"the model {what} is empty")
    if data.startswith(_MODULE_FILE):
        raise ModelError(f"the model {what} is a module file, compiled already; run or load it as it is")
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError:
        raise ModelError(f"the model {what} is not an ONNX model, or it is truncated or damaged") from None
    return proto


def _check_text(message: Message) -> None:
    """Raise ModelError for a name that is not UTF-8: protobuf either fails to decode it or gives its bytes."""
    for field, value in message.ListFields():
        items = value if field.is_repeated else (value,)
        if field.type == field.TYPE_MESSAGE:
            for item in items:
                _check_text(item)
        elif field.type == field.TYPE_STRING and any(not isinstance(item, str) for item in items):
            raise ModelError(_NO_TEXT)


_NO_TEXT = "the model holds a name that is not valid UTF-8 text; the file is damaged"


def _opset(proto: onnx.ModelProto) -> int:
    versions = [o.version for o in proto.opset_import if o.domain in DEFAULT_DOMAINS]
    if not versions:
        raise ModelError("the model does not say which ONNX opset it uses (opset_import is missing)")
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= versions[0] <= newest:
        raise UnsupportedOperatorError(
            f"the model uses ONNX opset {versions[0]}; opsets {OLDEST_OPSET} to {newest} are supported "
            f"(onnx.version_converter changes a model's opset)"
        )
    return int(versions[0])


def _inline_functions(proto: onnx.ModelProto) -> onnx.ModelProto:
    try:
        return onnx.inliner.inline_local_functions(proto)
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"the model's local functions cannot be expanded: {error}") from None
