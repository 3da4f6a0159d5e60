"""LLVM IR as text: typed values and a function builder with scoped reuse of equal instructions.

Writing text is several times faster than building llvmlite.ir objects, which end as the same text.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Hashable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from polycomp.codegen.llvm.linear import Atom
from polycomp.dtypes import DType
from polycomp.target import Target

_TYPES = {
    DType.FLOAT16: "half", DType.BFLOAT16: "i16", DType.FLOAT32: "float", DType.FLOAT64: "double", DType.BOOL: "i1",
    DType.INT8: "i8", DType.INT16: "i16", DType.INT32: "i32", DType.INT64: "i64",
    DType.UINT8: "i8", DType.UINT16: "i16", DType.UINT32: "i32", DType.UINT64: "i64",
}  # fmt: skip


class Value(NamedTuple):
    """A typed operand: an SSA name or a constant. ``lanes == 0`` is a scalar."""

    ref: str
    dtype: DType
    lanes: int = 0

    @property
    def type(self) -> str:
        return type_name(self.dtype, self.lanes)

    def __str__(self) -> str:
        return f"{type_name(self.dtype, self.lanes)} {self.ref}"


def type_name(dtype: DType, lanes: int = 0) -> str:
    """The LLVM type of a value in registers (bool is i1, bfloat16 the integer of its bits)."""
    return f"<{lanes} x {_TYPES[dtype]}>" if lanes else _TYPES[dtype]


def memory_type(dtype: DType, lanes: int = 0) -> str:
    """The LLVM type of a value in memory (bool is i8)."""
    scalar = "i8" if dtype is DType.BOOL else _TYPES[dtype]
    return f"<{lanes} x {scalar}>" if lanes else scalar


def suffix(dtype: DType, lanes: int = 0) -> str:
    """How LLVM's overloaded intrinsics spell a type: ``v8f32``, ``i64``."""
    kind = "f" if dtype.is_float and dtype is not DType.BFLOAT16 else "i"
    scalar = "i1" if dtype is DType.BOOL else f"{kind}{dtype.bits}"
    return f"v{lanes}{scalar}" if lanes else scalar


def literal(value: float | bool, dtype: DType) -> str:
    """A scalar constant as LLVM spells it; floats exactly, in hexadecimal."""
    if dtype is DType.BOOL:
        return "true" if value else "false"
    if dtype is DType.FLOAT16:
        return f"0xH{np.float16(value).view(np.uint16):04X}"
    if dtype is DType.BFLOAT16:
        return str(np.asarray(value, dtype.numpy).view(np.int16))
    if dtype.is_float:
        exact = np.float32(value).astype(np.float64) if dtype is DType.FLOAT32 else value
        return f"0x{struct.unpack('<Q', struct.pack('<d', exact))[0]:016X}"
    bits = dtype.bits
    return str((int(value) + (1 << (bits - 1))) % (1 << bits) - (1 << (bits - 1)))


def constant(value: float | bool, dtype: DType, lanes: int = 0) -> Value:
    """A constant, the same in all lanes."""
    text = literal(value, dtype)
    return Value(f"splat ({_TYPES[dtype]} {text})" if lanes else text, dtype, lanes)


def lane_numbers(lanes: int, bits: int) -> str:
    """The constant vector 0, 1, 2, ..."""
    return "<" + ", ".join(f"i{bits} {i}" for i in range(lanes)) + ">"


class ModuleBuilder:
    """What one module needs besides its kernel: declarations, constants, helper functions; each once."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._parts: dict[str, str] = {}

    def has(self, feature: str) -> bool:
        """Whether the machine has an instruction set extension, by LLVM's name."""
        return feature in self.target.features

    @property
    def is_x86(self) -> bool:
        return self.target.arch == "x86_64"

    @property
    def rounds(self) -> bool:
        """Whether the machine rounds floats to integers in one instruction (LLVM would call a library otherwise)."""
        return not self.is_x86 or self.has("sse4.1") or self.has("avx") or self.has("avx512f")

    @property
    def parts(self) -> Mapping[str, str]:
        """The text of each part by its name."""
        return self._parts

    def declare(self, name: str, result: str, parameters: str, attributes: str = "") -> None:
        if name not in self._parts:
            self._parts[name] = f"declare {result} @{name}({parameters}){attributes}"

    def define(self, name: str, text: str) -> None:
        """Add a function or constant under a unique name."""
        self._parts[name] = text

    def __contains__(self, name: str) -> bool:
        return name in self._parts

    def text(self) -> str:
        return "\n".join(self._parts.values()) + "\n"


