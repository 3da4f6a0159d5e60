"""Loops marked as dot products: short sums of products of narrow numbers, four bytes (or two halves) for each sum.

The operands' elements that one sum needs are neighbours in memory, so that each operand is loaded as words of the sum's
size: a vector of them, or one word for all lanes. ``dot_words`` has what machines offer for words.
"""

from __future__ import annotations

import dataclasses

from polycomp.codegen.llvm import dot_words, emit_memory, linear
from polycomp.codegen.llvm.builder import Value
from polycomp.codegen.llvm.emit_expr import locate
from polycomp.codegen.llvm.emit_memory import Address
from polycomp.codegen.llvm.frame import Frame
from polycomp.codegen.llvm.linear import Linear
from polycomp.dtypes import DType
from polycomp.expr import Binary, Cast, Expr, Load
from polycomp.loops import For, Store


@dataclasses.dataclass(frozen=True)
class _Product:
    """``store.buffer[..] += first * second``, both converted to the sum's type before."""

    store: Store
    first: Load
    second: Load


def dot(frame: Frame, loop: For, start: Linear, count: int) -> bool:
    """Emit ``loop``, of ``count`` iterations, as dot products of words; False where it is none, or no vector code."""
    product = _product(loop)
    if product is None or not frame.lanes or not start.is_constant:
        return False
    narrow, total = product.first.dtype, product.store.buffer.dtype
    if count * narrow.bits != total.bits or product.second.dtype.bits != narrow.bits:
        return False
    places = [_neighbours(frame, loop, load, start) for load in (product.first, product.second)]
    addresses = [a for a in places if a is not None and a.stride in (0, count) and (frame.mask is None or a.safe)]
    result = _at(frame, loop, product.store.indices, product.store.buffer, start)
    if len(addresses) != 2 or result.stride != 1:
        return False
    words = [_words(frame, address, total) for address in addresses]
    old = emit_memory.load(frame, result)
    operands = (dot_words.Words(w, a.buffer.dtype) for w, a in zip(words, addresses, strict=True))
    emit_memory.store(frame, result, dot_words.accumulate(frame.b, old, *operands), "")
    return True


def _product(loop: For) -> _Product | None:
    store = loop.body
    if not isinstance(store, Store) or store.reduce != "sum" or store.buffer.dtype is not DType.INT32:
        return None
    value = store.value
    if not isinstance(value, Binary) or value.op != "mul":
        return None
    first, second = _widened(value.left), _widened(value.right)
    return None if first is None or second is None else _Product(store, first, second)


def _widened(e: Expr) -> Load | None:
    """The load of a byte that is converted."""
    if isinstance(e, Cast) and isinstance(e.operand, Load) and e.operand.dtype in (DType.INT8, DType.UINT8):
        return e.operand
    return None


def _at(frame: Frame, loop: For, indices: tuple[Expr, ...], buffer: object, step: Linear) -> Address:
    """The address in an iteration of the loop."""
    with frame.bound(loop.var, step):
        return locate(frame, buffer, indices)  # type: ignore[arg-type]


def _neighbours(frame: Frame, loop: For, load: Load, start: Linear) -> Address | None:
    """The first address of ``load``, when each iteration reads the element after that of the one before."""
    first = _at(frame, loop, load.indices, load.source, start)
    second = _at(frame, loop, load.indices, load.source, linear.add(start, linear.constant(1)))
    step = linear.add(second.uniform, first.uniform, -1)
    same_lanes = not linear.add(second.varying, first.varying, -1).terms
    return first if step.is_constant and step.constant == 1 and same_lanes else None


def _words(frame: Frame, address: Address, total: DType) -> Value:
    """The elements as words as wide as ``total``: one for each lane, or one for all."""
    lanes = frame.lanes if address.stride else 0
    return frame.b.splat(emit_memory.load_words(frame, address, total, lanes), frame.lanes)
