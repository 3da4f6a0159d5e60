"""Loads and stores: the address as a linear form decides between vector, strided, gathered and per-lane access."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence

from polycomp.codegen.llvm import emit_index, linear
from polycomp.codegen.llvm import emit_ops as ops
from polycomp.codegen.llvm.builder import Value, constant, memory_type, suffix, type_name
from polycomp.codegen.llvm.frame import Frame
from polycomp.codegen.llvm.linear import Linear
from polycomp.dtypes import DType
from polycomp.loops import Buffer, Scope
from polycomp.te import reduce_identity

_SHUFFLED_STRIDES = range(2, 5)


@dataclasses.dataclass(frozen=True)
class Address:
    """Element ``uniform + varying`` of ``buffer``, at ``indices`` of dimensions of ``sizes``."""

    buffer: Buffer
    indices: Sequence[Linear]
    sizes: Sequence[Linear]
    uniform: Linear
    varying: Linear

    @functools.cached_property
    def safe(self) -> bool:
        """Whether it surely lies inside of the buffer in every lane, masked or not."""
        return all(_inside(index, size) for index, size in zip(self.indices, self.sizes, strict=True))

    @functools.cached_property
    def granularity(self) -> int:
        """The alignment in bytes of all elements at a multiple of it from the constant part of the address."""
        return linear.granularity(self.uniform, self.buffer.dtype.bytes, self.buffer.alignment)

    @functools.cached_property
    def stride(self) -> int | None:
        """The distance of neighbouring lanes in elements: 0 when all are at one place, None when it is not constant."""
        return emit_index.lane_stride(self.varying) if self.varying.terms else 0


def locate(buffer: Buffer, indices: Sequence[Linear], sizes: Sequence[Linear]) -> Address:
    """The address of ``buffer[indices]``; ``sizes`` are its dimensions', outermost first."""
    offset = linear.constant(0)
    if all(size.is_constant for size in sizes):
        offset = linear.row_major(indices, [size.constant for size in sizes])
    else:
        for index, size in zip(indices, sizes, strict=True):
            offset = linear.add(linear.multiply(offset, size), index)
    return Address(buffer, indices, sizes, *linear.split_lanes(offset))


def _inside(index: Linear, size: Linear) -> bool:
    low, high = linear.bounds(index)
    if low is None or low < 0:
        return False
    if size.is_constant:
        return high is not None and high < size.constant
    room, _ = linear.bounds(linear.add(linear.add(size, index, -1), linear.constant(-1)))
    return room is not None and room >= 0


def pointer(frame: Frame, address: Address, extra: int = 0) -> str:
    """A pointer to the element at the uniform part of the address, plus ``extra`` elements.

    It is stepped to term by term, the outermost loop's first, so that all but the last are invariant in inner loops;
    the constant comes last, so that neighbours share all before it. Nothing is inbounds: only the end surely is.
    """
    size = address.buffer.dtype.bytes
    where = frame.pointers[address.buffer]
    for monomial, coefficient in linear.sorted_terms(address.uniform):
        where = _step(frame, where, monomial, coefficient * size)
    offset = (address.uniform.constant + extra) * size
    return frame.b.pure(f"getelementptr i8, ptr {where}, i64 {offset}") if offset else where


def _step(frame: Frame, where: str, monomial: linear.Monomial, factor: int) -> str:
    """``where + factor * product(monomial)`` in bytes."""
    b = frame.b
    if len(monomial) == 1 and factor in (1, 2, 4, 8):
        return b.pure(f"getelementptr i{8 * factor}, ptr {where}, i64 {monomial[0].ref}")
    counter = frame.counters.get(monomial[-1])
    if counter is not None and (len(monomial) == 1 or monomial[-2].order < monomial[-1].order):
        distance = counter.multiple(b, monomial[:-1], factor)
    else:
        distance = emit_index.to_value(b, Linear({monomial: factor})).ref
    return b.pure(f"getelementptr i8, ptr {where}, i64 {distance}")


def _pointers(frame: Frame, address: Address) -> str:
    """One pointer per lane."""
    offsets, bits = emit_index.gather_offsets(frame.b, address.varying)
    lanes = frame.lanes
    if bits == 32:
        offsets = frame.b.pure(f"sext <{lanes} x i32> {offsets} to <{lanes} x i64>")
    element = memory_type(address.buffer.dtype)
    base = pointer(frame, address)
    return frame.b.pure(f"getelementptr {element}, ptr {base}, <{lanes} x i64> {offsets}")


def _align(address: Address, extra: int = 0) -> int:
    """The alignment that the first accessed element surely has."""
    offset = (address.uniform.constant + extra) * address.buffer.dtype.bytes
    return math.gcd(address.granularity, offset)


