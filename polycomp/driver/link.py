"""Making a module of compiled kernels: linking them with the thread pool and the entry functions."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from polycomp.codegen.elf import link_shared
from polycomp.codegen.llvm.caller import CALLER_SYMBOLS, caller_ir
from polycomp.codegen.llvm.entry import ENTRY_SYMBOLS, entry_ir
from polycomp.codegen.llvm.machine import compile_ir
from polycomp.codegen.llvm.pool import POOL_SYMBOLS, pool_ir
from polycomp.driver.manifest import ModuleInfo, make_manifest
from polycomp.loops.program import Program
from polycomp.runtime.image import ModuleParts
from polycomp.target import Target


def build_module(
    program: Program,
    kernel_objects: Mapping[str, bytes],
    weights: Iterable[tuple[int, np.ndarray[Any, Any]]],
    weight_bytes: int,
    info: ModuleInfo,
    target: Target,
) -> ModuleParts:
    """Link a program and describe it; write the result with ``write_module_file`` or load it with ``load_parts``.

    ``kernel_objects`` are relocatable objects by the symbol they define. ``weights`` are arrays with their ascending
    byte offsets, read only when the parts are used. Raises :class:`LinkError` when the objects do not fit together.
    """
    manifest = make_manifest(program, info, weight_bytes, target)
    return ModuleParts(manifest, link_program(program, kernel_objects, target), weights)


def link_program(program: Program, kernel_objects: Mapping[str, bytes], target: Target) -> bytes:
    """The shared object of a program: kernels, thread pool, entry functions and the call from Python."""
    own = {"the entry": compile_ir(entry_ir(program, target), target)}
    objects = {
        **own,
        **_common_objects(dataclasses.replace(target, cores=1)),
        **{f"kernel {symbol}": data for symbol, data in kernel_objects.items()},
    }
    exports = [*ENTRY_SYMBOLS, *POOL_SYMBOLS, *CALLER_SYMBOLS]
    return link_shared(list(objects.values()), exports, soname="polycomp-module.so", labels=list(objects))


@functools.cache
def _common_objects(target: Target) -> Mapping[str, bytes]:
    """The objects that all modules for a target share, whatever its cores."""
    return {
        "the thread pool": compile_ir(pool_ir(target), target),
        "the call from Python": compile_ir(caller_ir(target), target),
    }
