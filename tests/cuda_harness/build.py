"""Compiling kernels and the runtime with g++. Everything that is built is kept in a folder, by its content."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from polycomp.codegen.cuda.prelude import PORTABLE

SOURCES = Path(__file__).parent

_RUNTIME = ("runtime.cpp", "races.cpp")
_COMMON = ("-std=c++17", "-fPIC", "-w", f"-I{SOURCES}")
# As on a GPU, integers wrap around, and memory is accessed as vectors of other types than it was written as. Local
# variables begin as numbers that show, not with what the stack had.
_KERNEL = (
    "-O2", "-fvisibility=hidden", "-fwrapv", "-fno-strict-aliasing", "-fno-math-errno", "-fno-trapping-math",
    "-ffp-contract=off", "-ftrivial-auto-var-init=pattern",
)  # fmt: skip
_OLDEST_GCC = 12
# A kernel writes what is in between the shared arrays only by mistake, so these are watched too, one by one.
_SANITIZE = ("-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fsanitize-sections=shared_*")


class HarnessError(Exception):
    """Kernels do not compile."""


@dataclasses.dataclass(frozen=True)
class Variant:
    """What to look for: ``sanitize`` with AddressSanitizer and UndefinedBehaviorSanitizer, ``races`` among threads."""

    sanitize: bool = False
    races: bool = False


@functools.cache
def harness_available() -> bool:
    """Whether kernels can be run: there is g++ 12 or later, and a processor that fibers are written for."""
    if shutil.which("g++") is None or platform.machine() not in ("x86_64", "aarch64"):
        return False
    return int(_output_of("g++", "-dumpversion").split(".")[0]) >= _OLDEST_GCC


@functools.cache
def sanitizers_available() -> bool:
    """Whether kernels can be run with sanitizers: g++ has their libraries."""
    if not harness_available():
        return False
    names = ("libasan.so", "libubsan.so")
    return all(os.path.isabs(_output_of("g++", f"-print-file-name={name}").strip()) for name in names)


def build_kernels(sources: Sequence[str], functions: Sequence[str], variant: Variant, folder: Path | None) -> Path:
    """A shared object with the kernels ``functions`` of all the sources; see :func:`compile_for_cpu`."""
    text = translation_unit(sources, functions)
    if variant.sanitize:  # what the runtime has is found in the program that loads it
        return _built(text, (*_COMMON, *_KERNEL, *_SANITIZE), ("-shared", *_SANITIZE), folder)
    watch = ("-fsanitize=thread",) if variant.races else ()
    return _built(text, (*_COMMON, *_KERNEL, *watch), ("-shared", str(runtime_library(folder))), folder)


def runtime_library(folder: Path | None) -> Path:
    """What kernels without sanitizers are linked with."""
    return _built(_inclusion(_RUNTIME), (*_COMMON, "-O2"), ("-shared",), folder)


def sanitized_program(folder: Path | None) -> Path:
    """What runs kernels with sanitizers."""
    options = (*_COMMON, "-O1", *_SANITIZE)
    return _built(_inclusion((*_RUNTIME, "main.cpp")), options, ("-rdynamic", "-ldl", *_SANITIZE), folder)


def translation_unit(sources: Sequence[str], functions: Sequence[str]) -> str:
    """C++ of the kernels. Each source has a namespace and a section of shared memory of its own."""
    parts = ['#include "device.hpp"', PORTABLE]
    remaining = list(functions)
    for number, source in enumerate(sources):
        own = [f for f in remaining if re.search(rf"\b{f}\s*\(", source)]
        remaining = [f for f in remaining if f not in own]
        parts += _source_part(number, source, own)
    if remaining:
        raise HarnessError(f"there is no kernel {', '.join(remaining)} in the source")
    return "\n".join(parts)


def _source_part(number: int, source: str, functions: Sequence[str]) -> list[str]:
    shared = f"shared_{number}"
    return [
        f"namespace source_{number} {{",
        "#undef __shared__",
        f'#define __shared__ static __attribute__((section("{shared}")))',
        f'#line 1 "source_{number}"',
        _DYNAMIC_SHARED.sub(r"\1* const \2 = reinterpret_cast<\1*>(harness::dynamic_shared());", source),
        *(f"HARNESS_KERNEL({f}, {shared})" for f in functions),
        "}",
    ]


_DYNAMIC_SHARED = re.compile(r"extern\s+__shared__\s+(?:__align__\(\d+\)\s*)?([\w\s]+?)\s+(\w+)\s*\[\s*\]\s*;")


def _inclusion(names: Sequence[str]) -> str:
    return "".join(f'#include "{name}"\n' for name in names)


def _built(text: str, compiling: Sequence[str], linking: Sequence[str], folder: Path | None) -> Path:
    """What g++ makes of a text in C++: compiled with some options, linked with others."""
    folder = (folder or _default_folder()).absolute()
    key = hashlib.sha256("\0".join([_compiler(), _headers(), text, *compiling, "\0", *linking]).encode()).hexdigest()[
        :32
    ]
    target = folder / f"{key}.built"
    if target.exists():
        return target
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        source, unlinked, made = Path(scratch, "unit.cpp"), Path(scratch, "unit.o"), Path(scratch, "made")
        source.write_text(text)
        _output_of("g++", *compiling, "-c", str(source), "-o", str(unlinked))
        _output_of("g++", str(unlinked), "-o", str(made), *linking)
        made.replace(target)
    return target


def _default_folder() -> Path:
    return Path(tempfile.gettempdir(), f"polycomp-cuda-harness-{os.getuid()}")


def _output_of(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise HarnessError(f"{' '.join(command)} failed:\n{done.stderr}")
    return done.stdout


@functools.cache
def _compiler() -> str:
    return _output_of("g++", "--version") + platform.machine()


@functools.cache
def _headers() -> str:
    """The text of all that a translation unit may include."""
    return "\0".join(path.read_text() for path in sorted(SOURCES.glob("*.[ch]pp")))
