"""Contractions as plain products of matrices, which is how thread blocks compute them.

A convolution is the product of its weights and of a matrix with a column per pixel and a row per tap ("im2col":
Chellapilla et al., "High Performance Convolutional Neural Networks for Document Processing", 2006). The matrix is never
in memory: it is a tensor of its own here, of which a block makes the tile that it needs in shared memory (cuDNN's
implicit GEMM: Chetlur et al., 2014). All rows of a product are one axis, all columns another, all steps of the sum a
third.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence

from polycomp.dtypes import DType
from polycomp.expr import (
    Binary,
    Cast,
    Expr,
    Interval,
    Load,
    Reduce,
    Select,
    Var,
    compare,
    const,
    free_vars,
    is_uniform,
    linear_in,
    loads,
    select,
    simplify,
    substitute,
    terms,
    transform,
    wrap,
)
from polycomp.schedules.library.analysis import as_contraction, constant, depends_on
from polycomp.schedules.rewrite import as_dim
from polycomp.te import Axis, Dim, Tensor, topological_order

LARGEST_TILE = 256
"""Rows and columns of operands are defined so far beyond their end that no tile reaches further."""

STEP_BYTES = 32
"""The sum's length is a multiple of so many bytes of an operand: what an instruction of tensor cores takes."""

_FEWEST = 4  # rows, or columns, of what is worth tiles
_SMALL_TILE = 32  # rows and columns of the tiles that most multiprocessors have one of
_LONG_PART = 128  # steps of a part of a sum, at least
_MOST_PARTS = 16
_UNKNOWN_STEPS = 2  # times so many steps are what a sum's length is a multiple of, if it is only known at run time


@dataclasses.dataclass(frozen=True)
class Product:
    """``tensor[batch.., m, n]`` sums ``left[batch.., k, m] * right[batch.., k, n]``.

    An operand has those of the batch axes that it depends on, and its last two axes the other way round where its
    steps lie side by side in memory, or are bytes. ``result`` is the tensor that was a contraction, and now reads
    ``tensor``; ``rows`` and ``columns`` are its axes that ``m`` and ``n`` go through.
    """

    tensor: Tensor
    left: Tensor
    right: Tensor
    result: Tensor
    batch: tuple[int, ...]
    rows: tuple[int, ...]
    columns: tuple[int, ...]

    @property
    def operands(self) -> tuple[Tensor, ...]:
        return (self.left, self.right)

    @property
    def depth(self) -> Dim:
        """Steps of the sum."""
        return as_dim(simplify(wrap(self.tensor.reduce_axes[0].extent)))


@dataclasses.dataclass(frozen=True)
class _Parts:
    """The roles of a contraction's axes, by position; its operands as they stand in its definition."""

    batch: tuple[int, ...]
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    left: Expr
    right: Expr


def as_products(outputs: Sequence[Tensor], cores: int = 1) -> tuple[tuple[Tensor, ...], tuple[Product, ...]]:
    """Equal outputs whose contractions, those that are worth tiles, are products.

    A long sum of which there are too few tiles for ``cores`` multiprocessors is split: its parts are products side by
    side, summed afterwards (split-K).
    """
    made: dict[Tensor, Tensor] = {}
    products: list[Product] = []

    def relocate(e: Expr) -> Expr | None:
        return Load(made[e.source], e.indices) if isinstance(e, Load) and made[e.source] is not e.source else None

    for tensor in topological_order(outputs):
        body = None if tensor.body is None else transform(tensor.body, relocate)
        new = tensor if body is tensor.body else dataclasses.replace(tensor, body=body)
        parts = _parts(new)
        if parts is not None:
            product, new = _product(new, parts, _splits(new, parts, cores))
            products.append(product)
        made[tensor] = new
    return tuple(made[t] for t in outputs), tuple(products)


