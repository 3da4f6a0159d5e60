"""What the relocations of merged sections ask for: slots, stubs, dynamic relocations and places to patch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from polycomp.codegen.elf.format import RelaEntry
from polycomp.codegen.elf.merge import RELRO, WRITE, Definition, Import, Merged, OutputSection, Piece, Target
from polycomp.codegen.elf.relocations import Machine, OutOfRangeError, Reference, Relocation
from polycomp.errors import LinkError


@dataclasses.dataclass(frozen=True)
class Fixup:
    """A place to patch once addresses are known. ``reference`` says what ``target`` stands for at the end:
    itself (ADDRESS), its stub (CALL) or its GOT slot (GOT)."""

    section: OutputSection
    offset: int
    relocation: Relocation
    reference: Reference
    target: Target
    addend: int
    label: str


@dataclasses.dataclass(frozen=True)
class DynamicRelocation:
    """A 64-bit word that the dynamic linker fills with the address of ``target`` plus ``addend``."""

    section: OutputSection
    offset: int
    target: Target
    addend: int


@dataclasses.dataclass
class Plan:
    """``slots`` are the targets that have a GOT slot and ``stubs`` the imports that are called, in order."""

    slots: dict[Target, None] = dataclasses.field(default_factory=dict)
    stubs: dict[Import, None] = dataclasses.field(default_factory=dict)
    dynamic: list[DynamicRelocation] = dataclasses.field(default_factory=list)
    fixups: list[Fixup] = dataclasses.field(default_factory=list)


def plan_references(merged: Merged, machine: Machine) -> Plan:
    """Classify every relocation; GOT loads of symbols in the module are relaxed in place.

    Raises :class:`LinkError` for a relocation of unknown type, or one that the module cannot satisfy.
    """
    plan = Plan()
    for piece in merged.pieces:
        for entry in piece.section.relocations:
            _plan_one(plan, machine, piece, entry)
    return plan


def _plan_one(plan: Plan, machine: Machine, piece: Piece, entry: RelaEntry) -> None:
    relocation, target = _known(machine, entry.type, piece), piece.targets[entry.symbol]
    offset = piece.offset + entry.offset
    reference = relocation.reference
    if reference is Reference.ABSOLUTE and _needs_dynamic(target):
        _check_writable(piece, target)
        plan.dynamic.append(DynamicRelocation(piece.output, offset, target, entry.addend))
        return
    if reference is Reference.GOT and _relax(machine, relocation, piece, offset, target):
        reference = Reference.ADDRESS
    elif reference is Reference.GOT:
        plan.slots.setdefault(target)
    elif isinstance(target, Import):
        _plan_stub(plan, relocation, piece, target)
    else:
        reference = Reference.ADDRESS
    plan.fixups.append(Fixup(piece.output, offset, relocation, reference, target, entry.addend, piece.label))


def _known(machine: Machine, number: int, piece: Piece) -> Relocation:
    found = machine.relocations.get(number)
    if found is None:
        raise LinkError(
            f"{piece.label} has relocation type {number} of {machine.name} in section {piece.section.name!r}, "
            f"which the module linker does not know"
        )
    return found


def _needs_dynamic(target: Target) -> bool:
    """Whether the address is unknown until the module is loaded (all but absolute values)."""
    return isinstance(target, Import) or target.section is not None


def _check_writable(piece: Piece, target: Target) -> None:
    if piece.output.segment not in (RELRO, WRITE):
        raise LinkError(f"{piece.label} keeps the address of {target.name!r} in read-only {piece.section.name!r}")


def _relax(machine: Machine, relocation: Relocation, piece: Piece, offset: int, target: Target) -> bool:
    inside = isinstance(target, Definition) and target.section is not None
    return inside and relocation.relaxable and machine.relax(piece.output.content, offset)


def _plan_stub(plan: Plan, relocation: Relocation, piece: Piece, target: Import) -> None:
    if relocation.reference is not Reference.CALL:
        raise LinkError(f"{piece.label} refers by {relocation.name} to {target.name!r}, which is not in the module")
    plan.stubs.setdefault(target)
    plan.slots.setdefault(target)


def apply_fixups(fixups: list[Fixup], slots: Mapping[Target, int], stubs: Mapping[Import, int]) -> None:
    """Patch all places. ``slots`` and ``stubs`` give addresses; sections must have theirs."""
    for fixup in fixups:
        place = fixup.section.address + fixup.offset
        try:
            address = _address(fixup, slots, stubs) + fixup.addend
            fixup.relocation.apply(fixup.section.content, fixup.offset, address, place)
        except OutOfRangeError as e:
            raise LinkError(f"{fixup.label}: {fixup.relocation.name} to {fixup.target.name!r}: {e}") from e


def _address(fixup: Fixup, slots: Mapping[Target, int], stubs: Mapping[Import, int]) -> int:
    if fixup.reference is Reference.GOT:
        return slots[fixup.target]
    return stubs[fixup.target] if isinstance(fixup.target, Import) else fixup.target.address
