"""Operators on shapes, and those that only give a tensor another shape."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from polycomp.dtypes import DType
from polycomp.errors import ModelError, ShapeError
from polycomp.expr import Binary, Const, Expr, const, maximum
from polycomp.importers.onnx.builder import Value
from polycomp.importers.onnx.known import MAX_KNOWN
from polycomp.importers.onnx.site import Handler, Site
from polycomp.importers.onnx.tensors import dtype_of
from polycomp.te import Dim


def _shape(site: Site) -> Sequence[Value]:
    shape = site.input().shape
    rank = len(shape)
    start, end, _ = slice(site.integer("start", 0), site.integer("end", rank)).indices(rank)
    part = shape[start:end]
    return [site.builder.known(part, (len(part),), DType.INT64)]


def _size(site: Site) -> Sequence[Value]:
    return [site.builder.known([product(site.input().shape)], (), DType.INT64)]


def product(dims: Sequence[Dim]) -> Dim:
    """The number of elements of a shape."""
    total: Dim = 1
    for dim in dims:
        total = total * dim
    return total


def _reshape(site: Site) -> Sequence[Value]:
    wanted = site.dims(1)
    assert wanted is not None
    x = site.input()
    keep_zero = bool(site.integer("allowzero", 0))
    dims: list[Dim] = []
    for position, dim in enumerate(wanted):
        if dim == 0 and not keep_zero:
            if position >= x.rank:
                raise ShapeError(f"{site.where} copies dimension {position} of an input that has only {x.rank}")
            dim = x.shape[position]
        dims.append(dim)
    return [site.reshape(x, resolve(site, x.shape, dims))]


def resolve(site: Site, shape: Sequence[Dim], wanted: Sequence[Dim]) -> list[Dim]:
    """``wanted`` with its -1 replaced by what remains of ``shape``; raises ShapeError when the sizes contradict."""
    unknown = [i for i, d in enumerate(wanted) if not isinstance(d, Expr) and d < 0]
    text = f"{site.where} cannot reshape [{', '.join(map(str, shape))}] to [{', '.join(map(str, wanted))}]"
    if len(unknown) > 1 or any(wanted[i] != -1 for i in unknown):
        raise ShapeError(f"{text}: only one dimension may be -1")
    whole, parts = _without_common(shape, [d for d in wanted if isinstance(d, Expr) or d >= 0])
    total, rest = site.builder.dim(product(whole)), site.builder.dim(product(parts))
    if not isinstance(total, Expr) and not isinstance(rest, Expr):
        fits = rest != 0 and total % rest == 0 if unknown else total == rest
        if not fits:
            raise ShapeError(f"{text}: the numbers of elements differ")
    if not unknown:
        return list(wanted)
    return [site.builder.dim(total // rest) if i == unknown[0] else d for i, d in enumerate(wanted)]


def _without_common(shape: Sequence[Dim], parts: Sequence[Dim]) -> tuple[list[Dim], list[Dim]]:
    """Both as factors, with the ones that they share taken out, and numbers divided by their common factor."""
    whole, rest = ([f for d in dims for f in _factors(d)] for dims in (shape, parts))
    for factor in list(rest):
        if isinstance(factor, Expr) and factor in whole:
            whole.remove(factor)
            rest.remove(factor)
    numbers, divisors = (math.prod(f for f in side if not isinstance(f, Expr)) for side in (whole, rest))
    common = math.gcd(numbers, divisors) or 1
    left = [f for f in whole if isinstance(f, Expr)]
    right = [f for f in rest if isinstance(f, Expr)]
    return [*left, numbers // common], [*right, divisors // common]


def _factors(dim: Dim) -> list[Dim]:
    if isinstance(dim, Binary) and dim.op == "mul":
        return [*_factors(dim.left), *_factors(dim.right)]
    return [int(dim.value) if isinstance(dim, Const) else dim]


def _flatten(site: Site) -> Sequence[Value]:
    x = site.input()
    axis = site.integer("axis", 1)
    if not -x.rank <= axis <= x.rank:
        raise ShapeError(f"{site.where} has axis {axis}, but its input has {x.rank} dimensions")
    axis = axis + x.rank if axis < 0 else axis
    return [site.reshape(x, (product(x.shape[:axis]), product(x.shape[axis:])))]


def _squeeze(site: Site) -> Sequence[Value]:
    x = site.input()
    given = site.ints_or_input("axes", 1)
    axes = site.axes(given, x.rank) if given is not None else tuple(d for d in range(x.rank) if x.shape[d] == 1)
    wrong = [d for d in axes if x.shape[d] != 1]
    if wrong:
        raise ShapeError(f"{site.where} squeezes dimension {wrong[0]}, whose size is {x.shape[wrong[0]]}, not 1")
    return [site.reshape(x, [d for i, d in enumerate(x.shape) if i not in axes])]


def _unsqueeze(site: Site) -> Sequence[Value]:
    x = site.input()
    given = site.ints_or_input("axes", 1)
    if given is None:
        raise ModelError(f"{site.where} lacks its axes")
    axes = site.axes(given, x.rank + len(given))
    sizes = iter(x.shape)
    return [site.reshape(x, [1 if i in axes else next(sizes) for i in range(x.rank + len(axes))])]


def _expand(site: Site) -> Sequence[Value]:
    wanted = site.dims(1)
    assert wanted is not None
    x = site.input()
    rank = max(x.rank, len(wanted))
    own = [1] * (rank - x.rank) + list(x.shape)
    other = [1] * (rank - len(wanted)) + wanted
    shape = tuple(_broadcast(site, a, b) for a, b in zip(own, other, strict=True))
    if shape == x.shape:
        return [x]
    small = all(not isinstance(d, Expr) for d in shape) and math.prod(shape) <= MAX_KNOWN
    if x.known is not None and not x.name and small:
        return [site.known(np.broadcast_to(x.known, [int(d) for d in shape if not isinstance(d, Expr)]), x.dtype)]
    return [site.emit("Expand", x, shape=shape)]


def _broadcast(site: Site, a: Dim, b: Dim) -> Dim:
    a, b = site.builder.dim(a), site.builder.dim(b)
    if a == b or b == 1:
        return a
    if a == 1:
        return b
    if not isinstance(a, Expr) and not isinstance(b, Expr):
        raise ShapeError(f"{site.where} cannot expand a dimension of size {a} to {b}")
    return b if isinstance(a, Expr) else a


def _constant(site: Site) -> Sequence[Value]:
    names = list(site.attributes)
    if len(names) != 1:
        raise ModelError(f"{site.where} must have exactly one value, but has {len(names)}")
    name = names[0]
    if name in ("value_string", "value_strings"):
        raise site.unsupported("it holds text")
    if name == "sparse_value":
        raise site.unsupported("it holds a sparse tensor")
    if name == "value":
        return [site.builder.constant(site.tensor("value"), site.name)]
    attribute = site.attributes[name]
    scalars = {"value_int": attribute.i, "value_float": attribute.f}
    data = scalars[name] if name in scalars else list(attribute.ints if name == "value_ints" else attribute.floats)
    return [site.builder.constant(np.array(data, np.int64 if "int" in name else np.float32), site.name)]


def _constant_of_shape(site: Site) -> Sequence[Value]:
    shape = site.dims(0)
    assert shape is not None
    content = site.tensor("value") if site.given("value") else np.zeros(1, np.float32)
    if content.size != 1:
        raise ModelError(f"{site.where} has a value of {content.size} elements; it must have one")
    sizes = [d for d in shape if not isinstance(d, Expr)]
    if sizes and min(sizes) < 0:
        raise ShapeError(f"{site.where} makes a tensor of the impossible shape [{', '.join(map(str, shape))}]")
    filled = site.builder.constant(content.reshape(()), site.name)
    if len(sizes) == len(shape) and math.prod(sizes) <= MAX_KNOWN:
        return [site.builder.constant(np.full(sizes, content.reshape(())), site.name)]
    return [site.emit("Fill", shape=tuple(shape), value=content.reshape(()).item(), dtype=filled.dtype)]


def _range(site: Site) -> Sequence[Value]:
    dtype = site.input().dtype
    ends = [site.dims(i) if dtype.is_integer else None for i in range(3)]
    if not dtype.is_integer or any(e is None or len(e) != 1 for e in ends):
        raise site.unsupported("its limits are not integer scalars that are known before the model runs")
    start, limit, delta = (e[0] for e in ends if e)
    if isinstance(delta, Expr) or delta == 0:
        raise site.unsupported(f"its step is {delta}")
    distance = limit - start if delta > 0 else start - limit
    step = abs(delta)
    size = site.builder.dim(maximum(const(0), const(0) + (distance + (step - 1)) // step))
    return [site.emit("Range", start=site.builder.dim(start), size=size, delta=delta, dtype=dtype)]


def _eye_like(site: Site) -> Sequence[Value]:
    shape = site.input().shape
    rows_columns = [d for d in shape if not isinstance(d, Expr)]
    if len(shape) != 2 or len(rows_columns) != 2:
        raise site.unsupported("its input is not a matrix of known size")
    dtype = site.input().dtype
    if site.given("dtype"):
        dtype = dtype_of(site.integer("dtype"), site.where)
    rows, columns = rows_columns
    return [site.builder.constant(np.eye(rows, columns, k=site.integer("k", 0)).astype(dtype.numpy), site.name)]


HANDLERS: Mapping[str, Handler] = MappingProxyType(
    {
        "Shape": _shape,
        "Size": _size,
        "Reshape": _reshape,
        "Flatten": _flatten,
        "Squeeze": _squeeze,
        "Unsqueeze": _unsqueeze,
        "Expand": _expand,
        "Constant": _constant,
        "ConstantOfShape": _constant_of_shape,
        "Range": _range,
        "EyeLike": _eye_like,
    }
)
