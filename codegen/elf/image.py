"""Laying out a shared object and writing it."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from polycomp.codegen.elf import format as elf
from polycomp.codegen.elf.merge import EXECUTE, READ, RELRO, WRITE, Definition, Import, Merged, OutputSection, Target
from polycomp.codegen.elf.plan import Plan, apply_fixups
from polycomp.codegen.elf.relocations import Machine

_SEGMENT_FLAGS = {READ: elf.PF_R, EXECUTE: elf.PF_R | elf.PF_X, RELRO: elf.PF_R | elf.PF_W, WRITE: elf.PF_R | elf.PF_W}
_WORD = 8
_DYNAMIC_ENTRIES = 16  # at most, besides one per needed library
_MAXIMUM_PROGRAMS = 7  # four loads, dynamic, stack and RELRO

_Key = TypeVar("_Key", bound=Target)


@dataclasses.dataclass(frozen=True)
class Names:
    """What the module is called and which libraries it needs."""

    soname: str
    needed: tuple[str, ...]


def write_image(machine: Machine, merged: Merged, plan: Plan, names: Names) -> bytes:
    """The bytes of the shared object.

    The file is: headers, read-only sections, code, RELRO data, data, then sections for debuggers. A section's
    address is its offset plus one page per segment before it, so that segments share no page in memory though they
    may share one in the file.
    """
    sections = _synthesise(machine, merged, plan, names)
    loaded = [s for s in sections if s.size]
    end = _lay_out(loaded, machine.page)
    by_name = {s.name: s for s in sections}
    slots = _entry_addresses(by_name[".got"], plan.slots, _WORD)
    stubs = _entry_addresses(by_name[".plt"], plan.stubs, machine.stub_bytes)
    apply_fixups(plan.fixups, slots, stubs)
    by_name[".plt"].content[:] = b"".join(machine.stub(address, slots[t]) for t, address in stubs.items())
    indices = {s.name: i for i, s in enumerate(loaded, 1)}
    _fill_symbols(by_name, merged, indices)
    _fill_relocations(by_name[".rela.dyn"], machine, merged, plan, slots)
    _fill_dynamic(by_name, names, plan)
    return _file(machine, loaded, _debugging(merged, indices), end)


def _synthesise(machine: Machine, merged: Merged, plan: Plan, names: Names) -> list[OutputSection]:
    """All loaded sections in file order; the ones made here have their size, their content comes later."""
    strings = elf.StringTable()
    for text in (*(i.name for i in merged.imports), *merged.exported, *names.needed, names.soname):
        strings.add(text)
    n_symbols = 1 + len(merged.imports) + len(merged.exported)
    n_relocations = len(plan.slots) + len(plan.dynamic)
    n_dynamic = _DYNAMIC_ENTRIES + len(names.needed)
    given = merged.outputs
    return [
        _table(".hash", READ, elf.SHT_HASH, 4 * (2 + 2 * n_symbols), 4, ".dynsym"),
        _table(".dynsym", READ, elf.SHT_DYNSYM, elf.SYMBOL_BYTES * n_symbols, elf.SYMBOL_BYTES, ".dynstr", 1),
        OutputSection(".dynstr", READ, elf.SHT_STRTAB, 1, strings.data, len(strings.data)),
        _table(".rela.dyn", READ, elf.SHT_RELA, elf.RELA_BYTES * n_relocations, elf.RELA_BYTES, ".dynsym"),
        given[".rodata"],
        given[".text"],
        _table(".plt", EXECUTE, elf.SHT_PROGBITS, machine.stub_bytes * len(plan.stubs), machine.stub_bytes, ""),
        given[".data.rel.ro"],
        _table(".dynamic", RELRO, elf.SHT_DYNAMIC, elf.DYNAMIC_BYTES * n_dynamic, elf.DYNAMIC_BYTES, ".dynstr"),
        _table(".got", RELRO, elf.SHT_PROGBITS, _WORD * len(plan.slots), _WORD, ""),
        given[".data"],
        given[".bss"],
    ]


def _table(name: str, segment: int, kind: int, size: int, entry_size: int, link: str, info: int = 0) -> OutputSection:
    alignment = 16 if segment == EXECUTE else _WORD
    return OutputSection(name, segment, kind, alignment, bytearray(size), size, entry_size, link, info)


def _lay_out(sections: Sequence[OutputSection], page: int) -> int:
    """Give every loaded section its offset and address; returns the end of their contents in the file."""
    position = elf.FILE_HEADER_BYTES + _MAXIMUM_PROGRAMS * elf.PROGRAM_HEADER_BYTES
    for section in sections:
        section.offset = elf.align_up(position, section.alignment)
        section.address = section.offset + section.segment * page
        position = section.offset + len(section.content)
    return position


def _entry_addresses(section: OutputSection, keys: Iterable[_Key], step: int) -> dict[_Key, int]:
    return {key: section.address + step * i for i, key in enumerate(keys)}


def _dynamic_index(merged: Merged) -> dict[str, int]:
    """Index in ``.dynsym`` by name: imports, then exports."""
    return {name: i for i, name in enumerate((*(s.name for s in merged.imports), *merged.exported), 1)}


def _fill_symbols(by_name: Mapping[str, OutputSection], merged: Merged, indices: Mapping[str, int]) -> None:
    strings = elf.StringTable()
    entries = [elf.SymbolEntry(0, 0, 0, elf.SHN_UNDEF, 0, 0)]
    for wanted in merged.imports:
        name = strings.add(wanted.name)
        entries.append(elf.SymbolEntry(name, elf.STB_GLOBAL, elf.STT_FUNC, elf.SHN_UNDEF, 0, 0))
    entries += [_symbol(d, strings.add(name), elf.STB_GLOBAL, indices) for name, d in merged.exported.items()]
    by_name[".dynsym"].content[:] = b"".join(e.pack() for e in entries)
    by_name[".hash"].content[:] = _hash_table(list(_dynamic_index(merged)))


def _symbol(definition: Definition, name: int, binding: int, indices: Mapping[str, int]) -> elf.SymbolEntry:
    section = indices[definition.section.name] if definition.section else elf.SHN_ABS
    return elf.SymbolEntry(name, binding, definition.type, section, definition.address, definition.size)


def _hash_table(names: Sequence[str]) -> bytes:
    """A ``DT_HASH`` table of one bucket per symbol. ``names`` are the symbols after the null one."""
    n = len(names) + 1
    buckets, chains = [0] * n, [0] * n
    for index, name in enumerate(names, 1):
        bucket = elf.sysv_hash(name) % n
        chains[index], buckets[bucket] = buckets[bucket], index
    return struct.pack(f"<{2 + 2 * n}I", n, n, *buckets, *chains)


def _fill_relocations(
    table: OutputSection, machine: Machine, merged: Merged, plan: Plan, slots: Mapping[Target, int]
) -> None:
    """Relative ones first, as ``DT_RELACOUNT`` asks."""
    symbols = _dynamic_index(merged)
    entries = [_dynamic_entry(machine, symbols, machine.global_data, s, t, 0) for t, s in slots.items()]
    for d in plan.dynamic:
        place = d.section.address + d.offset
        entries.append(_dynamic_entry(machine, symbols, machine.symbolic, place, d.target, d.addend))
    entries.sort(key=lambda e: (e.type != machine.relative, e.offset))
    table.content[:] = b"".join(e.pack() for e in entries)


def _dynamic_entry(
    machine: Machine, symbols: Mapping[str, int], kind: int, place: int, target: Target, addend: int
) -> elf.RelaEntry:
    if isinstance(target, Import):
        return elf.RelaEntry(place, symbols[target.name], kind, addend)
    return elf.RelaEntry(place, 0, machine.relative, target.address + addend)


def _fill_dynamic(by_name: Mapping[str, OutputSection], names: Names, plan: Plan) -> None:
    strings, relocations = by_name[".dynstr"], by_name[".rela.dyn"]
    entries = [(elf.DT_NEEDED, _offset_in(strings, n)) for n in names.needed]
    entries += [
        (elf.DT_SONAME, _offset_in(strings, names.soname)),
        (elf.DT_HASH, by_name[".hash"].address),
        (elf.DT_STRTAB, strings.address),
        (elf.DT_STRSZ, strings.size),
        (elf.DT_SYMTAB, by_name[".dynsym"].address),
        (elf.DT_SYMENT, elf.SYMBOL_BYTES),
        (elf.DT_FLAGS, elf.DF_BIND_NOW),
        (elf.DT_FLAGS_1, elf.DF_1_NOW),
    ]
    if relocations.size:
        entries += [
            (elf.DT_RELA, relocations.address),
            (elf.DT_RELASZ, relocations.size),
            (elf.DT_RELAENT, elf.RELA_BYTES),
            (elf.DT_RELACOUNT, _count_relative(plan)),
        ]
    content = b"".join(elf.pack_dynamic(tag, value) for tag, value in entries)
    section = by_name[".dynamic"]
    section.content[:] = content.ljust(section.size, b"\0")


def _offset_in(strings: OutputSection, text: str) -> int:
    return bytes(strings.content).index(b"\0" + text.encode() + b"\0") + 1


def _count_relative(plan: Plan) -> int:
    targets = [*plan.slots, *(d.target for d in plan.dynamic)]
    return sum(isinstance(t, Definition) for t in targets)


def _debugging(merged: Merged, indices: Mapping[str, int]) -> list[OutputSection]:
    """The full symbol table, for debuggers and profilers: local symbols first, as the gABI asks."""
    strings = elf.StringTable()
    exported = set(merged.exported.values())
    local = [d for d in merged.definitions if d not in exported]
    entries = [elf.SymbolEntry(0, 0, 0, elf.SHN_UNDEF, 0, 0)]
    entries += [_symbol(d, strings.add(d.name), elf.STB_LOCAL, indices) for d in local]
    entries += [_symbol(d, strings.add(d.name), elf.STB_GLOBAL, indices) for d in merged.exported.values()]
    content = bytearray(b"".join(e.pack() for e in entries))
    symbols = OutputSection(".symtab", READ, elf.SHT_SYMTAB, _WORD, content, len(content), elf.SYMBOL_BYTES, ".strtab")
    symbols.info = len(local) + 1
    return [symbols, OutputSection(".strtab", READ, elf.SHT_STRTAB, 1, strings.data, len(strings.data))]


def _file(machine: Machine, loaded: list[OutputSection], debugging: list[OutputSection], end: int) -> bytes:
    names = elf.StringTable()
    tail = [*debugging, OutputSection(".shstrtab", READ, elf.SHT_STRTAB)]
    everything = [*loaded, *tail]
    for section in everything:
        names.add(section.name)
    tail[-1].content, tail[-1].size = names.data, len(names.data)
    for section in tail:
        section.offset = elf.align_up(end, section.alignment)
        end = section.offset + section.size
    table = elf.align_up(end, _WORD)
    programs = _program_headers(loaded, machine.page)
    header = elf.FileHeader(
        elf.ET_DYN, machine.number, elf.FILE_HEADER_BYTES, table, len(programs), len(everything) + 1, len(everything)
    )
    out = bytearray(table)
    head = header.pack() + b"".join(p.pack() for p in programs)
    out[: len(head)] = head
    for section in everything:
        out[section.offset : section.offset + len(section.content)] = section.content
    return bytes(out) + _section_headers(everything, set(map(id, loaded)), names)


def _section_headers(sections: list[OutputSection], loaded: set[int], names: elf.StringTable) -> bytes:
    index = {s.name: i for i, s in enumerate(sections, 1)}
    headers = [elf.SectionHeader(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)]
    for s in sections:
        flags = s.flags if id(s) in loaded else 0
        link = index.get(s.link, 0)
        headers.append(
            elf.SectionHeader(
                names.add(s.name), s.type, flags, s.address, s.offset, s.size, link, s.info, s.alignment, s.entry_size
            )
        )
    return b"".join(h.pack() for h in headers)


def _program_headers(loaded: Sequence[OutputSection], page: int) -> list[elf.ProgramHeader]:
    segments = {n: [s for s in loaded if s.segment == n] for n in _SEGMENT_FLAGS}
    loads = {n: _load(inside, n, page) for n, inside in segments.items() if inside}
    table = next(s for s in loaded if s.type == elf.SHT_DYNAMIC)
    flags = elf.PF_R | elf.PF_W
    dynamic = elf.ProgramHeader(elf.PT_DYNAMIC, flags, table.offset, table.address, table.size, table.size, _WORD)
    stack = elf.ProgramHeader(elf.PT_GNU_STACK, flags, 0, 0, 0, 0, 16)
    return [*loads.values(), dynamic, stack, _relro(loads[RELRO], page)]


def _load(inside: Sequence[OutputSection], segment: int, page: int) -> elf.ProgramHeader:
    # The first segment also holds the headers.
    start = 0 if segment == READ else inside[0].offset
    file_end = max(s.offset + len(s.content) for s in inside)
    memory_end = max(s.offset + s.size for s in inside)
    address = start + segment * page
    return elf.ProgramHeader(
        elf.PT_LOAD, _SEGMENT_FLAGS[segment], start, address, file_end - start, memory_end - start, page
    )


def _relro(load: elf.ProgramHeader, page: int) -> elf.ProgramHeader:
    """Covers its load to the end of the last page, which no other segment shares."""
    memory = elf.align_up(load.address + load.memory_bytes, page) - load.address
    return elf.ProgramHeader(elf.PT_GNU_RELRO, elf.PF_R, load.offset, load.address, load.file_bytes, memory, 1)
