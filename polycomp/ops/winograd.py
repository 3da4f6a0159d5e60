"""Convolution by Winograd's minimal filtering, on channel-blocked data.

An output tile of m by m elements needs t*t multiplications per channel, t = m + r - 1, instead of (m*r)**2: with the
matrices A (t by m), B (t by t) and G (t by r), ``y = A' ((G w G') * (B' d B)) A`` for an input tile d, t by t, and a
kernel w, r by r (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", arXiv:1509.09308). Summed over
channels, the products are t*t independent matrix products. The matrices are Cook and Toom's for the points 0, 1, -1, 2,
-2 and infinity (Winograd, "Arithmetic Complexity of Computations", 1980), as many of them as are needed.

The transforms are two passes of one dimension each, written out as sums: what the rows for the points a and -a share
is the same expression in both, so that it is computed once where the rows are unrolled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from types import MappingProxyType
from typing import Any

import numpy as np

from polycomp import te
from polycomp.dtypes import DType
from polycomp.errors import ShapeError
from polycomp.expr import Expr, cast, const, eq, select
from polycomp.graph.ir import Call, Operator, OpKind, TensorType
from polycomp.ops.convolution import finish
from polycomp.ops.pooling import layout_names
from polycomp.ops.windows import (
    FIRST_SPATIAL,
    as_dim,
    check_spatial,
    define,
    guarded,
    optional,
    output_sizes,
    pad_spatial,
    reduction_axes,
    required,
    window_of,
)
from polycomp.te import Dim, Tensor

POINTS = (0, 1, -1, 2, -2)
"""Points of interpolation, a point before its negative; infinity is always one more."""

Matrix = tuple[tuple[Fraction, ...], ...]
Array = np.ndarray[Any, Any]


def tile_points(tile: int, kernel: int) -> int:
    """t, the points per dimension for output tiles of ``tile`` and kernels of ``kernel`` elements.

    Raises ShapeError when there are more than :data:`POINTS` provides for.
    """
    points = tile + kernel - 1
    if tile < 2 or points > len(POINTS) + 1 or points % 2:
        raise ShapeError(f"Winograd's filtering has no points for tiles of {tile} and kernels of {kernel} elements")
    return points


def _product(roots: Sequence[int]) -> list[Fraction]:
    """The coefficients of the polynomial with these roots, of the constant term first."""
    result = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *result]
        result = [s - root * c for s, c in zip(shifted, [*result, Fraction(0)], strict=True)]
    return result


def input_matrix(points: int) -> Matrix:
    """B', t by t: row i holds the coefficients of the polynomial that vanishes at all points but the i-th."""
    finite = POINTS[: points - 1]
    rows = [_product([p for p in finite if p != point]) for point in finite]
    padded = [(*row, *[Fraction(0)] * (points - len(row))) for row in rows]
    return (*padded, tuple(_product(finite)))


def kernel_matrix(tile: int, kernel: int) -> Matrix:
    """G, t by r: a kernel's polynomial at each point, divided by what B' leaves there."""
    finite = POINTS[: tile_points(tile, kernel) - 1]
    rows = []
    for point in finite:
        scale = math.prod((Fraction(point - p) for p in finite if p != point), start=Fraction(1))
        rows.append(tuple(Fraction(point) ** k / scale for k in range(kernel)))
    return (*rows, tuple(Fraction(int(k == kernel - 1)) for k in range(kernel)))


def output_matrix(tile: int, kernel: int) -> Matrix:
    """A', m by t: powers of the points; infinity adds to the last row alone."""
    finite = POINTS[: tile_points(tile, kernel) - 1]
    rows = [(*(Fraction(p) ** k for p in finite), Fraction(int(k == tile - 1))) for k in range(tile)]
    return tuple(rows)


def _sum(values: Sequence[tuple[Fraction, Expr]]) -> Expr:
    """The sum of ``coefficient * value`` without needless operations; the first coefficient is positive."""
    total: Expr | None = None
    for coefficient, value in values:
        size = abs(coefficient)
        term = value if size == 1 else value * const(float(size), value.dtype)
        total = term if total is None else total + term if coefficient > 0 else total - term
    assert total is not None
    return total


def _scaled_sum(values: Sequence[tuple[Fraction, Expr]]) -> tuple[Fraction, Expr] | None:
    """The sum as a factor times a sum whose first coefficient is 1, so that multiples share it."""
    kept = [(c, v) for c, v in values if c]
    if not kept:
        return None
    factor = kept[0][0]
    return factor, _sum([(c / factor, v) for c, v in kept])


def _input_row(row: Sequence[Fraction], values: Sequence[Expr]) -> Expr:
    """A row of B' times ``values``: rows for a and -a differ in the sign of what the odd elements add."""
    parts = [_scaled_sum(list(zip(row, values, strict=True))[first::2][::-1]) for first in (0, 1)]
    return _sum(sorted((p for p in parts if p is not None), key=lambda p: p[0] <= 0))


