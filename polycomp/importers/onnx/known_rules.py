"""What ONNX operators do to known values: how shapes that a model computes for itself become numbers."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from polycomp.dtypes import DType
from polycomp.expr import Expr, compare, maximum, minimum, prove, wrap
from polycomp.importers.onnx.builder import Value
from polycomp.importers.onnx.known import MAX_KNOWN, Array, elementwise, is_symbolic
from polycomp.importers.onnx.site import Site
from polycomp.importers.onnx.tensors import dtype_of
from polycomp.te import Dim

Rule = Callable[[Site, Sequence[Array]], Value | None]


def evaluate(site: Site) -> Value | None:
    """The output of a node whose inputs are all known and small; None when it has to be computed at run time."""
    rule = RULES.get(site.op)
    present = [v for v in site.inputs if v is not None]
    arrays = [v.known for v in present if v.known is not None]
    if rule is None or not arrays or len(arrays) != len(present) or sum(a.size for a in arrays) > MAX_KNOWN:
        return None
    with np.errstate(all="ignore"):
        result = rule(site, arrays)
    return None if result is None or result.known is None or result.known.size > MAX_KNOWN else result


def _truncated_division(a: Dim, b: Dim) -> Dim | None:
    if not isinstance(a, Expr) and not isinstance(b, Expr):
        return None if b == 0 else int(math.copysign(1, a) * math.copysign(1, b)) * (abs(a) // abs(b))
    if not isinstance(b, Expr) and b > 0:
        return a // b  # sizes are not negative, so floor and truncation agree
    return None


def _compare(op: str) -> Callable[[Site], Callable[[Dim, Dim], Dim | None]]:
    def bind(site: Site) -> Callable[[Dim, Dim], Dim | None]:
        def decide(a: Dim, b: Dim) -> Dim | None:
            decided = prove(compare(op, wrap(a), wrap(b)), site.builder.ranges)
            return None if decided is None else int(decided)

        return decide

    return bind


def _pick(condition: Dim, a: Dim, b: Dim) -> Dim | None:
    return None if isinstance(condition, Expr) else a if condition else b


_SYMBOLIC: Mapping[str, Callable[..., Dim | None]] = MappingProxyType(
    {
        "Add": operator.add,
        "Sub": operator.sub,
        "Mul": operator.mul,
        "Div": _truncated_division,
        "Neg": operator.neg,
        "Where": _pick,
        "Identity": lambda a: a,
    }
)
_COMPARISONS: Mapping[str, Callable[[Site], Callable[[Dim, Dim], Dim | None]]] = MappingProxyType(
    {
        "Equal": _compare("eq"),
        "Less": _compare("lt"),
        "LessOrEqual": _compare("le"),
        "Greater": _compare("gt"),
        "GreaterOrEqual": _compare("ge"),
    }
)


def _divide(a: Array, b: Array) -> Array:
    """Integers truncate towards zero; a zero divisor is for the run to meet."""
    if not np.issubdtype(a.dtype, np.integer):
        return np.asarray(np.divide(a, b))
    quotient = np.abs(a) // np.where(b == 0, 1, np.abs(b))
    return np.asarray(np.where((a < 0) != (b < 0), -quotient, quotient)).astype(a.dtype)


def _remainder(a: Array, b: Array) -> Array:
    """Of integers, with the divisor's sign (fmod has its own attribute and is left to the run)."""
    return np.asarray(np.mod(a, np.where(b == 0, 1, b)))


_NUMERIC: Mapping[str, Callable[..., Array]] = MappingProxyType(
    {
        "Add": np.add,
        "Sub": np.subtract,
        "Mul": np.multiply,
        "Div": _divide,
        "Mod": _remainder,
        "Neg": np.negative,
        "Abs": np.abs,
        "Floor": np.floor,
        "Ceil": np.ceil,
        "Sqrt": np.sqrt,
        "Not": np.logical_not,
        "And": np.logical_and,
        "Or": np.logical_or,
        "Equal": np.equal,
        "Less": np.less,
        "LessOrEqual": np.less_equal,
        "Greater": np.greater,
        "GreaterOrEqual": np.greater_equal,
        "Where": np.where,
        "Identity": np.asarray,
    }
)
_BOOLEAN = frozenset(["Not", "And", "Or", "Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"])


def _result_dtype(site: Site) -> DType:
    return DType.BOOL if site.op in _BOOLEAN else site.input(1 if site.op == "Where" else 0).dtype


def _arithmetic(site: Site, arrays: Sequence[Array]) -> Value | None:
    """Element-wise operators, by numpy when all is numbers and element by element when symbols occur."""
    if not _broadcastable(arrays):
        return None  # the operator's own shape rule has the better message
    dtype = _result_dtype(site)
    if site.op == "Mod" and (not dtype.is_integer or site.integer("fmod", 0)):
        return None
    if not any(map(is_symbolic, arrays)):
        return site.known(np.asarray(_NUMERIC[site.op](*arrays)), dtype)
    function = _COMPARISONS[site.op](site) if site.op in _COMPARISONS else _SYMBOLIC.get(site.op)
    if function is None:
        return None
    return _maybe(site, elementwise(function, arrays, dtype, site.builder.ranges), dtype)


