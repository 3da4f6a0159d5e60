"""Resize: nearest, linear and cubic interpolation, one tensor per resized dimension.

Interpolation is separable, so each resized dimension is a pass of 1 (nearest), 2 (linear) or 4 (cubic) taps. Output
coordinates are mapped to input coordinates in float32, as the ONNX specification's Resize-19 and onnxruntime do. When
sizes are known, the taps' positions are turned into exact integer divisions wherever one fits, which keeps accesses
quasi-affine.
"""

from __future__ import annotations

import dataclasses
import fractions
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from polycomp.dtypes import DType
from polycomp.errors import DTypeError, ShapeError, UnsupportedOperatorError
from polycomp.expr import Expr, cast, const, maximum, minimum, select, simplify, unary, wrap
from polycomp.graph.ir import Call, Operator, OpKind, TensorType
from polycomp.ops.windows import define, narrow, required, widen
from polycomp.te import Dim, Tensor

Array = np.ndarray[Any, np.dtype[Any]]

MODES = ("nearest", "linear", "cubic")
COORDINATES = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric")
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


def _infer_resize(call: Call) -> tuple[TensorType, ...]:
    """x of any rank -> ``sizes``."""
    x, sizes = call.input(0), tuple(call.attr("sizes"))
    if len(sizes) != x.rank:
        raise ShapeError(f"Resize {call.node!r}: {len(sizes)} sizes for an input of shape {list(x.shape)}")
    _check_choice(call, "mode", "nearest", MODES)
    _check_choice(call, "coordinate_transformation_mode", "half_pixel", COORDINATES)
    _check_choice(call, "nearest_mode", "round_prefer_floor", ROUNDINGS)
    if x.dtype is DType.BOOL and call.attr("mode", "nearest") != "nearest":
        raise DTypeError(f"Resize {call.node!r} cannot interpolate {x}")
    return (TensorType(x.dtype, sizes),)


def _check_choice(call: Call, name: str, default: str, choices: Sequence[str]) -> None:
    value = call.attr(name, default)
    if value not in choices:
        raise UnsupportedOperatorError(
            f"Resize {call.node!r}: {name} {value!r} is not supported; supported are {', '.join(choices)}"
        )


@dataclasses.dataclass(frozen=True)
class _Dimension:
    """One resized dimension: its position, sizes before and after, and scale (after / before; None: their ratio)."""

    position: int
    before: Dim
    after: Dim
    scale: float | None

    @property
    def sizes(self) -> tuple[int, int] | None:
        """Both sizes when they are known."""
        if isinstance(self.before, int) and isinstance(self.after, int):
            return self.before, self.after
        return None

    def coordinate(self, call: Call, index: Any) -> Any:
        """The input coordinate of output ``index``, a float32 expression or array: ONNX Resize-19's rules."""
        before, after = _number(self.before), _number(self.after)
        scale = after / before if self.scale is None else self.scale
        mode = call.attr("coordinate_transformation_mode", "half_pixel")
        if mode == "asymmetric":
            return index / scale
        if mode == "align_corners":
            return index * (before - 1.0) / _at_least_one(after - 1.0)
        if mode == "half_pixel_symmetric":
            return (index + 0.5) / scale + _centering(before, after, scale) - 0.5
        half_pixel = (index + 0.5) / scale - 0.5
        return _zero_if_single(half_pixel, after) if mode == "pytorch_half_pixel" else half_pixel


def _number(size: Dim) -> Any:
    """``size`` as a float, or as a float32 expression."""
    return float(size) if isinstance(size, int) else cast(DType.FLOAT32, size)


def _at_least_one(size: Any) -> Any:
    return maximum(size, 1.0) if isinstance(size, Expr) else max(size, 1.0)


def _zero_if_single(coordinate: Any, after: Any) -> Any:
    if isinstance(after, Expr):
        return select(after > 1.0, coordinate, 0.0)
    return coordinate if after > 1 else coordinate * 0.0


