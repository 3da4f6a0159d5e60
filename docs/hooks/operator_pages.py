"""Which ONNX operators can be compiled, and which operators the compiler itself has."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import onnx
import onnx.defs
from onnx import helper

from polycomp.importers.onnx.importer import HANDLERS
from polycomp.ops import operators


def onnx_operators() -> str:
    """A table of the operators of ONNX's default domain: how each is supported, and with which limits."""
    schemas = {s.name: s for s in onnx.defs.get_all_schemas() if s.domain == "" and not s.deprecated}
    rows = [f"| {name} | {_how(name, schema)} | {_limits(name)} |" for name, schema in sorted(schemas.items())]
    supported = sum("—" not in _how(name, schema) for name, schema in schemas.items())
    newest = onnx.defs.onnx_opset_version()
    counted = f"{supported} of the {len(schemas)} operators of ONNX opset {newest} can be compiled."
    return "\n".join([counted, "", "| operator | supported | not supported when |", "|---|---|---|", *rows])


def _how(name: str, schema: onnx.defs.OpSchema) -> str:
    if name in HANDLERS:
        return "yes"
    return "by definition" if _is_expandable(schema) else "—"


def _is_expandable(schema: onnx.defs.OpSchema) -> bool:
    """Whether ONNX defines the operator by others that can be compiled."""
    definition = _definition(schema)
    if definition is None:
        return False
    newest = onnx.defs.onnx_opset_version()
    used = {node.op_type for node in definition.node} - set(HANDLERS)
    return all(_is_expandable(onnx.defs.get_schema(op, newest, "")) for op in used)


def _definition(schema: onnx.defs.OpSchema) -> onnx.FunctionProto | None:
    """The operator's definition by others; where that depends on types, float32's (empty if ONNX must know more)."""
    if schema.has_function:  # type: ignore[attr-defined]
        return schema.function_body
    if not schema.has_context_dependent_function:  # type: ignore[attr-defined]
        return None
    names = [f"i{position}" for position in range(schema.min_input)]
    node = helper.make_node(schema.name, names, [f"o{position}" for position in range(max(1, schema.min_output))])
    kind = helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, (2, 3, 4, 5)).SerializeToString()
    try:
        data = schema.get_context_dependent_function(  # type: ignore[attr-defined]
            node.SerializeToString(), [kind] * len(names)
        )
    except ValueError:  # the definition is made from a subgraph
        return None
    definition = onnx.FunctionProto()
    definition.ParseFromString(data)
    return definition


def _limits(name: str) -> str:
    """What the operator's handler refuses, in the words of its messages."""
    handler = HANDLERS.get(name)
    return "; ".join(dict.fromkeys(_refusals(handler))) if handler is not None else ""


def _refusals(handler: Callable[..., Any]) -> Iterator[str]:
    """The arguments of ``site.unsupported`` in a function and those of its module that it calls."""
    module = inspect.getmodule(handler)
    assert module is not None
    waiting, seen = [handler.__name__], set[str]()
    while waiting:
        name = waiting.pop(0)
        seen.add(name)
        for node in ast.walk(_tree(module, name)):
            if isinstance(node, ast.Name) and node.id not in seen and _is_own_function(module, node.id):
                waiting.append(node.id)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "unsupported":
                yield _literal(node.args[0])


def _is_own_function(module: ModuleType, name: str) -> bool:
    found = getattr(module, name, None)
    return inspect.isfunction(found) and found.__module__ == module.__name__


def _tree(module: ModuleType, name: str) -> ast.AST:
    return ast.parse(textwrap.dedent(inspect.getsource(getattr(module, name))))


def _literal(node: ast.expr) -> str:
    """A string as written; what is only known when it is raised becomes an ellipsis."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr():
            return "".join(_literal(part) for part in node.values)
        case _:
            return "…"


def canonical_operators() -> str:
    """A table of the compiler's own operators by kind."""
    kinds: dict[str, list[str]] = {}
    for name, operator in sorted(operators().items()):
        kinds.setdefault(operator.kind.value, []).append(f"`{name}`")
    rows = [f"| {kind} | {', '.join(names)} |" for kind, names in kinds.items()]
    return "\n".join(["| kind | operators |", "|---|---|", *rows])
