"""Merging the sections of all objects into the output's, and resolving symbols across objects."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from polycomp.codegen.elf import format as elf
from polycomp.codegen.elf.reader import ObjectFile, Section, Symbol
from polycomp.codegen.elf.relocations import Machine, Reference
from polycomp.errors import LinkError

READ, EXECUTE, RELRO, WRITE = range(4)
"""The segments, in file order. RELRO is written by the dynamic linker only, then made read-only."""

_FLAGS = (
    elf.SHF_ALLOC,
    elf.SHF_ALLOC | elf.SHF_EXECINSTR,
    elf.SHF_ALLOC | elf.SHF_WRITE,
    elf.SHF_ALLOC | elf.SHF_WRITE,
)
_SEGMENTS = {".rodata": READ, ".text": EXECUTE, ".data.rel.ro": RELRO, ".data": WRITE, ".bss": WRITE}
_NOP = {elf.EM_X86_64: b"\x90", elf.EM_AARCH64: b"\x1f\x20\x03\xd5"}


@dataclasses.dataclass(eq=False)
class OutputSection:
    """A section of the output. ``address`` and ``offset`` are known once the image is laid out."""

    name: str
    segment: int
    type: int = elf.SHT_PROGBITS
    alignment: int = 1
    content: bytearray = dataclasses.field(default_factory=bytearray)
    size: int = 0
    entry_size: int = 0
    link: str = ""
    info: int = 0
    address: int = 0
    offset: int = 0

    @property
    def flags(self) -> int:
        return _FLAGS[self.segment]

    def append(self, section: Section, filler: bytes) -> int:
        """Add a section of an object at its alignment; the gap before it is filled. Returns its offset."""
        offset = elf.align_up(self.size, section.alignment)
        self.alignment = max(self.alignment, section.alignment)
        self.size = offset + section.size
        if not section.zero_filled:
            gap = offset - len(self.content)
            self.content += (filler * gap)[:gap] + bytes(section.data)
        return offset


@dataclasses.dataclass(frozen=True, eq=False)
class Definition:
    """A symbol defined in the module; ``section`` is None for an absolute value. Compared by identity."""

    name: str
    type: int
    section: OutputSection | None
    offset: int
    size: int = 0

    @property
    def address(self) -> int:
        return self.offset + (self.section.address if self.section else 0)


@dataclasses.dataclass(frozen=True)
class Import:
    """A function that the dynamic linker finds in another library."""

    name: str


Target = Definition | Import


@dataclasses.dataclass(frozen=True)
class Piece:
    """A section of an object at its place in the output; ``targets`` are its object's symbols, resolved."""

    section: Section
    output: OutputSection
    offset: int
    targets: Sequence[Target]
    label: str


@dataclasses.dataclass(frozen=True)
class Merged:
    outputs: Mapping[str, OutputSection]
    pieces: tuple[Piece, ...]
    definitions: tuple[Definition, ...]
    exported: Mapping[str, Definition]
    imports: tuple[Import, ...]


_Places = dict[tuple[int, int], tuple[OutputSection, int]]


def merge(objects: Sequence[ObjectFile], machine: Machine, allowed: frozenset[str], exports: Sequence[str]) -> Merged:
    """Place every section and resolve every symbol.

    Raises :class:`LinkError` when a global symbol is defined twice, or is neither defined nor in ``allowed``.
    """
    outputs = {name: OutputSection(name, segment) for name, segment in _SEGMENTS.items()}
    outputs[".bss"].type = elf.SHT_NOBITS
    places = _place_sections(objects, machine, outputs)
    resolver = _Resolver(objects, places, outputs[".bss"], allowed)
    pieces = tuple(
        Piece(section, *places[number, index], resolver.targets[number], item.label)
        for number, item in enumerate(objects)
        for index, section in item.sections.items()
    )
    missing = [name for name in exports if name not in resolver.globals]
    if missing:
        raise LinkError(f"no object defines {', '.join(missing)}, which the module must export")
    exported = {name: resolver.globals[name] for name in exports}
    return Merged(outputs, pieces, tuple(resolver.definitions), exported, tuple(resolver.imports.values()))


def _place_sections(objects: Sequence[ObjectFile], machine: Machine, outputs: Mapping[str, OutputSection]) -> _Places:
    filler = _NOP[machine.number]
    places: _Places = {}
    for number, item in enumerate(objects):
        for index, section in item.sections.items():
            output = outputs[_output_name(section, machine)]
            places[number, index] = output, output.append(section, filler if output.segment == EXECUTE else b"\0")
    return places