def _centering(before: Any, after: Any, scale: Any) -> Any:
    """The shift that keeps the centre in place when ``after`` is not quite ``scale * before``."""
    if isinstance(before, float) and isinstance(after, float):  # rounded as onnxruntime does: ties depend on it
        before, after, scale = np.float32(before), np.float32(after), np.float32(scale)
        return float(before / 2 * (1 - after / (scale * before)))
    return before / 2.0 * (1.0 - after / (scale * before))


def _resized(call: Call, x: TensorType | Tensor) -> list[_Dimension]:
    scales = call.attr("scales") or (None,) * len(x.shape)
    rows = enumerate(zip(x.shape, call.attr("sizes"), scales, strict=True))
    return [_Dimension(d, *row) for d, row in rows if row[0] != row[1] or row[2] not in (None, 1)]


def _lower_resize(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    x = required(inputs, 0)
    result, dtype = x, x.dtype
    for dimension in _resized(call, x):
        result = _resize_dimension(call, result, dimension)
    if result is x:
        result = define(f"{call.node}.same", x.shape, _names(x.rank), lambda *i: x[i], call.node)
    return (narrow(result, dtype, f"{call.node}.cast", call.node),)


def _names(rank: int) -> tuple[str, ...]:
    return tuple(f"i{d}" for d in range(rank))


def _resize_dimension(call: Call, x: Tensor, dimension: _Dimension) -> Tensor:
    """One pass: every element is a weighted sum of taps along ``dimension``."""
    position = dimension.position

    def body(*index: Expr) -> Expr:
        o = index[position]
        taps = _taps(call, dimension, o)
        loads = [x[(*index[:position], tap, *index[position + 1 :])] for tap, _ in taps]
        if len(taps) == 1:
            return loads[0]
        values = [_interpolable(load) for load in loads]
        terms = [v * cast(v.dtype, weight) for v, (_, weight) in zip(values, taps, strict=True)]
        return _sum(terms)

    shape = (*x.shape[:position], dimension.after, *x.shape[position + 1 :])
    return define(f"{call.node}.axis{position}", shape, _names(x.rank), body, call.node)


def _interpolable(value: Expr) -> Expr:
    """``value`` as a float that can be weighted."""
    return widen(value) if value.dtype.is_float else cast(DType.FLOAT32, value)


def _sum(terms: Sequence[Expr]) -> Expr:
    result = terms[0]
    for term in terms[1:]:
        result = result + term
    return result


def _taps(call: Call, dimension: _Dimension, o: Expr) -> list[tuple[Expr, Expr]]:
    """Input positions and weights (float32) for output index ``o``."""
    x = dimension.coordinate(call, cast(DType.FLOAT32, o))
    mode = call.attr("mode", "nearest")
    if mode == "nearest":
        rounding = _ROUND[call.attr("nearest_mode", "round_prefer_floor")]
        return [(_position(call, dimension, o, rounding, 0), const(1, DType.FLOAT32))]
    fraction = x - _FLOOR(x)
    if mode == "linear":
        weights = [1.0 - fraction, fraction]
        return [(_position(call, dimension, o, _FLOOR, t), w) for t, w in enumerate(weights)]
    weights = _cubic_weights(fraction, float(call.attr("cubic_coeff_a", -0.75)))
    if call.attr("exclude_outside"):
        weights = _without_outside(weights, _FLOOR(x), dimension)
    return [(_position(call, dimension, o, _FLOOR, t - 1), w) for t, w in enumerate(weights)]


def _cubic_weights(s: Expr, a: float) -> list[Expr]:
    """Weights of the taps at -1, 0, 1 and 2 (Keys, "Cubic convolution interpolation", 1981)."""

    def near(t: Expr) -> Expr:
        return ((a + 2.0) * t - (a + 3.0)) * t * t + 1.0

    def far(t: Expr) -> Expr:
        return ((a * t - 5.0 * a) * t + 8.0 * a) * t - 4.0 * a

    return [far(s + 1.0), near(s), near(1.0 - s), far(2.0 - s)]


def _without_outside(weights: Sequence[Expr], base: Expr, dimension: _Dimension) -> list[Expr]:
    """Zero the weights of taps outside of the input, and scale the others to a sum of 1."""
    last = _number(dimension.before) - 1.0
    kept = []
    for offset, weight in enumerate(weights, start=-1):
        place = base + float(offset)
        kept.append(select((place >= 0.0) & (place <= last), weight, 0.0))
    total = _sum(kept)
    return [weight / total for weight in kept]


@dataclasses.dataclass(frozen=True)
class _Rounding:
    """A rounding to an integer, for float expressions and for arrays."""

    expression: Callable[[Expr], Expr]
    array: Callable[[Array], Array]

    def __call__(self, x: Expr) -> Expr:
        return self.expression(x)


_FLOOR = _Rounding(lambda x: unary("floor", x), np.floor)
_ROUND: Mapping[str, _Rounding] = MappingProxyType(
    {
        "floor": _FLOOR,
        "ceil": _Rounding(lambda x: unary("ceil", x), np.ceil),
        "round_prefer_floor": _Rounding(lambda x: unary("ceil", x - 0.5), lambda x: np.ceil(x - np.float32(0.5))),
        "round_prefer_ceil": _Rounding(lambda x: unary("floor", x + 0.5), lambda x: np.floor(x + np.float32(0.5))),
    }
)


def _position(call: Call, dimension: _Dimension, o: Expr, rounding: _Rounding, offset: int) -> Expr:
    """The input position ``offset`` from the rounded coordinate of output ``o``, kept inside of the input."""
    if dimension.sizes is not None:
        exact = _exact_position(call, dimension, o, rounding, offset)
        if exact is not None:
            return exact
    x = dimension.coordinate(call, cast(DType.FLOAT32, o))
    return _clamp(cast(DType.INT64, rounding(x)) + offset, dimension.before)


def _clamp(index: Expr, size: Dim) -> Expr:
    return minimum(maximum(index, 0), wrap(size) - 1)


def _exact_position(call: Call, dimension: _Dimension, o: Expr, rounding: _Rounding, offset: int) -> Expr | None:
    """The same position by integer division, when that gives it for every output; else None."""
    assert dimension.sizes is not None
    before, after = dimension.sizes
    coordinates = dimension.coordinate(call, np.arange(after, dtype=np.float32))
    free = rounding.array(coordinates).astype(np.int64) + offset
    kept = np.clip(free, 0, before - 1)
    slope = _slope(call, dimension, before, after)
    for scale in (1, 2):
        rise, run = slope.numerator * scale, slope.denominator * scale
        for table in (kept, free):
            shift = _fit(table, rise, run)
            if shift is not None:
                index = simplify((o * rise + shift) // run)
                return index if table is kept else _clamp(index, before)
    return None


def _slope(call: Call, dimension: _Dimension, before: int, after: int) -> fractions.Fraction:
    """Input elements per output element."""
    if call.attr("coordinate_transformation_mode") == "align_corners":
        return fractions.Fraction(before - 1, max(1, after - 1))
    if dimension.scale is None:
        return fractions.Fraction(before, after)
    return 1 / fractions.Fraction(dimension.scale).limit_denominator(4096)


def _fit(table: Array, rise: int, run: int) -> int | None:
    """A ``shift`` such that ``table[o] == (o * rise + shift) // run`` for all o; None if there is none."""
    line = np.arange(len(table), dtype=np.int64) * rise
    low = int(np.max(table * run - line, initial=-(2**62)))
    high = int(np.min((table + 1) * run - line, initial=2**62)) - 1
    return min(max(low, 0), high) if low <= high else None


OPERATORS: Mapping[str, Operator] = MappingProxyType(
    {"Resize": Operator("Resize", OpKind.INJECTIVE, _infer_resize, _lower_resize)}
)