class FunctionBuilder:
    """The body of one function under construction."""

    def __init__(self, module: ModuleBuilder) -> None:
        self.module = module
        self.label = "entry"
        self.atoms: dict[str, Atom] = {}
        self._allocas: list[str] = []
        self._lines: list[str | list[str]] = []
        self._known: dict[Hashable, Any] = {}
        self._undo: list[list[Hashable]] = [[]]
        self._count = 0

    def order(self) -> int:
        """A number larger than that of everything emitted before."""
        self._count += 1
        return self._count

    def atom(self, ref: str, low: int | None, high: int | None, lanes: int = 0, bits: int = 64) -> Atom:
        """The atom of an SSA value, made on first use."""
        known = self.atoms.get(ref)
        if known is None:
            known = self.atoms[ref] = Atom(ref, low, high, self.order(), lanes, bits)
        return known

    def pure(self, text: str) -> str:
        """Emit an instruction without side effects, or reuse the equal one that dominates this place."""
        known: str | None = self._known.get(text)
        if known is None:
            known = self.fresh(text)
            self.remember(text, known)
        return known

    def recall(self, key: Hashable) -> Any:
        """What was remembered under ``key`` at a place that dominates this one, or None."""
        return self._known.get(key)

    def remember(self, key: Hashable, value: Any) -> None:
        """Keep ``value`` under ``key`` until the end of the scope."""
        self._known[key] = value
        self._undo[-1].append(key)

    def fresh(self, text: str) -> str:
        """Emit an instruction that has a result; its SSA name."""
        self._count += 1
        name = f"%v{self._count}"
        self._lines.append(f"  {name} = {text}")
        return name

    def void(self, text: str) -> None:
        """Emit an instruction without a result."""
        self._lines.append(f"  {text}")

    def keep_order(self) -> None:
        """Let no load from after this point move before it; no instruction in the code.

        LLVM gathers loads of neighbouring addresses while it selects instructions: what the second step of a register
        tile loads would then be waiting in registers during the first, where all of them are taken, and sums would be
        spilt instead.
        """
        self.void('call void asm sideeffect "", "~{memory}"()')

    def slot(self) -> list[str]:
        """A place here to which instructions may be added later, as indented lines."""
        lines: list[str] = []
        self._lines.append(lines)
        return lines

    def comment(self, text: str) -> None:
        self._lines.append("  ; " + text.replace("\n", " "))

    def alloca(self, type_text: str, alignment: int) -> str:
        """Stack memory that exists for the whole call."""
        self._count += 1
        name = f"%s{self._count}"
        self._allocas.append(f"  {name} = alloca {type_text}, align {alignment}")
        return name

    def new_label(self, hint: str) -> str:
        self._count += 1
        return f"{hint}{self._count}"

    def start(self, label: str) -> None:
        """Begin the block ``label``; the one before must have been ended by a branch."""
        self._lines.append(f"{label}:")
        self.label = label

    def jump(self, label: str) -> None:
        self.void(f"br label %{label}")

    def branch(self, condition: str, on_true: str, on_false: str) -> None:
        self.void(f"br i1 {condition}, label %{on_true}, label %{on_false}")

    def phi(self, type_text: str, *incoming: tuple[str, str]) -> str:
        """A merge of (value, label) pairs."""
        return self.fresh(f"phi {type_text} " + ", ".join(f"[ {value}, %{label} ]" for value, label in incoming))

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """Instructions emitted within do not dominate what comes after: they are forgotten at the end."""
        self._undo.append([])
        try:
            yield
        finally:
            for text in self._undo.pop():
                del self._known[text]

    def body(self) -> str:
        lines = ["entry:", *self._allocas]
        for line in self._lines:
            if isinstance(line, str):
                lines.append(line)
            else:
                lines.extend(line)
        return "\n".join(lines)

    def call_intrinsic(self, name: str, result: str, *operands: str) -> str:
        """Call a pure LLVM intrinsic; each operand is ``"type ref"``."""
        self.module.declare(name, result, ", ".join(_operand_type(o) for o in operands))
        return self.pure(f"call {result} @{name}({', '.join(operands)})")

    def splat(self, value: Value, lanes: int) -> Value:
        """``value`` in all of ``lanes`` lanes; a vector stays as it is."""
        if value.lanes or not lanes:
            return value
        if not value.ref.startswith("%"):
            return Value(f"splat ({value})", value.dtype, lanes)
        wide = f"<{lanes} x {value.type}>"
        single = self.pure(f"insertelement {wide} poison, {value}, i64 0")
        spread = self.pure(f"shufflevector {wide} {single}, {wide} poison, <{lanes} x i32> zeroinitializer")
        return Value(spread, value.dtype, lanes)

    def extract(self, value: Value, lane: int) -> Value:
        """One lane of a vector; a scalar stays as it is."""
        if not value.lanes:
            return value
        return Value(self.pure(f"extractelement {value}, i64 {lane}"), value.dtype)

    def any_lane(self, mask: Value) -> str:
        """An i1 that tells whether any lane of a bool value holds."""
        if not mask.lanes:
            return mask.ref
        bits = self.pure(f"bitcast {mask} to i{mask.lanes}")
        return self.pure(f"icmp ne i{mask.lanes} {bits}, 0")

    def conjunction(self, a: Value | None, b: Value | None) -> Value | None:
        """Both masks; None is a mask that always holds."""
        if a is None or b is None:
            return a if b is None else b
        lanes = max(a.lanes, b.lanes)
        left, right = self.splat(a, lanes), self.splat(b, lanes)
        return Value(self.pure(f"and {left}, {right.ref}"), DType.BOOL, lanes)


def _operand_type(operand: str) -> str:
    """The type of ``"type ref"``; a constant's ref may hold spaces, and so may a vector type."""
    if operand.startswith("<"):
        return operand[: operand.index(">") + 1]
    return operand.split(" ", 1)[0]
