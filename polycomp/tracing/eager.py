"""polycomp's functions on plain arrays, outside of any trace: evaluated at once by their definitions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from polycomp.graph import Graph, Node
from polycomp.ops import operators
from polycomp.te import Tensor as Definition
from polycomp.te import placeholder
from polycomp.te.evaluate import evaluate
from polycomp.tracing.sizes import Size
from polycomp.tracing.tensor import Tensor
from polycomp.tracing.trace import Trace
from polycomp.tracing.value import Value

Array = np.ndarray[Any, Any]


def is_traced(*operands: Any) -> bool:
    """Whether any operand is traced; lists, tuples and dicts are looked into."""
    for operand in operands:
        parts = operand.values() if isinstance(operand, dict) else operand if isinstance(operand, list | tuple) else ()
        if isinstance(operand, Value | Size) or (parts and is_traced(*parts)):
            return True
    return False


def run_now(rule: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """``rule`` on arrays, as arrays. Slow: for small things beside a compiled function, not instead of one."""
    trace = Trace(rule.__name__, operators(), Tensor)
    given = [_constant(trace, a) for a in args]
    named = {k: _constant(trace, v) for k, v in kwargs.items()}
    if not is_traced(given, named):
        given = [_constant(trace, np.asarray(args[0])), *given[1:]]
    result = rule(*given, **named)
    results = result if isinstance(result, list | tuple) else [result]
    graph = trace.finish([r for r in results if isinstance(r, Value)])
    values = _evaluate(graph)
    outputs = iter(graph.outputs)
    found = [values[next(outputs)] if isinstance(r, Value) else r for r in results]
    return type(result)(found) if isinstance(result, list | tuple) else found[0]


def _constant(trace: Trace, operand: Any) -> Any:
    if isinstance(operand, np.ndarray | np.generic):
        return trace.constant(np.asarray(operand))
    if isinstance(operand, list | tuple) and any(isinstance(o, np.ndarray) for o in operand):
        return type(operand)(_constant(trace, o) for o in operand)
    return operand


def _evaluate(graph: Graph) -> dict[str, Array]:
    values = dict(graph.constants)
    for node in graph.nodes:
        values.update(zip(node.outputs, _run_node(graph, node, values), strict=True))
    return values


def _run_node(graph: Graph, node: Node, values: Mapping[str, Array]) -> list[Array]:
    tensors = [placeholder(graph.types[i].shape, graph.types[i].dtype, i) if i else None for i in node.inputs]
    outputs = operators()[node.op].lower(graph.call(node), tensors)
    feeds: dict[Definition, Array] = {t: values[t.name] for t in tensors if t is not None}
    return evaluate(outputs, feeds)