def load(frame: Frame, address: Address) -> Value:
    """The element, or one per lane of the vector loop when they differ."""
    known = frame.loaded.setdefault(address.buffer, {})
    if frame.mask is not None and not address.safe:
        return _masked_load(frame, address, frame.mask)
    stride = address.stride
    if stride == 0:
        return _plain_load(frame, address, 0, 0, known)
    if stride == 1:
        return _plain_load(frame, address, 0, frame.lanes, known)
    if stride == -1:
        return _reversed(frame, _plain_load(frame, address, 1 - frame.lanes, frame.lanes, known))
    if stride is not None and stride in _SHUFFLED_STRIDES and frame.lanes >= stride:
        return _shuffled_load(frame, address, stride, known)
    if stride is not None and not _gathers(frame, address.buffer.dtype):
        return _load_lanes(frame, address, stride, known)
    return _gather(frame, address, constant(True, DType.BOOL, frame.lanes))


def _plain_load(frame: Frame, address: Address, extra: int, lanes: int, known: dict[str, Value]) -> Value:
    return _load_as(frame, address, extra, address.buffer.dtype, lanes, known)


def load_words(frame: Frame, address: Address, dtype: DType, lanes: int) -> Value:
    """The bytes from the address in the first lane on as numbers of type ``dtype``: one, or one per lane."""
    return _load_as(frame, address, 0, dtype, lanes, frame.loaded.setdefault(address.buffer, {}))


def _load_as(frame: Frame, address: Address, extra: int, dtype: DType, lanes: int, known: dict[str, Value]) -> Value:
    where = pointer(frame, address, extra)
    text = f"load {memory_type(dtype, lanes)}, ptr {where}, align {_align(address, extra)}"
    if text not in known:
        known[text] = _from_memory(frame, frame.b.fresh(text), dtype, lanes)
    return known[text]


def _from_memory(frame: Frame, ref: str, dtype: DType, lanes: int) -> Value:
    if dtype is DType.BOOL:
        zero = "zeroinitializer" if lanes else "0"
        ref = frame.b.pure(f"icmp ne {memory_type(dtype, lanes)} {ref}, {zero}")
    return Value(ref, dtype, lanes)


def _to_memory(frame: Frame, value: Value) -> str:
    """``"type ref"`` of a value as it is stored."""
    if value.dtype is not DType.BOOL:
        return str(value)
    kind = memory_type(value.dtype, value.lanes)
    return f"{kind} {frame.b.pure(f'zext {value} to {kind}')}"


def _reversed(frame: Frame, value: Value) -> Value:
    picks = ", ".join(f"i32 {i}" for i in reversed(range(value.lanes)))
    text = f"shufflevector {value}, {value.type} poison, <{value.lanes} x i32> <{picks}>"
    return Value(frame.b.pure(text), value.dtype, value.lanes)


def _shuffled_load(frame: Frame, address: Address, stride: int, known: dict[str, Value]) -> Value:
    """Every ``stride``-th element out of whole vectors; the last one ends at the last lane's element."""
    lanes = frame.lanes
    starts = [i * lanes for i in range(stride - 1)] + [stride * (lanes - 1) + 1 - lanes]
    result = _plain_load(frame, address, starts[0], lanes, known)
    for first in starts[1:]:
        part = _plain_load(frame, address, first, lanes, known)
        picks = ", ".join(f"i32 {_pick(lane, lanes, stride, first, first == starts[1])}" for lane in range(lanes))
        text = f"shufflevector {result}, {part}, <{lanes} x i32> <{picks}>"
        result = Value(frame.b.pure(text), result.dtype, lanes)
    return result


def _pick(lane: int, lanes: int, stride: int, first: int, merging_first: bool) -> int:
    """Where a lane's element is in (what is known so far, the vector that starts at ``first``)."""
    position = stride * lane
    if first <= position < first + lanes:
        return lanes + position - first
    if not merging_first:
        return lane
    return position if position < lanes else 0


def _gathers(frame: Frame, dtype: DType) -> bool:
    """Whether the machine gathers elements of this type better than one by one."""
    return frame.b.module.has("avx512f") and dtype.bytes >= 4


def _load_lanes(frame: Frame, address: Address, stride: int, known: dict[str, Value]) -> Value:
    dtype, lanes = address.buffer.dtype, frame.lanes
    ref = "poison"
    for lane in range(lanes):
        element = _plain_load(frame, address, lane * stride, 0, known)
        ref = frame.b.pure(f"insertelement {type_name(dtype, lanes)} {ref}, {element}, i64 {lane}")
    return Value(ref, dtype, lanes)


