"""Relocation types and procedure linkage of the two machines (System V x86-64 psABI, AAELF64)."""

from __future__ import annotations

import dataclasses
import enum
import struct
from collections.abc import Callable, Mapping

from polycomp.codegen.elf import format as elf


class Reference(enum.Enum):
    """What a relocation refers to, which decides whether the symbol needs a GOT slot or a linkage stub."""

    ADDRESS = "address"  # the symbol itself, relative to the place: must be defined in the module
    CALL = "call"  # the symbol, or its stub when it is imported
    GOT = "got"  # the slot that holds the symbol's address
    ABSOLUTE = "absolute"  # a 64-bit address in memory: the dynamic linker finishes it


class OutOfRangeError(ValueError):
    """A target is too far from the place that refers to it, or not aligned as the instruction needs."""


Apply = Callable[[bytearray, int, int, int], None]
"""``apply(content, offset, target, place)`` patches ``content`` at ``offset``; ``target`` includes the addend."""


@dataclasses.dataclass(frozen=True)
class Relocation:
    name: str
    reference: Reference
    apply: Apply
    relaxable: bool = False  # a GOT load that may become an address computation when the symbol is in the module


@dataclasses.dataclass(frozen=True)
class Machine:
    """``stub(stub_address, slot_address)`` is the code of ``stub_bytes`` that jumps to the address kept in a slot.

    ``relax(content, offset)`` turns a GOT load into an address computation in place, if it can.
    """

    name: str
    number: int
    page: int
    relocations: Mapping[int, Relocation]
    relative: int
    symbolic: int
    global_data: int
    stub_bytes: int
    stub: Callable[[int, int], bytes]
    relax: Callable[[bytearray, int], bool]


def _check(value: int, bits: int) -> int:
    if not -(1 << bits - 1) <= value < 1 << bits - 1:
        raise OutOfRangeError(f"the distance {value:#x} does not fit into {bits} signed bits")
    return value


def _absolute64(content: bytearray, offset: int, target: int, place: int) -> None:
    struct.pack_into("<Q", content, offset, target % 2**64)


def _relative64(content: bytearray, offset: int, target: int, place: int) -> None:
    struct.pack_into("<q", content, offset, target - place)


def _relative32(content: bytearray, offset: int, target: int, place: int) -> None:
    struct.pack_into("<i", content, offset, _check(target - place, 32))


# x86-64


def _x86_stub(stub_address: int, slot_address: int) -> bytes:
    # jmp *slot(%rip), then int3 up to 16 bytes
    return b"\xff\x25" + struct.pack("<i", _check(slot_address - (stub_address + 6), 32)) + b"\xcc" * 10


def _x86_relax(content: bytearray, offset: int) -> bool:
    """``mov slot(%rip), reg`` becomes ``lea symbol(%rip), reg``; other instructions keep their slot."""
    if offset < 2 or content[offset - 2] != 0x8B:
        return False
    content[offset - 2] = 0x8D
    return True


X86_64 = Machine(
    name="x86-64",
    number=elf.EM_X86_64,
    page=0x1000,
    relocations={
        1: Relocation("R_X86_64_64", Reference.ABSOLUTE, _absolute64),
        2: Relocation("R_X86_64_PC32", Reference.ADDRESS, _relative32),
        4: Relocation("R_X86_64_PLT32", Reference.CALL, _relative32),
        9: Relocation("R_X86_64_GOTPCREL", Reference.GOT, _relative32),
        24: Relocation("R_X86_64_PC64", Reference.ADDRESS, _relative64),
        41: Relocation("R_X86_64_GOTPCRELX", Reference.GOT, _relative32, relaxable=True),
        42: Relocation("R_X86_64_REX_GOTPCRELX", Reference.GOT, _relative32, relaxable=True),
    },
    relative=8,
    symbolic=1,
    global_data=6,
    stub_bytes=16,
    stub=_x86_stub,
    relax=_x86_relax,
)


# AArch64


def _patch(content: bytearray, offset: int, mask: int, value: int) -> None:
    """Replace the bits of ``mask`` in the instruction at ``offset``."""
    (word,) = struct.unpack_from("<I", content, offset)
    struct.pack_into("<I", content, offset, word & ~mask & 0xFFFFFFFF | value & mask)