def _output_row(row: Sequence[Fraction], values: Sequence[Expr]) -> Expr:
    """A row of A' times ``values``: the elements for a and -a are added or subtracted first."""
    terms = [(row[0], values[0]), (row[-1], values[-1])]
    for a in range(1, len(row) - 1, 2):
        pair = values[a] + values[a + 1] if row[a + 1] == row[a] else values[a] - values[a + 1]
        terms.insert(-1, (row[a], pair))
    return _sum([(c, v) for c, v in terms if c])


def _chosen(index: Expr, rows: Sequence[Expr]) -> Expr:
    """``rows[index]``; a constant index, in an unrolled loop, leaves that row alone."""
    result = rows[-1]
    for position in reversed(range(len(rows) - 1)):
        result = select(eq(index, position), rows[position], result)
    return result


def _input_rows(index: Expr, values: Sequence[Expr]) -> Expr:
    return _chosen(index, [_input_row(row, values) for row in input_matrix(len(values))])


def _block(call: Call) -> int:
    return int(call.attr("block"))


def _tile(call: Call) -> int:
    return int(call.attr("tile"))


def _blocks(channels: int, block: int) -> int:
    return -(-channels // block)


# Weights


def _infer_weights(call: Call) -> tuple[TensorType, ...]:
    """[K, C, r, r] -> [t, t, ceil(K / block), C / block, block (of C), block (of K)], zero padded."""
    w, block = call.input(0), _block(call)
    outputs, channels, kernel, width = (w.shape[d] for d in range(4)) if w.rank == 4 else (0, 0, 0, 1)
    if kernel != width or not isinstance(outputs, int) or not isinstance(channels, int) or not isinstance(kernel, int):
        raise ShapeError(f"{call.op} {call.node!r} takes square kernels [K, C, r, r] of known size, not {w}")
    if channels % block:
        raise ShapeError(f"{call.op} {call.node!r}: {channels} input channels are no whole blocks of {block}")
    points = tile_points(_tile(call), kernel)
    return (TensorType(w.dtype, (points, points, _blocks(outputs, block), channels // block, block, block)),)


def _lower_weights(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    w, block = required(inputs, 0), _block(call)
    (out,) = _infer_weights(call)
    kernel = int(w.shape[2])  # type: ignore[arg-type]
    matrix = kernel_matrix(_tile(call), kernel)

    def weighted(index: Expr, values: Sequence[Expr]) -> Expr:
        rows = [_sum_of_products(row, values) for row in matrix]
        return _chosen(index, rows)

    def row_pass(k: Expr, c: Expr, i: Expr, s: Expr) -> Expr:
        return weighted(i, [cast(DType.FLOAT64, w[k, c, r, s]) for r in range(kernel)])

    rows = define(f"{call.node}.rows", (*w.shape[:2], out.shape[0], kernel), ("k", "c", "i", "s"), row_pass, call.node)

    def body(i: Expr, j: Expr, ko: Expr, co: Expr, ci: Expr, ki: Expr) -> Expr:
        k, c = ko * block + ki, co * block + ci
        value = weighted(j, [rows[k, c, i, s] for s in range(kernel)])
        return guarded(cast(w.dtype, value), [k < w.shape[0]] if as_dim(w.shape[0] % block) else [])

    names = ("i", "j", "ko", "co", "ci", "ki")
    return (define(f"{call.node}.transformed", out.shape, names, body, call.node),)


def _sum_of_products(row: Sequence[Fraction], values: Sequence[Expr]) -> Expr:
    total: Expr = const(0.0, DType.FLOAT64)
    for coefficient, value in zip(row, values, strict=True):
        total = total + value * const(float(coefficient), DType.FLOAT64)
    return total


def transform_weights(weights: Array, attributes: Mapping[str, Any]) -> Array:
    """The operator PackWinogradWeights by numpy; computed in float64 and rounded once."""
    outputs, channels, kernel, _ = weights.shape
    block, tile = int(attributes["block"]), int(attributes["tile"])
    matrix = np.array([[float(x) for x in row] for row in kernel_matrix(tile, kernel)])
    points, ko = len(matrix), _blocks(outputs, block)
    padded = np.zeros((ko * block, channels, kernel * kernel))
    padded[:outputs] = weights.reshape(outputs, channels, -1)
    both = (padded.reshape(-1, kernel * kernel) @ np.kron(matrix, matrix).T).astype(weights.dtype)
    parts = both.reshape(ko, block, -1, block, points, points)
    return np.ascontiguousarray(parts.transpose(4, 5, 0, 2, 3, 1))


# Convolution


def _infer_conv(call: Call) -> tuple[TensorType, ...]:
    """x [N, C / block, H, W, block], transformed weights, b packed -> [N, ceil(K / block), H', W', block]."""
    x, u, block = call.input(0), call.input(1), _block(call)
    kernel = tuple(call.attr("kernel_shape"))
    window = window_of(call, kernel)
    check_spatial(call, 2, x.shape, 1)
    points = tile_points(_tile(call), kernel[0])
    outputs, channels = _blocks(call.attr("out_channels"), block), x.shape[1]
    if kernel != kernel[:1] * 2 or set(window.strides + window.dilations) != {1}:
        raise ShapeError(f"{call.op} {call.node!r}: only square kernels with steps of 1 can be filtered")
    expected = (points, points, outputs, channels, block, block)
    if u.shape != expected or x.shape[-1] != block:
        raise ShapeError(
            f"{call.op} {call.node!r}: data of shape {list(x.shape)} and weights of shape {list(u.shape)} do not fit; "
            f"the weights' shape should be {list(expected)}"
        )
    sizes = output_sizes(call, x.shape[FIRST_SPATIAL:-1], window)
    return (TensorType(x.dtype, (x.shape[0], outputs, *sizes, block)),)


def _lower_conv(call: Call, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    x, u = required(inputs, 0), required(inputs, 1)
    (out,) = _infer_conv(call)
    tile, points = _tile(call), int(call.input(1).shape[0])  # type: ignore[arg-type]
    high, wide = (int(as_dim((size + tile - 1) // tile)) for size in out.shape[2:4])  # type: ignore[arg-type]
    window = window_of(call, tuple(call.attr("kernel_shape")))
    extents = tuple(n * tile + points - tile for n in (high, wide))
    padded = pad_spatial(call, x, window.begin, extents, 0)
    data = _transformed_data(call, padded, tile, points, (high, wide))
    products = _products(call, data, u)
    total = _inverse(call, products, output_matrix(tile, window.kernel[0]), wide, out)
    return (finish(call, total, optional(inputs, 2), out),)


def _transformed_data(call: Call, x: Tensor, tile: int, points: int, tiles: tuple[int, int]) -> Tensor:
    """B' d B for every tile: [N, t, t, C blocks, tiles, lanes]."""
    batch, blocks, *_, lanes = x.shape
    count = tiles[0] * tiles[1]

    def columns(n: Expr, co: Expr, p: Expr, i: Expr, s: Expr, ci: Expr) -> Expr:
        top, left = p // tiles[1] * tile, p % tiles[1] * tile
        return _input_rows(i, [x[n, co, top + r, left + s, ci] for r in range(points)])

    shape: tuple[Dim, ...] = (batch, blocks, count, points, points, lanes)
    half = define(f"{call.node}.columns", shape, ("n", "co", "p", "i", "s", "ci"), columns, call.node)

    def rows(n: Expr, i: Expr, j: Expr, co: Expr, p: Expr, ci: Expr) -> Expr:
        return _input_rows(j, [half[n, co, p, i, s, ci] for s in range(points)])

    shape = (batch, points, points, blocks, count, lanes)
    return define(f"{call.node}.tiles", shape, ("n", "i", "j", "co", "p", "ci"), rows, call.node)


def _products(call: Call, data: Tensor, u: Tensor) -> Tensor:
    """The matrix product of each point: [N, t, t, K blocks, tiles, lanes]."""
    co, ci = reduction_axes((data.shape[3], data.shape[5]), ("co", "ci"))

    def body(n: Expr, i: Expr, j: Expr, ko: Expr, p: Expr, ki: Expr) -> Expr:
        return te.sum(data[n, i, j, co, p, ci] * u[i, j, ko, co, ci, ki], (co, ci))

    shape = (*data.shape[:3], u.shape[2], data.shape[4], u.shape[5])
    return define(f"{call.node}.products", shape, ("n", "i", "j", "ko", "p", "ki"), body, call.node)


def _inverse(call: Call, products: Tensor, matrix: Matrix, wide: int, out: TensorType) -> Tensor:
    """A' z A for every tile, put together: [N, K blocks, H', W', lanes]."""
    tile, points = len(matrix), len(matrix[0])
    batch, blocks, *_, lanes = out.shape

    def chosen(index: Expr, values: Sequence[Expr]) -> Expr:
        return _chosen(index, [_output_row(row, values) for row in matrix])

    def columns(n: Expr, ko: Expr, p: Expr, a: Expr, j: Expr, ki: Expr) -> Expr:
        return chosen(a, [products[n, i, j, ko, p, ki] for i in range(points)])

    shape = (batch, blocks, products.shape[4], tile, points, lanes)
    half = define(f"{call.node}.inverse", shape, ("n", "ko", "p", "a", "j", "ki"), columns, call.node)

    def body(n: Expr, ko: Expr, h: Expr, w: Expr, ki: Expr) -> Expr:
        place = (n, ko, h // tile * wide + w // tile, h % tile)
        return chosen(w % tile, [half[(*place, j, ki)] for j in range(points)])

    return define(f"{call.node}.sum", out.shape, layout_names(2, 1), body, call.node)


_Rule = tuple[OpKind, Callable[..., Any], Callable[..., Any]]
_RULES: Mapping[str, _Rule] = MappingProxyType(
    {
        "PackWinogradWeights": (OpKind.INJECTIVE, _infer_weights, _lower_weights),
        "ConvWinograd": (OpKind.CONTRACTION, _infer_conv, _lower_conv),
    }
)

OPERATORS: Mapping[str, Operator] = MappingProxyType({n: Operator(n, *rule) for n, rule in _RULES.items()})