def _masked_load(frame: Frame, address: Address, mask: Value) -> Value:
    b, lanes = frame.b, frame.lanes
    mask = b.splat(mask, lanes)
    stride = address.stride
    if stride == 0:
        return _guarded_load(frame, address, mask)
    if stride == 1:
        return _contiguous_masked_load(frame, address, 0, mask)
    if stride == -1:
        return _reversed(frame, _contiguous_masked_load(frame, address, 1 - lanes, _reversed(frame, mask)))
    return _gather(frame, address, mask)


def _guarded_load(frame: Frame, address: Address, mask: Value) -> Value:
    """A load from one place for all lanes, executed when any lane needs it."""
    b, dtype = frame.b, address.buffer.dtype
    needed, done = b.new_label("needed"), b.new_label("done")
    before = b.label
    where, kind = pointer(frame, address), memory_type(dtype)
    b.branch(b.any_lane(mask), needed, done)
    b.start(needed)
    loaded = b.fresh(f"load {kind}, ptr {where}, align {_align(address)}")
    b.jump(done)
    b.start(done)
    zero = "0" if dtype is DType.BOOL else constant(0, dtype).ref
    return _from_memory(frame, b.phi(kind, (loaded, needed), (zero, before)), dtype, 0)


def _contiguous_masked_load(frame: Frame, address: Address, extra: int, mask: Value) -> Value:
    b, dtype, lanes = frame.b, address.buffer.dtype, frame.lanes
    kind = memory_type(dtype, lanes)
    name = f"llvm.masked.load.{_overload(dtype, lanes)}.p0"
    b.module.declare(name, kind, f"ptr, <{lanes} x i1>, {kind}")
    where = f"ptr align {_align(address, extra)} {pointer(frame, address, extra)}"
    return _from_memory(frame, b.fresh(f"call {kind} @{name}({where}, {mask}, {kind} zeroinitializer)"), dtype, lanes)


def _gather(frame: Frame, address: Address, mask: Value) -> Value:
    b, dtype, lanes = frame.b, address.buffer.dtype, frame.lanes
    kind = memory_type(dtype, lanes)
    name = f"llvm.masked.gather.{_overload(dtype, lanes)}.v{lanes}p0"
    b.module.declare(name, kind, f"<{lanes} x ptr>, <{lanes} x i1>, {kind}")
    where = f"<{lanes} x ptr> align {dtype.bytes} {_pointers(frame, address)}"
    return _from_memory(frame, b.fresh(f"call {kind} @{name}({where}, {mask}, {kind} zeroinitializer)"), dtype, lanes)


def _overload(dtype: DType, lanes: int) -> str:
    return f"v{lanes}i8" if dtype is DType.BOOL else suffix(dtype, lanes)


def store(frame: Frame, address: Address, value: Value, reduce: str) -> None:
    """``buffer[address] = value``, or ``op= value`` when ``reduce`` names an operation, under the frame's mask."""
    if reduce:
        _reducing_store(frame, address, value, reduce)
    else:
        _store(frame, address, value)
    frame.loaded.pop(address.buffer, None)


def _store(frame: Frame, address: Address, value: Value) -> None:
    stride = address.stride
    if not frame.lanes or (stride == 0 and not value.lanes and frame.mask is None):
        return _plain_store(frame, address, 0, value)
    value = frame.b.splat(value, frame.lanes)
    if stride == 0:
        return _store_last_lane(frame, address, value)
    if stride in (1, -1):
        return _store_contiguous(frame, address, value, stride == -1)
    if frame.mask is None and stride is not None and not _gathers(frame, address.buffer.dtype):
        return _store_lanes(frame, address, value, stride)
    return _scatter(frame, address, value)


def _plain_store(frame: Frame, address: Address, extra: int, value: Value) -> None:
    where = pointer(frame, address, extra)
    frame.b.void(f"store {_to_memory(frame, value)}, ptr {where}, align {_align(address, extra)}")


def _store_last_lane(frame: Frame, address: Address, value: Value) -> None:
    """All lanes write to one place: the last one that is active wins."""
    if frame.mask is None:
        return _plain_store(frame, address, 0, frame.b.extract(value, frame.lanes - 1))
    return for_each_lane(frame, lambda lane: _plain_store(frame, address, 0, frame.b.extract(value, lane)))


def for_each_lane(frame: Frame, emit: Callable[[int], None]) -> None:
    """Emit code for one active lane after the other."""
    b, mask = frame.b, frame.mask
    for lane in range(frame.lanes):
        if mask is None:
            emit(lane)
            continue
        active, after = b.new_label("lane"), b.new_label("after")
        b.branch(b.extract(b.splat(mask, frame.lanes), lane).ref, active, after)
        b.start(active)
        with frame.region():
            emit(lane)
        b.jump(after)
        b.start(after)