def _output_name(section: Section, machine: Machine) -> str:
    if section.flags & elf.SHF_EXECINSTR:
        return ".text"
    if section.zero_filled:
        return ".bss"
    if section.name.startswith(".data.rel.ro"):
        return ".data.rel.ro"
    if section.flags & elf.SHF_WRITE:
        return ".data"
    return ".data.rel.ro" if _has_absolute(section, machine) else ".rodata"


def _has_absolute(section: Section, machine: Machine) -> bool:
    known = (machine.relocations.get(r.type) for r in section.relocations)
    return any(r is not None and r.reference is Reference.ABSOLUTE for r in known)


class _Resolver:
    """Resolves symbols: first everything that is defined, then every reference."""

    def __init__(
        self, objects: Sequence[ObjectFile], places: _Places, bss: OutputSection, allowed: frozenset[str]
    ) -> None:
        self._places = places
        self._bss = bss
        self._allowed = allowed
        self.globals: dict[str, Definition] = {}
        self.imports: dict[str, Import] = {}
        self.definitions: list[Definition] = []
        self._strong: dict[str, str] = {}
        local = [self._define_all(number, item) for number, item in enumerate(objects)]
        self._undefined: dict[str, str] = {}
        self.targets = [self._resolve_all(item, known) for item, known in zip(objects, local, strict=True)]
        if self._undefined:
            listed = ", ".join(f"{name} (used in {label})" for name, label in self._undefined.items())
            raise LinkError(f"undefined symbols that modules may not import: {listed}")

    def _define_all(self, number: int, item: ObjectFile) -> dict[int, Definition]:
        """Definitions by index in the object's symbol table; globals are entered under their name instead."""
        local: dict[int, Definition] = {}
        for index, symbol in enumerate(item.symbols):
            if symbol.section == elf.SHN_UNDEF:
                continue
            if symbol.binding == elf.STB_LOCAL:
                local[index] = self._definition(number, symbol)
            else:
                self._define_global(number, symbol, item.label)
        return local

    def _define_global(self, number: int, symbol: Symbol, label: str) -> None:
        tentative = symbol.section == elf.SHN_COMMON or symbol.binding == elf.STB_WEAK
        if not tentative:
            if symbol.name in self._strong:
                raise LinkError(f"symbol {symbol.name!r} is defined in both {self._strong[symbol.name]} and {label}")
            self._strong[symbol.name] = label
        if not tentative or symbol.name not in self.globals:
            self.globals[symbol.name] = self._definition(number, symbol)

    def _definition(self, number: int, symbol: Symbol) -> Definition:
        if symbol.section == elf.SHN_ABS:
            return Definition(symbol.name, symbol.type, None, symbol.value)
        if symbol.section == elf.SHN_COMMON:
            output, base = self._bss, self._common(symbol)
        elif (number, symbol.section) in self._places:
            place = self._places[number, symbol.section]
            output, base = place[0], place[1] + symbol.value
        else:  # in a section that is dropped: unreferenced, or reported at the reference
            return Definition(symbol.name, symbol.type, None, 0)
        made = Definition(symbol.name, symbol.type, output, base, symbol.size)
        if symbol.type in (elf.STT_FUNC, elf.STT_OBJECT) and symbol.name:
            self.definitions.append(made)
        return made

    def _common(self, symbol: Symbol) -> int:
        """Reserve a common symbol; its ``value`` is its alignment."""
        empty = Section("COMMON", 0, memoryview(b""), symbol.size, max(1, symbol.value), True, ())
        return self._bss.append(empty, b"")

    def _resolve_all(self, item: ObjectFile, local: Mapping[int, Definition]) -> list[Target]:
        return [
            local[index] if index in local else self._resolve(symbol, item.label)
            for index, symbol in enumerate(item.symbols)
        ]

    def _resolve(self, symbol: Symbol, label: str) -> Target:
        if symbol.name in self.globals:
            return self.globals[symbol.name]
        if symbol.name and symbol.name not in self._allowed:
            self._undefined.setdefault(symbol.name, label)
        if not symbol.name:  # the null symbol at index 0
            return Definition("", 0, None, 0)
        return self.imports.setdefault(symbol.name, Import(symbol.name))
