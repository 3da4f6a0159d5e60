"""The invariants of a Graph, checked after every pass in tests."""

from __future__ import annotations

from collections.abc import Mapping

from polycomp.dtypes import as_dtype
from polycomp.errors import CompileError
from polycomp.expr import Expr, prove, simplify
from polycomp.expr.nodes import eq, wrap
from polycomp.graph.ir import Graph, Node, Operator, TensorType
from polycomp.te import Dim


def verify(graph: Graph, operators: Mapping[str, Operator]) -> None:
    """Raise CompileError (always a bug of a pass) when ``graph`` is not well formed.

    Every value is made once and before it is read, has the type that its operator infers, and constants have the
    dtype and shape of their types; groups, once there are any, cover all nodes in an order that can be executed.
    """
    _verify_constants(graph)
    known = set(graph.inputs) | set(graph.constants)
    names: set[str] = set()
    for node in graph.nodes:
        if node.name in names:
            raise _broken(graph, f"two nodes are called {node.name!r}")
        names.add(node.name)
        _verify_node(graph, node, operators, known)
        known.update(node.outputs)
    missing = [o for o in graph.outputs if o not in known]
    if missing:
        raise _broken(graph, f"the output {missing[0]!r} is made by no node")
    if graph.groups:
        _verify_groups(graph)


def _broken(graph: Graph, why: str) -> CompileError:
    return CompileError(f"the graph {graph.name!r} is not well formed: {why}")


def _verify_constants(graph: Graph) -> None:
    for name, array in graph.constants.items():
        found = TensorType(as_dtype(array.dtype), array.shape)
        if graph.types.get(name) != found:
            raise _broken(graph, f"the constant {name!r} is {found}, but its type is {graph.types.get(name)}")
    for name in (*graph.inputs, *graph.outputs):
        if name not in graph.types:
            raise _broken(graph, f"the value {name!r} has no type")


def _verify_node(graph: Graph, node: Node, operators: Mapping[str, Operator], known: set[str]) -> None:
    unknown = [i for i in node.inputs if i and i not in known]
    if unknown:
        raise _broken(graph, f"{node.op} {node.name!r} reads {unknown[0]!r} before it is made")
    again = [o for o in node.outputs if o in known]
    if again:
        raise _broken(graph, f"{node.op} {node.name!r} makes {again[0]!r}, which is made already")
    if node.op not in operators:
        raise _broken(graph, f"{node.name!r} applies {node.op!r}, which is no operator")
    types = operators[node.op].infer(graph.call(node))
    for output, inferred in zip(node.outputs, types, strict=True):
        if not same_type(graph.types.get(output), inferred):
            raise _broken(graph, f"{output!r} of {node.op} {node.name!r} is {graph.types.get(output)}, not {inferred}")


def same_type(found: TensorType | None, wanted: TensorType) -> bool:
    """Whether both have one dtype and the same shape, up to the form of symbolic sizes."""
    if found is None or found.dtype is not wanted.dtype or found.rank != wanted.rank:
        return False
    return all(same_dim(a, b) for a, b in zip(found.shape, wanted.shape, strict=True))


def same_dim(a: Dim, b: Dim) -> bool:
    """Whether two sizes are certainly equal."""
    if not isinstance(a, Expr) and not isinstance(b, Expr):
        return a == b
    x, y = simplify(wrap(a)), simplify(wrap(b))
    return x == y or prove(eq(x, y), {}) is True


def _verify_groups(graph: Graph) -> None:
    grouped = [node for group in graph.groups for node in group.nodes]
    if {n.name for n in grouped} != {n.name for n in graph.nodes} or len(grouped) != len(graph.nodes):
        raise _broken(graph, "the groups do not hold every node once")
    known = set(graph.inputs) | set(graph.constants)
    for group in graph.groups:
        late = [i for i in group.inputs if i not in known]
        if late:
            raise _broken(graph, f"group {group.name!r} reads {late[0]!r} before its group has run")
        made = {o for n in group.nodes for o in n.outputs}
        read = {i for n in group.nodes for i in n.inputs if i} - made
        if read != set(group.inputs) or not set(group.outputs) <= made:
            raise _broken(graph, f"group {group.name!r} does not name its inputs and outputs right")
        known.update(group.outputs)
    hidden = [o for o in graph.outputs if o not in known]
    if hidden:
        raise _broken(graph, f"the output {hidden[0]!r} stays inside its group")
