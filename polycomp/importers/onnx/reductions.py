"""Reductions, softmax and cumulative sums."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from polycomp.errors import ModelError
from polycomp.importers.onnx.builder import Value
from polycomp.importers.onnx.site import Handler, Site
from polycomp.te import Dim

_REDUCTIONS = (
    "ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSum",
    "ReduceLogSumExp", "ReduceSumSquare",
)  # fmt: skip


def _reduce(site: Site) -> Sequence[Value]:
    """Axes are an attribute, and from opset 13 (ReduceSum) or 18 (the others) an input."""
    x = site.input()
    given = site.ints_or_input("axes", 1)
    if not given and site.given("noop_with_empty_axes") and site.integer("noop_with_empty_axes"):
        return [_reduced_nothing(site, x)]
    axes = site.axes(given, x.rank) if given else tuple(range(x.rank))
    return [site.emit(site.op, x, axes=axes, keepdims=bool(site.integer("keepdims", 1)))]


def _reduced_nothing(site: Site, x: Value) -> Value:
    """A reduction over no axis: what it does to every element alone."""
    alone = {"ReduceL1": "Abs", "ReduceL2": "Abs", "ReduceLogSum": "Log"}
    if site.op == "ReduceSumSquare":
        return site.emit("Mul", x, x)
    return site.emit(alone[site.op], x) if site.op in alone else x


def _arg(site: Site) -> Sequence[Value]:
    x = site.input()
    axis = site.axis(site.integer("axis", 0), x.rank)
    last = bool(site.integer("select_last_index", 0))
    return [site.emit(site.op, x, axis=axis, keepdims=bool(site.integer("keepdims", 1)), select_last_index=last)]


def _softmax(site: Site) -> Sequence[Value]:
    """Before opset 13 the tensor is flattened to two dimensions at ``axis``, and its second is normalised."""
    x = site.input()
    axis = site.axis(site.integer("axis", -1 if site.opset >= 13 else 1), x.rank)
    if site.opset >= 13 or axis == x.rank - 1 or all(d == 1 for d in x.shape[axis + 1 :]):
        return [site.emit(site.op, x, axis=axis)]
    flat = site.reshape(x, (_product(x.shape[:axis]), _product(x.shape[axis:])))
    return [site.reshape(site.emit(site.op, flat, axis=1), x.shape)]


def _product(dims: Sequence[Dim]) -> Dim:
    return math.prod(dims)


def _cumsum(site: Site) -> Sequence[Value]:
    axis = site.array(1)
    if axis is None or axis.size != 1:
        raise ModelError(f"{site.where} must have a scalar axis")
    x = site.input()
    flags = {n: bool(site.integer(n, 0)) for n in ("exclusive", "reverse")}
    return [site.emit("CumSum", x, axis=site.axis(int(axis.reshape(-1)[0]), x.rank), **flags)]


HANDLERS: Mapping[str, Handler] = MappingProxyType(
    {
        **dict.fromkeys(_REDUCTIONS, _reduce),
        "ArgMax": _arg,
        "ArgMin": _arg,
        "Softmax": _softmax,
        "LogSoftmax": _softmax,
        "CumSum": _cumsum,
    }
)
