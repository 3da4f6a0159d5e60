"""Sizes that an operator needs to be equal, so that open ones need not be told apart.

Models often name one size twice, or leave a size open that their weights decide: the channels of an image, the two
batch sizes of two inputs. What must be equal becomes one size while importing, and a run with other sizes is refused.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

from polycomp.expr import Expr, Var
from polycomp.graph import Call, OpKind
from polycomp.te import Dim

Pairs = Iterator[tuple[Dim, Dim]]
Shapes = Sequence[Sequence[Dim]]


class EqualSizes(Exception):  # noqa: N818  (no error: importing starts again, knowing it)
    """The open size called ``name`` must be ``dim``."""

    def __init__(self, name: str, dim: Dim) -> None:
        super().__init__(name, dim)
        self.name, self.dim = name, dim


def unify(call: Call, kind: OpKind) -> None:
    """Raise EqualSizes for an open size that ``call`` needs to be equal to another, different one."""
    shapes = [t.shape for t in call.inputs if t is not None]
    for a, b in _PAIRS.get(call.op, _broadcast_of(kind))(call, shapes):
        first, second = (b, a) if isinstance(b, Var) else (a, b)
        if isinstance(first, Var) and first != second and (isinstance(second, Var) or not isinstance(second, Expr)):
            raise EqualSizes(first.name, second)


def _broadcast_of(kind: OpKind) -> Callable[[Call, Shapes], Pairs]:
    return _broadcast if kind is OpKind.ELEMENTWISE else _none


def _none(call: Call, shapes: Shapes) -> Pairs:
    return iter(())


def _broadcast(call: Call, shapes: Shapes) -> Pairs:
    """numpy's rule, by which only a size that is known to be 1 is stretched."""
    for dims in itertools.zip_longest(*(reversed(s) for s in shapes), fillvalue=1):
        yield from itertools.pairwise(d for d in dims if d != 1)


def _concat(call: Call, shapes: Shapes) -> Pairs:
    for first, other in itertools.pairwise(shapes):
        axis = call.attr("axis")
        yield from (p for d, p in enumerate(zip(first, other, strict=False)) if d != axis % max(len(first), 1))


def _matmul(call: Call, shapes: Shapes) -> Pairs:
    a, b = shapes
    if a and b:
        yield a[-1], b[-2] if len(b) > 1 else b[0]
        yield from _broadcast(call, (a[:-2], b[:-2]))


def _gemm(call: Call, shapes: Shapes) -> Pairs:
    a, b = shapes[:2]
    if len(a) == len(b) == 2:
        yield a[0 if call.attr("transA") else 1], b[1 if call.attr("transB") else 0]
        columns = b[0 if call.attr("transB") else 1]
        yield from ((c[-1], columns) for c in shapes[2:] if c and c[-1] != 1)


def _conv(call: Call, shapes: Shapes) -> Pairs:
    x, w = shapes[:2]
    if len(x) > 1 and len(w) > 1:
        yield x[1], w[1] * int(call.attr("group", 1))


def _conv_transpose(call: Call, shapes: Shapes) -> Pairs:
    x, w = shapes[:2]
    if len(x) > 1 and w:
        yield x[1], w[0]


def _channels(call: Call, shapes: Shapes) -> Pairs:
    x = shapes[0]
    yield from ((x[1], s[0]) for s in shapes[1:] if len(x) > 1 and len(s) == 1)


def _split(call: Call, shapes: Shapes) -> Pairs:
    axis, sizes = call.attr("axis"), call.attr("sizes")
    if shapes[0]:
        yield shapes[0][axis], sum(sizes)


_PAIRS: Mapping[str, Callable[[Call, Shapes], Pairs]] = MappingProxyType(
    {
        "BatchNormalization": _channels,
        "Concat": _concat,
        "Conv": _conv,
        "ConvTranspose": _conv_transpose,
        "Gemm": _gemm,
        "GroupNormalization": _channels,
        "InstanceNormalization": _channels,
        "LayerNormalization": _broadcast,
        "MatMul": _matmul,
        "RMSNormalization": _broadcast,
        "Split": _split,
    }
)
