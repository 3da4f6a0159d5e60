"""Reading relocatable ELF64 objects."""

from __future__ import annotations

import dataclasses
import struct

from polycomp.codegen.elf import format as elf
from polycomp.errors import LinkError

# Unwind tables are dropped: kernels neither throw nor are unwound through.
_DROPPED = frozenset([".eh_frame"])
# The first word of the names of sections that are merged; constructors and the like are not among them.
_KNOWN = frozenset(["text", "rodata", "data", "bss"])

_LARGEST_ALIGNMENT = 4096
_LARGEST_SIZE = 1 << 31  # what 32-bit relative references reach


@dataclasses.dataclass(frozen=True, eq=False)
class Section:
    """A section that takes part in the output. ``data`` is empty for NOBITS."""

    name: str
    flags: int
    data: memoryview
    size: int
    alignment: int
    zero_filled: bool
    relocations: tuple[elf.RelaEntry, ...]


@dataclasses.dataclass(frozen=True)
class Symbol:
    """``section`` is an index into the object's section headers, or one of ``SHN_UNDEF/ABS/COMMON``."""

    name: str
    binding: int
    type: int
    section: int
    value: int
    size: int


@dataclasses.dataclass(frozen=True, eq=False)
class ObjectFile:
    """``sections`` has those that are kept, by their index in the file. ``label`` names the object in errors."""

    label: str
    machine: int
    sections: dict[int, Section]
    symbols: tuple[Symbol, ...]


def read_object(data: bytes, label: str) -> ObjectFile:
    """Parse a relocatable object.

    Raises :class:`LinkError` when ``data`` is not one, or when it has an allocated section of a kind that kernels
    never have (thread-local data, constructors).
    """
    view = memoryview(data)
    if len(data) < elf.FILE_HEADER_BYTES or data[: len(elf.MAGIC)] != elf.MAGIC:
        raise LinkError(f"{label} is not an ELF64 object")
    try:
        return _read(view, label)
    except (struct.error, IndexError, UnicodeDecodeError, ValueError) as e:
        raise LinkError(f"{label} is a damaged ELF object: {e}") from e


def _read(view: memoryview, label: str) -> ObjectFile:
    header = elf.FileHeader.unpack(view)
    if header.type != elf.ET_REL:
        raise LinkError(f"{label} is an ELF file of type {header.type}, not a relocatable object")
    step = elf.SECTION_HEADER_BYTES
    headers = [elf.SectionHeader.unpack(view, header.section_offset + i * step) for i in range(header.n_sections)]
    names = _content(view, headers[header.names_section])
    symbols = _symbols(view, headers)
    relocations = _relocations(view, headers, len(symbols))
    sections = {}
    for index, entry in enumerate(headers):
        name = _string(names, entry.name)
        if entry.flags & elf.SHF_ALLOC and name not in _DROPPED:
            sections[index] = _section(view, entry, name, relocations.get(index, ()), label)
    return ObjectFile(label, header.machine, sections, symbols)


def _section(
    view: memoryview, entry: elf.SectionHeader, name: str, relocations: tuple[elf.RelaEntry, ...], label: str
) -> Section:
    zero_filled = entry.type == elf.SHT_NOBITS
    plain = name.split(".")[1:2] in ([k] for k in _KNOWN) and not entry.flags & elf.SHF_TLS
    if not plain or not (zero_filled or entry.type == elf.SHT_PROGBITS):
        raise LinkError(f"{label} has section {name!r} of type {entry.type}, which the module linker does not know")
    _check_extent(entry.size, entry.alignment)
    data = memoryview(b"") if zero_filled else _content(view, entry)
    return Section(name, entry.flags, data, entry.size, max(1, entry.alignment), zero_filled, relocations)


def _check_extent(size: int, alignment: int) -> None:
    if size >= _LARGEST_SIZE or alignment > _LARGEST_ALIGNMENT or alignment & (alignment - 1):
        raise ValueError(f"{size} bytes aligned to {alignment} are not possible")


def _content(view: memoryview, entry: elf.SectionHeader) -> memoryview:
    end = entry.offset + entry.size
    if end > len(view):
        raise ValueError("a section lies outside of the file")
    return view[entry.offset : end]


def _string(table: memoryview, offset: int) -> str:
    text = bytes(table[offset:])
    return text[: text.index(0)].decode()


def _relocations(
    view: memoryview, headers: list[elf.SectionHeader], n_symbols: int
) -> dict[int, tuple[elf.RelaEntry, ...]]:
    """Relocations by the index of the section they apply to."""
    found: dict[int, tuple[elf.RelaEntry, ...]] = {}
    for entry in headers:
        if entry.type == elf.SHT_RELA:
            content = _content(view, entry)
            entries = tuple(elf.RelaEntry.unpack(content, o) for o in range(0, entry.size, elf.RELA_BYTES))
            end = headers[entry.info].size
            if any(e.symbol >= n_symbols or e.offset + 4 > end or abs(e.addend) > _LARGEST_SIZE for e in entries):
                raise ValueError("a relocation lies outside of its section or has no symbol")
            found[entry.info] = entries
    return found


def _symbols(view: memoryview, headers: list[elf.SectionHeader]) -> tuple[Symbol, ...]:
    table = next((h for h in headers if h.type == elf.SHT_SYMTAB), None)
    if table is None:
        return ()
    content, strings = _content(view, table), _content(view, headers[table.link])
    entries = [elf.SymbolEntry.unpack(content, o) for o in range(0, table.size, elf.SYMBOL_BYTES)]
    for e in entries:
        _check_symbol(e, headers)
    return tuple(Symbol(_string(strings, e.name), e.binding, e.type, e.section, e.value, e.size) for e in entries)


def _check_symbol(entry: elf.SymbolEntry, headers: list[elf.SectionHeader]) -> None:
    if entry.section == elf.SHN_COMMON:
        _check_extent(entry.size, entry.value)
    elif entry.section not in (elf.SHN_UNDEF, elf.SHN_ABS) and entry.value + entry.size > headers[entry.section].size:
        raise ValueError("a symbol lies outside of its section")
