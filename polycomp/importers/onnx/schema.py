"""Checks of a node against the ONNX operator schemas: attributes, their types, and numbers of inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
import onnx.defs

from polycomp.errors import ModelError

_KINDS: Mapping[int, str] = {number: name for name, number in onnx.AttributeProto.AttributeType.items()}


def schema_of(node: onnx.NodeProto, opset: int) -> onnx.defs.OpSchema | None:
    """The schema of the node's operator at ``opset``; None when ONNX has no such operator."""
    try:
        return onnx.defs.get_schema(node.op_type, opset, "")
    except onnx.defs.SchemaError:
        return None


def check_node(node: onnx.NodeProto, name: str, schema: onnx.defs.OpSchema) -> None:
    """Raise ModelError, naming the node, when it breaks its operator's schema."""
    where = f"{node.op_type} node {name!r}"
    _check_count(where, "inputs", len(_trimmed(list(node.input))), schema.min_input, schema.max_input)
    _check_count(where, "outputs", len(node.output), schema.min_output, schema.max_output)
    for position in range(min(schema.min_input, len(schema.inputs))):
        optional = schema.inputs[position].option == onnx.defs.OpSchema.FormalParameterOption.Optional
        if not optional and not node.input[position]:
            raise ModelError(f"{where} lacks its required input {position} ({schema.inputs[position].name})")
    _check_attributes(node, where, schema)


def _trimmed(names: list[str]) -> list[str]:
    while names and not names[-1]:
        names = names[:-1]
    return names


def _check_count(where: str, what: str, count: int, least: int, most: int) -> None:
    if not least <= count <= most:
        wanted = str(least) if least == most else f"{least} to {most}" if most < 2**30 else f"at least {least}"
        raise ModelError(f"{where} has {count} {what}; the operator takes {wanted}")


def _check_attributes(node: onnx.NodeProto, where: str, schema: onnx.defs.OpSchema) -> None:
    given = {a.name: a for a in node.attribute}
    if len(given) != len(node.attribute):
        raise ModelError(f"{where} gives an attribute twice")
    for name, attribute in given.items():
        known = schema.attributes.get(name)
        if known is None:
            takes = ", ".join(sorted(schema.attributes)) or "none"
            raise ModelError(f"{where} has the attribute {name!r}, which the operator does not have; it has: {takes}")
        wanted = known.type.name  # type: ignore[attr-defined]  # an enum, which the stubs do not say
        found = _KINDS.get(attribute.type, f"number {attribute.type}")
        if found != wanted:
            raise ModelError(f"attribute {name!r} of {where} is of type {found}; it must be of type {wanted}")
    missing = [n for n, a in schema.attributes.items() if a.required and n not in given]
    if missing:
        raise ModelError(f"{where} lacks its required attribute {missing[0]!r}")