def _branch(bits: int, shift: int) -> Apply:
    """A branch whose immediate has ``bits`` bits (of 4-byte words) at bit ``shift``."""

    def apply(content: bytearray, offset: int, target: int, place: int) -> None:
        distance = _check(target - place, bits + 2)
        if distance % 4:
            raise OutOfRangeError(f"the branch distance {distance:#x} is not a multiple of 4")
        mask = (1 << bits) - 1
        _patch(content, offset, mask << shift, (distance >> 2 & mask) << shift)

    return apply


def _adr_immediate(value: int) -> int:
    """The 21 bits of ADR and ADRP: two low bits at 29, the others at 5."""
    return (value & 3) << 29 | (value >> 2 & 0x7FFFF) << 5


def _page_distance(content: bytearray, offset: int, target: int, place: int) -> None:
    pages = (target >> 12) - (place >> 12)
    _patch(content, offset, _adr_immediate(-1), _adr_immediate(_check(pages, 21)))


def _adr_distance(content: bytearray, offset: int, target: int, place: int) -> None:
    _patch(content, offset, _adr_immediate(-1), _adr_immediate(_check(target - place, 21)))


def _low12(scale: int) -> Apply:
    """The page offset of the target in units of ``1 << scale`` bytes, in the immediate at bits 10 to 21."""

    def apply(content: bytearray, offset: int, target: int, place: int) -> None:
        low = target & 0xFFF
        if low % (1 << scale):
            raise OutOfRangeError(f"the address {target:#x} is not aligned to {1 << scale} bytes")
        _patch(content, offset, 0xFFF << 10, low >> scale << 10)

    return apply


def _aarch64_stub(stub_address: int, slot_address: int) -> bytes:
    # adrp x16, slot; ldr x17, [x16, low]; br x17; nop
    code = bytearray(struct.pack("<4I", 0x90000010, 0xF9400211, 0xD61F0220, 0xD503201F))
    _page_distance(code, 0, slot_address, stub_address)
    _low12(3)(code, 4, slot_address, stub_address + 4)
    return bytes(code)


def _never_relax(content: bytearray, offset: int) -> bool:
    return False


AARCH64 = Machine(
    name="AArch64",
    number=elf.EM_AARCH64,
    page=0x10000,
    relocations={
        257: Relocation("R_AARCH64_ABS64", Reference.ABSOLUTE, _absolute64),
        260: Relocation("R_AARCH64_PREL64", Reference.ADDRESS, _relative64),
        261: Relocation("R_AARCH64_PREL32", Reference.ADDRESS, _relative32),
        273: Relocation("R_AARCH64_LD_PREL_LO19", Reference.ADDRESS, _branch(19, 5)),
        274: Relocation("R_AARCH64_ADR_PREL_LO21", Reference.ADDRESS, _adr_distance),
        275: Relocation("R_AARCH64_ADR_PREL_PG_HI21", Reference.ADDRESS, _page_distance),
        277: Relocation("R_AARCH64_ADD_ABS_LO12_NC", Reference.ADDRESS, _low12(0)),
        278: Relocation("R_AARCH64_LDST8_ABS_LO12_NC", Reference.ADDRESS, _low12(0)),
        279: Relocation("R_AARCH64_TSTBR14", Reference.CALL, _branch(14, 5)),
        280: Relocation("R_AARCH64_CONDBR19", Reference.CALL, _branch(19, 5)),
        282: Relocation("R_AARCH64_JUMP26", Reference.CALL, _branch(26, 0)),
        283: Relocation("R_AARCH64_CALL26", Reference.CALL, _branch(26, 0)),
        284: Relocation("R_AARCH64_LDST16_ABS_LO12_NC", Reference.ADDRESS, _low12(1)),
        285: Relocation("R_AARCH64_LDST32_ABS_LO12_NC", Reference.ADDRESS, _low12(2)),
        286: Relocation("R_AARCH64_LDST64_ABS_LO12_NC", Reference.ADDRESS, _low12(3)),
        299: Relocation("R_AARCH64_LDST128_ABS_LO12_NC", Reference.ADDRESS, _low12(4)),
        311: Relocation("R_AARCH64_ADR_GOT_PAGE", Reference.GOT, _page_distance),
        312: Relocation("R_AARCH64_LD64_GOT_LO12_NC", Reference.GOT, _low12(3)),
        314: Relocation("R_AARCH64_PLT32", Reference.CALL, _relative32),
    },
    relative=1027,
    symbolic=257,
    global_data=1025,
    stub_bytes=16,
    stub=_aarch64_stub,
    relax=_never_relax,
)

MACHINES: Mapping[int, Machine] = {m.number: m for m in (X86_64, AARCH64)}
