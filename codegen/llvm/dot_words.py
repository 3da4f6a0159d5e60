"""Dot products of words: ``sum + a0*b0 + a1*b1 + a2*b2 + a3*b3`` for the four bytes of words of 32 bits.

One function per instruction set; a machine with another instruction gets another row in ``_CHOICES``. Every one is
exact: sums wrap around at 32 bits, as an int32 does, and nothing saturates.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from polycomp.codegen.llvm.builder import FunctionBuilder, ModuleBuilder, Value, type_name
from polycomp.codegen.llvm.num import Num, wrap
from polycomp.dtypes import DType

_BYTES = 4


@dataclasses.dataclass(frozen=True)
class Words:
    """A vector of words of 32 bits, whose four parts are numbers of type ``part``."""

    value: Value
    part: DType


def accumulate(b: FunctionBuilder, total: Value, first: Words, second: Words) -> Value:
    """``total``, a vector of int32, plus the dot product of each lane's words."""
    _, emit, widths = next(choice for choice in _CHOICES if choice[0](b.module, first, second))
    width = _width(b.module, widths, total.lanes)
    if width == 0:
        return _plain(b, total, first, second)
    pieces = []
    for start in range(0, total.lanes, width):
        parts = [_slice(b, v, start, width) for v in (total, first.value, second.value)]
        pieces.append(emit(b, parts[0], Words(parts[1], first.part), Words(parts[2], second.part)))
    return _joined(b, pieces)


def _width(module: ModuleBuilder, widths: Sequence[int], lanes: int) -> int:
    """Lanes of the widest of an instruction's forms that the machine has; 0 when none fits."""
    return max((w for w in widths if w <= min(lanes, module.target.lanes(4))), default=0)


def _slice(b: FunctionBuilder, value: Value, start: int, lanes: int) -> Value:
    if value.lanes == lanes:
        return value
    picks = ", ".join(f"i32 {i}" for i in range(start, start + lanes))
    return Value(b.pure(f"shufflevector {value}, {value.type} poison, <{lanes} x i32> <{picks}>"), value.dtype, lanes)


def _joined(b: FunctionBuilder, pieces: list[Value]) -> Value:
    """Pieces of equal lanes one after the other; their number is a power of two."""
    while len(pieces) > 1:
        pieces = [_pair(b, x, y) for x, y in zip(pieces[::2], pieces[1::2], strict=True)]
    return pieces[0]


def _pair(b: FunctionBuilder, x: Value, y: Value) -> Value:
    lanes = 2 * x.lanes
    picks = ", ".join(f"i32 {i}" for i in range(lanes))
    return Value(b.pure(f"shufflevector {x}, {y}, <{lanes} x i32> <{picks}>"), x.dtype, lanes)


def _bytes_of(b: FunctionBuilder, words: Words) -> str:
    """``"type ref"`` of words as a vector of bytes."""
    kind = type_name(words.part, _BYTES * words.value.lanes)
    return f"{kind} {b.pure(f'bitcast {words.value} to {kind}')}"


# x86: VNNI multiplies unsigned by signed bytes


def _has_vnni(module: ModuleBuilder, first: Words, second: Words) -> bool:
    mixed = first.part.is_signed is not second.part.is_signed
    return module.is_x86 and mixed and (module.has("avx512vnni") or module.has("avxvnni"))


def _vnni(b: FunctionBuilder, total: Value, first: Words, second: Words) -> Value:
    """vpdpbusd, which does not saturate."""
    unsigned, signed = (second, first) if first.part.is_signed else (first, second)
    name = f"llvm.x86.avx512.vpdpbusd.{32 * total.lanes}"
    ref = b.call_intrinsic(name, total.type, str(total), _bytes_of(b, unsigned), _bytes_of(b, signed))
    return Value(ref, DType.INT32, total.lanes)


# x86 without it: pairs of 16-bit products. (vpmaddubsw, which takes bytes, saturates its sums of two.)


def _has_pairs(module: ModuleBuilder, first: Words, second: Words) -> bool:
    return module.is_x86


_PAIR_SUMS = {4: "llvm.x86.sse2.pmadd.wd", 8: "llvm.x86.avx2.pmadd.wd", 16: "llvm.x86.avx512.pmaddw.d.512"}


def _pairs(b: FunctionBuilder, total: Value, first: Words, second: Words) -> Value:
    """vpmaddwd on the even bytes and on the odd ones: their products and sums of two fit 32 bits."""
    result = wrap(b, total)
    for x, y in zip(_halves(b, first), _halves(b, second), strict=True):
        ref = b.call_intrinsic(_PAIR_SUMS[total.lanes], total.type, str(x.value), str(y.value))
        result = result + wrap(b, Value(ref, DType.INT32, total.lanes))
    return result.value


def _halves(b: FunctionBuilder, words: Words) -> tuple[Num, Num]:
    """The even and the odd bytes as vectors of 16-bit integers."""
    lanes = 2 * words.value.lanes
    dtype = DType.INT16 if words.part.is_signed else DType.UINT16
    wide = wrap(b, Value(b.pure(f"bitcast {words.value} to {type_name(dtype, lanes)}"), dtype, lanes))
    return (wide << 8) >> 8, wide >> 8


# AArch64: the dot product instructions multiply bytes of one signedness


def _has_sdot(module: ModuleBuilder, first: Words, second: Words) -> bool:
    return not module.is_x86 and module.has("dotprod") and first.part is second.part


def _sdot(b: FunctionBuilder, total: Value, first: Words, second: Words) -> Value:
    """sdot or udot."""
    name = f"llvm.aarch64.neon.{'s' if first.part.is_signed else 'u'}dot.v{total.lanes}i32.v{4 * total.lanes}i8"
    ref = b.call_intrinsic(name, total.type, str(total), _bytes_of(b, first), _bytes_of(b, second))
    return Value(ref, DType.INT32, total.lanes)


# Any machine


def _plain(b: FunctionBuilder, total: Value, first: Words, second: Words) -> Value:
    result = wrap(b, total)
    for position in range(_BYTES):
        result = result + _byte(b, first, position) * _byte(b, second, position)
    return result.value


def _byte(b: FunctionBuilder, words: Words, position: int) -> Num:
    """A byte of each word as an int32: shifted to the top, and down again with its sign."""
    dtype = DType.INT32 if words.part.is_signed else DType.UINT32
    wide = wrap(b, Value(words.value.ref, dtype, words.value.lanes))
    found = (wide << (24 - 8 * position)) >> 24
    return wrap(b, Value(found.value.ref, DType.INT32, words.value.lanes))


def _always(module: ModuleBuilder, first: Words, second: Words) -> bool:
    return True


_Fits = Callable[[ModuleBuilder, Words, Words], bool]
_Emit = Callable[[FunctionBuilder, Value, Words, Words], Value]
_CHOICES: Sequence[tuple[_Fits, _Emit, Sequence[int]]] = (
    (_has_vnni, _vnni, (4, 8, 16)),
    (_has_pairs, _pairs, (4, 8, 16)),
    (_has_sdot, _sdot, (2, 4)),
    (_always, _plain, ()),
)
"""The best instructions first: when they serve, how they are emitted, and the lanes that they come in."""