def _store_contiguous(frame: Frame, address: Address, value: Value, backwards: bool) -> None:
    extra = 1 - frame.lanes if backwards else 0
    mask = frame.mask
    if backwards:
        value = _reversed(frame, value)
        mask = None if mask is None else _reversed(frame, frame.b.splat(mask, frame.lanes))
    if mask is None:
        return _plain_store(frame, address, extra, value)
    if address.safe and address.buffer.scope is Scope.REGISTER:  # keeps the array promotable to registers
        known = frame.loaded.setdefault(address.buffer, {})
        old = _plain_load(frame, address, extra, frame.lanes, known)
        return _plain_store(frame, address, extra, ops.select(frame.b, mask, value, old))
    return _masked_store(frame, address, extra, value, frame.b.splat(mask, frame.lanes))


def _masked_store(frame: Frame, address: Address, extra: int, value: Value, mask: Value) -> None:
    dtype, lanes = address.buffer.dtype, frame.lanes
    name = f"llvm.masked.store.{_overload(dtype, lanes)}.p0"
    frame.b.module.declare(name, "void", f"{memory_type(dtype, lanes)}, ptr, <{lanes} x i1>")
    where = f"ptr align {_align(address, extra)} {pointer(frame, address, extra)}"
    frame.b.void(f"call void @{name}({_to_memory(frame, value)}, {where}, {mask})")


def _store_lanes(frame: Frame, address: Address, value: Value, stride: int) -> None:
    for lane in range(frame.lanes):
        _plain_store(frame, address, lane * stride, frame.b.extract(value, lane))


def _scatter(frame: Frame, address: Address, value: Value) -> None:
    b, dtype, lanes = frame.b, address.buffer.dtype, frame.lanes
    mask = constant(True, DType.BOOL, lanes) if frame.mask is None else b.splat(frame.mask, lanes)
    name = f"llvm.masked.scatter.{_overload(dtype, lanes)}.v{lanes}p0"
    b.module.declare(name, "void", f"{memory_type(dtype, lanes)}, <{lanes} x ptr>, <{lanes} x i1>")
    where = f"<{lanes} x ptr> align {dtype.bytes} {_pointers(frame, address)}"
    b.void(f"call void @{name}({_to_memory(frame, value)}, {where}, {mask})")


def _reducing_store(frame: Frame, address: Address, value: Value, reduce: str) -> None:
    stride = address.stride
    if frame.lanes and stride == 0:
        return _reduce_into(frame, address, value, reduce)
    if stride is None:  # lanes may meet at one place
        return _reduce_lane_by_lane(frame, address, value, reduce)
    return _store(frame, address, ops.reduction(frame.b, reduce, load(frame, address), value))


def _reduce_into(frame: Frame, address: Address, value: Value, reduce: str) -> None:
    """A horizontal reduction: all active lanes into one element."""
    b, mask = frame.b, frame.mask
    wide = b.splat(value, frame.lanes)
    if mask is not None:
        identity = constant(reduce_identity(reduce, value.dtype).value, value.dtype, frame.lanes)
        wide = ops.select(b, mask, wide, identity)
    total = ops.reduce_lanes(b, reduce, wide)
    if mask is None or address.safe:
        return _accumulate(frame, address, total, reduce)
    needed, done = b.new_label("needed"), b.new_label("done")
    b.branch(b.any_lane(mask), needed, done)
    b.start(needed)
    with frame.region():
        _accumulate(frame, address, total, reduce)
    b.jump(done)
    b.start(done)
    return None


def _accumulate(frame: Frame, address: Address, total: Value, reduce: str) -> None:
    old = _plain_load(frame, address, 0, 0, frame.loaded.setdefault(address.buffer, {}))
    _plain_store(frame, address, 0, ops.reduction(frame.b, reduce, old, total))


def _reduce_lane_by_lane(frame: Frame, address: Address, value: Value, reduce: str) -> None:
    b, dtype = frame.b, address.buffer.dtype
    pointers, wide, kind = _pointers(frame, address), b.splat(value, frame.lanes), memory_type(address.buffer.dtype)

    def update(lane: int) -> None:
        where = b.pure(f"extractelement <{frame.lanes} x ptr> {pointers}, i64 {lane}")
        old = _from_memory(frame, b.fresh(f"load {kind}, ptr {where}, align {dtype.bytes}"), dtype, 0)
        new = ops.reduction(b, reduce, old, b.extract(wide, lane))
        b.void(f"store {_to_memory(frame, new)}, ptr {where}, align {dtype.bytes}")

    for_each_lane(frame, update)
