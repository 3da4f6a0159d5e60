"""Normalisations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from polycomp.dtypes import DType
from polycomp.errors import ModelError, ShapeError
from polycomp.expr import Expr
from polycomp.importers.onnx.builder import Value
from polycomp.importers.onnx.site import Handler, Site


def _used_outputs(site: Site) -> int:
    return len([o for o in site.proto.output if o])


def _batch(site: Site) -> Sequence[Value]:
    """Inference only: the outputs past the first, where an old exporter named them, are left undefined."""
    if site.integer("training_mode", 0):
        raise site.unsupported("it is in training mode; export the model for inference")
    if site.opset < 9 and site.integer("spatial", 1) != 1:
        raise site.unsupported("its attribute spatial=0 asks for statistics per activation")
    parameters = [site.input(i) for i in range(1, 5)]
    return [site.emit("BatchNormalization", site.input(), *parameters, epsilon=site.number("epsilon", 1e-5))]


def _instance(site: Site) -> Sequence[Value]:
    inputs = [site.input(i) for i in range(3)]
    return [site.emit("InstanceNormalization", *inputs, epsilon=site.number("epsilon", 1e-5))]


def _layer(site: Site) -> Sequence[Value]:
    x, scale = site.input(0), site.input(1)
    axis = site.axis(site.integer("axis", -1), x.rank)
    epsilon = site.number("epsilon", 1e-5)
    result = site.emit("LayerNormalization", x, scale, site.optional(2), axis=axis, epsilon=epsilon)
    return [result, *_statistics(site, x, axis, epsilon)] if _used_outputs(site) > 1 else [result]


def _statistics(site: Site, x: Value, axis: int, epsilon: float) -> tuple[Value, Value]:
    """Mean and inverse standard deviation of a layer normalisation, of the type that it computes in (stash_type)."""
    dtype = DType.FLOAT32 if site.integer("stash_type", 1) == 1 else x.dtype
    wide = site.cast(x, dtype)
    over = {"axes": tuple(range(axis, x.rank)), "keepdims": True}
    mean = site.emit("ReduceMean", wide, **over)
    centred = site.emit("Sub", wide, mean)
    variance = site.emit("ReduceMean", site.emit("Mul", centred, centred), **over)
    shifted = site.emit("Add", variance, site.known(np.array(epsilon, dtype.numpy), dtype))
    return mean, site.emit("Reciprocal", site.emit("Sqrt", shifted))


def _rms(site: Site) -> Sequence[Value]:
    x, scale = site.input(0), site.input(1)
    axis = site.axis(site.integer("axis", -1), x.rank)
    return [site.emit("RMSNormalization", x, scale, axis=axis, epsilon=site.number("epsilon", 1e-5))]


def _group(site: Site) -> Sequence[Value]:
    """Opset 18 has scale and bias per group, opset 21 per channel as the canonical operator."""
    x, scale, bias = site.input(0), site.input(1), site.input(2)
    groups = site.integer("num_groups")
    if groups < 1 or x.rank < 2:
        raise ModelError(f"{site.where} has num_groups={groups} and an input of {x.rank} dimensions")
    channels = x.shape[1]
    if site.opset < 21:
        if isinstance(channels, Expr) or channels % groups:
            raise ShapeError(f"{site.where} cannot split {channels} channels into {groups} groups")
        scale, bias = (_per_channel(site, v, groups, channels // groups) for v in (scale, bias))
    return [site.emit("GroupNormalization", x, scale, bias, num_groups=groups, epsilon=site.number("epsilon", 1e-5))]


def _per_channel(site: Site, value: Value, groups: int, repeats: int) -> Value:
    column = site.reshape(value, (groups, 1))
    return site.reshape(site.emit("Expand", column, shape=(groups, repeats)), (groups * repeats,))


def _lrn(site: Site) -> Sequence[Value]:
    numbers = {n: site.number(n, d) for n, d in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0))}
    size = site.integer("size")
    if size < 1:
        raise ModelError(f"{site.where} has size={size}; it must be at least 1")
    return [site.emit("LRN", site.input(), size=size, **numbers)]


def _mean_variance(site: Site) -> Sequence[Value]:
    x = site.input()
    axes = site.axes(site.integers("axes", [0, 2, 3]), x.rank)
    return [site.emit("MeanVarianceNormalization", x, axes=axes)]


def _lp(site: Site) -> Sequence[Value]:
    x = site.input()
    p = site.integer("p", 2)
    if p not in (1, 2):
        raise ModelError(f"{site.where} has p={p}; it must be 1 or 2")
    return [site.emit("LpNormalization", x, axis=site.axis(site.integer("axis", -1), x.rank), p=p)]


HANDLERS: Mapping[str, Handler] = MappingProxyType(
    {
        "BatchNormalization": _batch,
        "InstanceNormalization": _instance,
        "LayerNormalization": _layer,
        "RMSNormalization": _rms,
        "GroupNormalization": _group,
        "LRN": _lrn,
        "MeanVarianceNormalization": _mean_variance,
        "LpNormalization": _lp,
    }
)