def _broadcastable(arrays: Sequence[Array]) -> bool:
    try:
        np.broadcast_shapes(*(a.shape for a in arrays))
    except ValueError:
        return False
    return True


def _maybe(site: Site, array: Array | None, dtype: DType) -> Value | None:
    return None if array is None else site.known(array, dtype)


def _extremum(numeric: Callable[..., Array], symbolic: Callable[..., Dim]) -> Rule:
    def rule(site: Site, arrays: Sequence[Array]) -> Value | None:
        if not _broadcastable(arrays):
            return None
        dtype = site.input().dtype
        if not any(map(is_symbolic, arrays)):
            return site.known(functools.reduce(numeric, arrays), dtype)
        pairwise = functools.partial(functools.reduce, symbolic)
        return _maybe(site, elementwise(lambda *e: pairwise(e), arrays, dtype, site.builder.ranges), dtype)

    return rule


def _symbolic_minimum(a: Dim, b: Dim) -> Dim:
    return minimum(wrap(a), wrap(b))


def _symbolic_maximum(a: Dim, b: Dim) -> Dim:
    return maximum(wrap(a), wrap(b))


def _cast(site: Site, arrays: Sequence[Array]) -> Value | None:
    dtype = dtype_of(site.integer("to"), site.where)
    if is_symbolic(arrays[0]):
        return site.known(arrays[0], dtype) if dtype.is_integer else None
    return site.known(arrays[0].astype(dtype.numpy), dtype)


def _gather(site: Site, arrays: Sequence[Array]) -> Value | None:
    data, indices = arrays
    axis = site.axis(site.integer("axis", 0), data.ndim)
    size = data.shape[axis] if data.ndim else 0
    if not np.issubdtype(indices.dtype, np.integer) or not np.all((indices >= -size) & (indices < size)):
        return None
    return site.known(_as_array(np.take(data, indices, axis)), site.input().dtype)


def _as_array(result: Any) -> Array:
    """numpy gives a bare object for a 0-d result of an object array."""
    if isinstance(result, np.ndarray):
        return result
    array = np.empty((), object if isinstance(result, Expr) else None)
    array[()] = result
    return array if isinstance(result, Expr) else np.asarray(result)


def _transpose(site: Site, arrays: Sequence[Array]) -> Value | None:
    data = arrays[0]
    perm = site.integers("perm", list(range(data.ndim))[::-1])
    return site.known(data.transpose(perm), site.input().dtype) if sorted(perm) == list(range(data.ndim)) else None


def _concat(site: Site, arrays: Sequence[Array]) -> Value | None:
    ranks = {a.ndim for a in arrays}
    if ranks != {1}:
        return None
    symbolic = any(map(is_symbolic, arrays))
    parts = [a.astype(object) if symbolic else a for a in arrays]
    return site.known(np.concatenate(parts), site.input().dtype)


def _prod(axis_rule: Callable[[Dim, Dim], Dim], start: int) -> Rule:
    """A reduction over all elements of a vector."""

    def rule(site: Site, arrays: Sequence[Array]) -> Value | None:
        data = arrays[0]
        axes = site.ints_or_input("axes", 1)
        if data.ndim != 1 or not site.input().dtype.is_integer or (axes and list(axes) not in ([0], [-1])):
            return None
        if not axes and site.opset >= 18 and site.integer("noop_with_empty_axes", 0):
            return None
        total: Dim = start
        for element in data.tolist():
            total = axis_rule(total, element)
        shape = (1,) if site.integer("keepdims", 1) else ()
        return site.builder.known([total], shape, site.input().dtype)

    return rule


def _range(site: Site, arrays: Sequence[Array]) -> Value | None:
    if any(map(is_symbolic, arrays)):
        return None
    start, limit, delta = (a.reshape(-1)[0] if a.size == 1 else None for a in arrays)
    if start is None or limit is None or not delta:
        return None
    count = max(0.0, math.ceil((float(limit) - float(start)) / float(delta)))
    if not count <= MAX_KNOWN:
        return None
    return site.known(start + np.arange(int(count)) * delta, site.input().dtype)


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        **dict.fromkeys(_NUMERIC, _arithmetic),
        "Max": _extremum(np.maximum, _symbolic_maximum),
        "Min": _extremum(np.minimum, _symbolic_minimum),
        "Cast": _cast,
        "Gather": _gather,
        "Transpose": _transpose,
        "Concat": _concat,
        "ReduceProd": _prod(operator.mul, 1),
        "ReduceSum": _prod(operator.add, 0),
        "Range": _range,
    }
)
"""Reshape and its family, Slice, Expand and Split handle known values in their own handlers."""