def _splits(tensor: Tensor, parts: _Parts, cores: int) -> int:
    """How many parts a sum is made of."""
    tiles = [-(-_count(tensor, role) // _SMALL_TILE) for role in (parts.rows, parts.columns)]
    blocks = math.prod(tiles) * max(1, _count(tensor, parts.batch))
    depth = constant(extent_of([a.extent for a in tensor.reduce_axes]))
    return 1 if depth is None else max(1, min(cores // blocks, depth // _LONG_PART, _MOST_PARTS))


def _parts(tensor: Tensor) -> _Parts | None:
    contraction = as_contraction(tensor)
    if contraction is None or contraction.tensor.is_recurrence:
        return None
    assert isinstance(tensor.body, Reduce) and isinstance(tensor.body.operand, Binary)
    operands = (tensor.body.operand.left, tensor.body.operand.right)
    if any(constant(a.extent) is None for a in tensor.reduce_axes[1:]):
        return None
    right, left = operands if _source(operands[0]) == contraction.vector else operands[::-1]
    rows, columns = _own(tensor, left, right), _own(tensor, right, left)
    rows, columns = _one_axis(tensor, rows), _one_axis(tensor, columns)
    batch = tuple(d for d in range(tensor.rank) if d not in (*rows, *columns))
    if min(_count(tensor, rows), _count(tensor, columns)) < _FEWEST:
        return None
    return _Parts(batch, rows, columns, left, right)


def _source(e: Expr) -> Load | None:
    while not isinstance(e, Load):
        if not e.operands:
            return None
        e = e.operands[0] if isinstance(e, Cast) else e.operands[1] if len(e.operands) == 3 else e.operands[0]
    return e


def _own(tensor: Tensor, operand: Expr, other: Expr) -> tuple[int, ...]:
    """The axes that ``operand`` alone depends on."""
    return tuple(
        d for d, a in enumerate(tensor.axes)
        if depends_on(operand, a) and not depends_on(other, a) and constant(a.extent) != 1
    )  # fmt: skip


def _one_axis(tensor: Tensor, axes: tuple[int, ...]) -> tuple[int, ...]:
    """The last of ``axes`` that can be one: of all but the first of them the extent is known."""
    first = len(axes) - 1
    while first > 0 and constant(tensor.axes[axes[first]].extent) is not None:
        first -= 1
    return axes[max(first, 0) :]


def _count(tensor: Tensor, axes: tuple[int, ...]) -> int:
    """How many elements ``axes`` have together; many when that is not known."""
    total = 1
    for d in axes:
        total *= constant(tensor.axes[d].extent) or LARGEST_TILE
    return total if axes else 0


def _product(tensor: Tensor, parts: _Parts, splits: int) -> tuple[Product, Tensor]:
    """The product, and the tensor that reads it in place of the contraction."""
    batch = [tensor.axes[d] for d in parts.batch]
    step = STEP_BYTES // min(_unconverted(e).dtype.bytes for e in (parts.left, parts.right))
    depth = extent_of([a.extent for a in tensor.reduce_axes])
    part = Axis("part", extent=splits)
    length = _rounded(-(-depth // splits), step) if isinstance(depth, int) else _rounded(depth, _UNKNOWN_STEPS * step)
    steps = _Steps(depth, length, part if splits > 1 else None)
    left = _operand(tensor, parts.left, parts.rows, batch, steps, "left")
    right = _operand(tensor, parts.right, parts.columns, batch, steps, "right")
    outer = [part, *batch] if splits > 1 else batch
    own = dict(zip(outer, (Axis(a.name, extent=a.extent) for a in outer), strict=True))
    k = Axis(f"{tensor.name}.k", extent=left.steps.extent)
    m, n = (Axis(f"{tensor.name}.{x}", extent=o.positions.extent) for x, o in (("m", left), ("n", right)))
    factors = (left.read(parts.left, own, k, m), right.read(parts.right, own, k, n))
    body = Reduce("sum", Binary("mul", *factors), (k,))
    shape = (*(a.extent for a in outer), m.extent, n.extent)
    product = Tensor(f"{tensor.name}.product", shape, tensor.dtype, (*own.values(), m, n), body, tensor.source)
    numbers = (_number(tensor, parts.rows), _number(tensor, parts.columns))
    if splits > 1:
        return _in_parts(tensor, parts, product, left.tensor, right.tensor, part, numbers)
    result = dataclasses.replace(tensor, body=Load(product, (*batch, *numbers)))
    return Product(product, left.tensor, right.tensor, result, parts.batch, parts.rows, parts.columns), result


def _in_parts(
    tensor: Tensor, parts: _Parts, product: Tensor, left: Tensor, right: Tensor, part: Axis, numbers: tuple[Expr, Expr]
) -> tuple[Product, Tensor]:
    """A product whose ``part`` is its first axis: its results are stored, each element once, and summed by whoever
    reads the contraction."""
    extents = [extent_of([tensor.axes[d].extent for d in role]) for role in (parts.rows, parts.columns)]
    axes = [Axis(a.name, extent=a.extent) for a in product.axes[:-2]]
    axes += [Axis(name, extent=n) for name, n in zip("mn", extents, strict=True)]
    shape = tuple(a.extent for a in axes)
    stored = Tensor(f"{tensor.name}.parts", shape, tensor.dtype, tuple(axes), Load(product, tuple(axes)), tensor.source)
    batch = tuple(tensor.axes[d] for d in parts.batch)
    summed = dataclasses.replace(tensor, body=Reduce("sum", Load(stored, (part, *batch, *numbers)), (part,)))
    rank = len(axes)
    return Product(product, left, right, stored, tuple(range(rank - 2)), (rank - 2,), (rank - 1,)), summed


@dataclasses.dataclass(frozen=True)
class _Steps:
    """The steps of a sum of ``depth``, ``length`` of them (a few beyond its end) in each ``part``."""

    depth: Dim
    length: Dim
    part: Axis | None


@dataclasses.dataclass(frozen=True)
class _Operand:
    """``tensor`` over batch axes, of which it has those that the contraction's axes ``batch`` became, ``steps`` and
    ``positions``, these two in either order."""

    tensor: Tensor
    batch: tuple[Axis, ...]
    steps: Axis
    positions: Axis

    def read(self, operand: Expr, batch: Mapping[Axis, Axis], step: Axis, position: Axis) -> Expr:
        """The element at ``step`` and ``position``, converted as ``operand`` is."""
        at = {self.steps: step, self.positions: position}
        element = Load(self.tensor, (*(batch[a] for a in self.batch), *(at[a] for a in self.tensor.axes[-2:])))
        return _converted(operand, element)


def _operand(
    tensor: Tensor, operand: Expr, axes: Sequence[int], batch: Sequence[Axis], steps: _Steps, name: str
) -> _Operand:
    """The operand, zero where a step or a position is beyond its end."""
    count = extent_of([tensor.axes[d].extent for d in axes])
    k = Axis(f"{name}.k", extent=steps.length)
    p = Axis(f"{name}.p", extent=_with_tiles(count))
    used = [a for a in batch if depends_on(operand, a)]
    outer = used if steps.part is None else [steps.part, *used]
    own = [Axis(a.name, extent=a.extent) for a in outer]
    number: Expr = k if steps.part is None else own[0] * steps.length + k
    values: dict[Var, Expr] = dict(zip(outer, own, strict=True))
    values |= digits([tensor.axes[d] for d in axes], p) | digits(tensor.reduce_axes, number)
    element = substitute(_unconverted(operand), values)
    steps_last = _are_bytes(tensor) or _are_neighbours(element, k, p)
    last = (p, k) if steps_last else (k, p)
    covered = wrap(steps.length) if steps.part is None else wrap(steps.part.extent) * steps.length
    for position, extent, end in ((p, wrap(p.extent), count), (number, covered, steps.depth)):
        if _differs(extent, end):
            element = select(compare("lt", position, end), element, const(0, element.dtype))
    made_axes = (*own, *last)
    shape = tuple(a.extent for a in made_axes)
    made = Tensor(f"{tensor.name}.{name}", shape, element.dtype, made_axes, element, tensor.source)
    return _Operand(made, tuple(outer), k, p)


def _are_bytes(tensor: Tensor) -> bool:
    """Whether a contraction sums products of bytes, of which tensor cores take only steps that lie side by side."""
    assert isinstance(tensor.body, Reduce)
    kinds = {_unconverted(e).dtype for e in tensor.body.operand.operands}
    return kinds <= {DType.INT8, DType.UINT8} and tensor.dtype is DType.INT32


def _are_neighbours(element: Expr, axis: Axis, other: Axis) -> bool:
    """Whether what is read along ``axis`` lies side by side in memory, and along ``other`` it does not."""
    found = [x for x in loads(element) if x.indices]
    return bool(found) and _stride(found[0], axis) == 1 != _stride(found[0], other)


def _stride(load: Load, axis: Axis) -> int | None:
    """Elements between what is read at 0 and at 1 of an axis, all others being 0; None when that is not known."""
    values: dict[Var, Expr] = {v: const(0) for index in load.indices for v in free_vars(index)}
    first, second = (_flat(load, {**values, axis: const(i)}) for i in range(2))
    return None if first is None or second is None else second - first


def vector_width(operand: Tensor, most: int) -> int:
    """How many neighbours of the operand's last axis, at most ``most``, lie side by side in memory, beginning at a
    multiple of so many elements: a thread loads them at once."""
    widths = (most >> i for i in range(most.bit_length()))
    return next((w for w in widths if w > 1 and _is_vector(operand, w)), 1)


def _is_vector(operand: Tensor, width: int) -> bool:
    """Whether ``width`` neighbours along the last axis, from a multiple of it on, lie at such a place in memory, and
    are wanted under conditions that are the same for all of them."""
    *outer, last = operand.axes
    extent = constant(last.extent)
    if extent is None or extent % width:
        return False
    vector, lane = Axis("vector", extent=extent // width), Axis("lane", extent=width)
    ranges: dict[Var, Interval] = {a: (0, n if n is None else n - 1) for a in outer for n in (constant(a.extent),)}
    ranges |= {vector: (0, extent // width - 1), lane: (0, width - 1)}

    def lanes(e: Expr) -> Expr:
        return simplify(substitute(e, {last: vector * width + lane}), ranges)

    assert operand.body is not None
    element = operand.body
    while isinstance(element, Select):
        if not is_uniform(lanes(element.condition), lane, width, ranges):
            return False
        element = element.on_true
    if not isinstance(element, Load):
        return False
    flat: Expr = const(0)
    for index, size in zip(element.indices, element.source.shape, strict=True):
        flat = flat * size + index
    found = linear_in(lanes(flat), lane)
    return found is not None and found[0] == 1 and all(step % width == 0 for step, _ in terms(found[1]))


def turned(operand: Tensor) -> Tensor:
    """``operand`` with its last two axes exchanged."""
    *outer, row, column = operand.axes
    axes = (*outer, column, row)
    return dataclasses.replace(operand, axes=axes, shape=tuple(a.extent for a in axes))


def with_inlined(operand: Tensor, stages: Sequence[Tensor]) -> Tensor:
    """``operand`` as it is made when ``stages``, readers first, are made where they are read."""
    assert operand.body is not None
    body = operand.body
    for stage in stages:
        body = transform(body, functools.partial(_definition, stage))
    return dataclasses.replace(operand, body=body)


def _definition(stage: Tensor, e: Expr) -> Expr | None:
    """What is read of ``stage``; None for what is no load of it."""
    if not isinstance(e, Load) or e.source is not stage:
        return None
    assert stage.body is not None
    return substitute(stage.body, dict(zip(stage.axes, e.indices, strict=True)))


def _flat(load: Load, values: Mapping[Var, Expr]) -> int | None:
    total: Expr = const(0)
    for index, extent in zip(load.indices, load.source.shape, strict=True):
        total = total * extent + substitute(index, values)
    return constant(total)


def extent_of(dims: Sequence[Dim]) -> Dim:
    total: Expr = wrap(1)
    for dim in dims:
        total = total * dim
    return as_dim(simplify(total))


def _with_tiles(count: Dim) -> Dim:
    """So many positions that no tile reaches beyond them."""
    return _rounded(count, LARGEST_TILE) if isinstance(count, int) else as_dim(simplify(count + LARGEST_TILE))


def _rounded(dim: Dim, multiple: int) -> Dim:
    return as_dim(simplify((wrap(dim) + (multiple - 1)) // multiple * multiple))


def _number(tensor: Tensor, axes: Sequence[int]) -> Expr:
    """The position along all of ``axes`` as one."""
    number: Expr = const(0)
    for d in axes:
        number = number * tensor.axes[d].extent + tensor.axes[d]
    return number


def digits(axes: Sequence[Axis], number: Expr) -> dict[Var, Expr]:
    """The positions along each of ``axes`` at ``number`` along all of them."""
    values: dict[Var, Expr] = {}
    for d, axis in reversed(list(enumerate(axes))):
        values[axis] = number % axis.extent if d else number
        number = number // axis.extent
    return values


def _differs(a: Expr, b: Dim) -> bool:
    return simplify(a) != simplify(wrap(b))


def _unconverted(e: Expr) -> Expr:
    """The operand as it is in memory: conversions are made of what has been loaded from shared memory."""
    while isinstance(e, Cast):
        e = e.operand
    return e


def _converted(operand: Expr, element: Expr) -> Expr:
    return Cast(operand.dtype, _converted(operand.operand, element)) if isinstance(operand, Cast) else element
