"""ELF64 little-endian: the constants and records that the linker reads and writes (System V gABI, chapters 4 and 5)."""

from __future__ import annotations

import struct
from typing import NamedTuple

MAGIC = b"\x7fELF\x02\x01\x01"  # 64 bits, little-endian, version 1

ET_REL, ET_DYN = 1, 3
EM_X86_64, EM_AARCH64 = 62, 183

SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB, SHT_RELA, SHT_HASH, SHT_DYNAMIC = 1, 2, 3, 4, 5, 6
SHT_NOBITS, SHT_DYNSYM = 8, 11
SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR, SHF_TLS = 1, 2, 4, 0x400
SHN_UNDEF, SHN_ABS, SHN_COMMON = 0, 0xFFF1, 0xFFF2

STB_LOCAL, STB_GLOBAL, STB_WEAK = 0, 1, 2
STT_OBJECT, STT_FUNC, STT_SECTION = 1, 2, 3

PT_LOAD, PT_DYNAMIC = 1, 2
PT_GNU_STACK, PT_GNU_RELRO = 0x6474E551, 0x6474E552
PF_X, PF_W, PF_R = 1, 2, 4

DT_NULL, DT_NEEDED, DT_HASH, DT_STRTAB, DT_SYMTAB = 0, 1, 4, 5, 6
DT_RELA, DT_RELASZ, DT_RELAENT, DT_STRSZ, DT_SYMENT, DT_SONAME = 7, 8, 9, 10, 11, 14
DT_FLAGS, DT_FLAGS_1, DT_RELACOUNT = 30, 0x6FFFFFFB, 0x6FFFFFF9
DF_BIND_NOW, DF_1_NOW = 8, 1

_FILE_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION_HEADER = struct.Struct("<IIQQQQIIQQ")
_PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELA = struct.Struct("<QQq")
_DYNAMIC = struct.Struct("<qQ")

FILE_HEADER_BYTES = _FILE_HEADER.size
SECTION_HEADER_BYTES = _SECTION_HEADER.size
PROGRAM_HEADER_BYTES = _PROGRAM_HEADER.size
SYMBOL_BYTES = _SYMBOL.size
RELA_BYTES = _RELA.size
DYNAMIC_BYTES = _DYNAMIC.size


class FileHeader(NamedTuple):
    """The ELF header, without the fields that are constant for us."""

    type: int
    machine: int
    program_offset: int
    section_offset: int
    n_programs: int
    n_sections: int
    names_section: int

    def pack(self) -> bytes:
        return _FILE_HEADER.pack(
            MAGIC, self.type, self.machine, 1, 0, self.program_offset, self.section_offset, 0, FILE_HEADER_BYTES,
            PROGRAM_HEADER_BYTES, self.n_programs, SECTION_HEADER_BYTES, self.n_sections, self.names_section,
        )  # fmt: skip

    @classmethod
    def unpack(cls, data: memoryview) -> FileHeader:
        fields = _FILE_HEADER.unpack_from(data)
        return cls(fields[1], fields[2], fields[5], fields[6], fields[10], fields[12], fields[13])


class SectionHeader(NamedTuple):
    name: int
    type: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    entry_size: int

    def pack(self) -> bytes:
        return _SECTION_HEADER.pack(*self)

    @classmethod
    def unpack(cls, data: memoryview, offset: int) -> SectionHeader:
        return cls(*_SECTION_HEADER.unpack_from(data, offset))


class ProgramHeader(NamedTuple):
    type: int
    flags: int
    offset: int
    address: int
    file_bytes: int
    memory_bytes: int
    alignment: int

    def pack(self) -> bytes:
        return _PROGRAM_HEADER.pack(
            self.type, self.flags, self.offset, self.address, self.address, self.file_bytes, self.memory_bytes,
            self.alignment,
        )  # fmt: skip


class SymbolEntry(NamedTuple):
    name: int
    binding: int
    type: int
    section: int
    value: int
    size: int

    def pack(self) -> bytes:
        info = self.binding << 4 | self.type
        return _SYMBOL.pack(self.name, info, 0, self.section, self.value, self.size)

    @classmethod
    def unpack(cls, data: memoryview, offset: int) -> SymbolEntry:
        name, info, _other, section, value, size = _SYMBOL.unpack_from(data, offset)
        return cls(name, info >> 4, info & 15, section, value, size)


class RelaEntry(NamedTuple):
    offset: int
    symbol: int
    type: int
    addend: int

    def pack(self) -> bytes:
        return _RELA.pack(self.offset, self.symbol << 32 | self.type, self.addend)

    @classmethod
    def unpack(cls, data: memoryview, offset: int) -> RelaEntry:
        place, info, addend = _RELA.unpack_from(data, offset)
        return cls(place, info >> 32, info & 0xFFFFFFFF, addend)


def pack_dynamic(tag: int, value: int) -> bytes:
    """One entry of ``.dynamic``."""
    return _DYNAMIC.pack(tag, value)


def sysv_hash(name: str) -> int:
    """The gABI's symbol hash, which ``DT_HASH`` tables use."""
    value = 0
    for byte in name.encode():
        value = (value << 4) + byte
        value ^= (value & 0xF0000000) >> 24
        value &= 0x0FFFFFFF
    return value


class StringTable:
    """A string table under construction; equal strings share one entry."""

    def __init__(self) -> None:
        self._offsets = {"": 0}
        self.data = bytearray(b"\0")

    def add(self, text: str) -> int:
        """The offset of ``text`` in :attr:`data`."""
        if text not in self._offsets:
            self._offsets[text] = len(self.data)
            self.data += text.encode() + b"\0"
        return self._offsets[text]


def align_up(value: int, alignment: int) -> int:
    """The smallest multiple of ``alignment`` (positive) that is at least ``value``."""
    return -(-value // alignment) * alignment
