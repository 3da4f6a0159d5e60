"""Linking relocatable objects into one shared object, without a compiler or a system linker.

All symbols are bound when the library is loaded, calls inside the module are direct, and only the names in
``exports`` are visible outside. References follow the processor supplements of the System V ABI.
"""

from __future__ import annotations

from collections.abc import Sequence

from polycomp.codegen.elf.image import Names, write_image
from polycomp.codegen.elf.merge import merge
from polycomp.codegen.elf.plan import plan_references
from polycomp.codegen.elf.reader import ObjectFile, read_object
from polycomp.codegen.elf.relocations import MACHINES, Machine
from polycomp.errors import LinkError

_C_FUNCTIONS = ("memcpy", "memset", "memmove", "malloc", "free", "aligned_alloc")
_SYSTEM_FUNCTIONS = ("clock_gettime", "sched_yield", "syscall")
_THREAD_FUNCTIONS = ("create", "join", "attr_init", "attr_setstacksize", "attr_destroy", "sigmask")

ALLOWED_IMPORTS = frozenset(_C_FUNCTIONS + _SYSTEM_FUNCTIONS) | {f"pthread_{name}" for name in _THREAD_FUNCTIONS}
"""Functions of libc that a module may call."""


def link_shared(
    objects: Sequence[bytes],
    exports: Sequence[str],
    needed: Sequence[str] = ("libc.so.6",),
    soname: str = "module.so",
    imports: frozenset[str] = ALLOWED_IMPORTS,
    labels: Sequence[str] = (),
) -> bytes:
    """Link relocatable ELF64 objects of one machine (x86-64 or AArch64) into a shared object.

    ``exports`` are the global symbols to make visible, ``needed`` the libraries to load first, ``imports`` the
    functions that may stay undefined; ``labels`` name the objects in errors. Raises :class:`LinkError` naming an
    unknown relocation or section, a symbol that is undefined or defined twice, or a reference that is out of range.
    """
    names = list(labels) or [f"object {i}" for i in range(len(objects))]
    files = [read_object(data, name) for data, name in zip(objects, names, strict=True)]
    machine = _machine_of(files)
    merged = merge(files, machine, imports, exports)
    return write_image(machine, merged, plan_references(merged, machine), Names(soname, tuple(needed)))


def _machine_of(files: Sequence[ObjectFile]) -> Machine:
    numbers = {f.machine for f in files}
    if len(numbers) != 1:
        raise LinkError(f"objects of {len(numbers)} machines cannot be linked together" if files else "nothing to link")
    (number,) = numbers
    if number not in MACHINES:
        raise LinkError(f"ELF machine {number} is unknown; the module linker knows x86-64 and AArch64")
    return MACHINES[number]
