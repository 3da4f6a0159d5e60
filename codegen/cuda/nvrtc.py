"""CUDA C++ to machine code by NVRTC, NVIDIA's compiler as a library: it needs neither a GPU nor a CUDA toolkit.

Nothing is kept from one call to the next: polycomp's driver caches compiled kernels whole (``driver/cache.py``,
``driver/kernels.py``), and NVRTC's own cache on disk is switched off, because what comes from it has no report of the
resources that functions use. NVRTC compiles for one architecture at a time from source, front end included.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import functools
import importlib.util
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from polycomp.codegen.elf import format as elf
from polycomp.errors import CompileError, TargetError

OLDEST = 80
"""Ten times the oldest compute capability that polycomp compiles for: Ampere's."""

_ACCELERATED = 90  # since this compute capability there are architectures with the suffix "a"
_LAYOUTS = ("cu13/lib", "cuda_nvrtc/lib")  # in the folder "nvidia", of the wheels for CUDA 13 and 12
_SYSTEM = ("libnvrtc.so.13", "libnvrtc.so.12")

# Rounding is IEEE's and denormals stay, as on a CPU; products and sums are contracted, as they are there.
_OPTIONS = (
    "--std=c++17", "--device-as-default-execution-space", "--ftz=false", "--fmad=true", "--prec-div=true",
    "--prec-sqrt=true", "--ptxas-options=-v", "--disable-warnings",
)  # fmt: skip

# Options of later versions than 12.0. Without textures and the runtime's types the front end takes half as long.
_OPTIONS_SINCE = {(12, 4): "--minimal", (12, 9): "--no-cache"}


@dataclasses.dataclass(frozen=True)
class Resources:
    """What one function takes: registers per thread, shared memory per block, and bytes of local memory per thread.

    ``shared_bytes`` is static shared memory without what the driver adds to it; ``stack_bytes`` has local arrays and
    spilt registers; of the spills the bytes that all instructions for them store and load are counted.
    ``constant_bytes`` are parameters and literals.
    """

    registers: int
    shared_bytes: int
    stack_bytes: int
    spill_store_bytes: int
    spill_load_bytes: int
    constant_bytes: int


@dataclasses.dataclass(frozen=True)
class DeviceCode:
    """Machine code by architecture, and PTX (text that ends with a NUL) that later GPUs' drivers compile.

    ``resources`` are by architecture and name of the function.
    """

    cubins: Mapping[str, bytes]
    ptx: bytes
    resources: Mapping[str, Mapping[str, Resources]]


@dataclasses.dataclass(frozen=True, eq=False)
class _Nvrtc:
    """The loaded library. ``capabilities`` are ten times the compute capabilities that it compiles for, ascending."""

    library: Any
    version: tuple[int, int]
    capabilities: tuple[int, ...]

    @property
    def options(self) -> tuple[str, ...]:
        return (*_OPTIONS, *(option for since, option in _OPTIONS_SINCE.items() if self.version >= since))

    def call(self, function: str, *arguments: Any) -> None:
        """Call what fails only when NVRTC itself is broken."""
        status = getattr(self.library, function)(*arguments)
        if status:
            raise CompileError(f"NVRTC's {function} fails with {self.status_text(status)}")

    def status_text(self, status: int) -> str:
        return str(self.library.nvrtcGetErrorString(status).decode())

    def result(self, kind: str, program: ctypes.c_void_p) -> bytes:
        """What NVRTC made of a program: its ``ProgramLog``, ``CUBIN`` or ``PTX``."""
        size = ctypes.c_size_t()
        self.call(f"nvrtcGet{kind}Size", program, ctypes.byref(size))
        content = ctypes.create_string_buffer(size.value)
        self.call(f"nvrtcGet{kind}", program, content)
        return content.raw


@dataclasses.dataclass(frozen=True)
class _Program:
    cubin: bytes
    ptx: bytes
    resources: Mapping[str, Resources]


def compile_source(source: str, name: str, archs: Sequence[str], ptx: str = "") -> DeviceCode:
    """Compile the kernel ``name`` for each of ``archs`` (``sm_80``, ``sm_90a``), and to PTX for the architecture
    ``ptx``, their :func:`ptx_arch` if it is empty.

    Functions that are to be found by their names must be ``extern "C"``. The code is the same for the same arguments
    and version of NVRTC, whatever ``name``. Raises :class:`TargetError` without NVRTC and for architectures that it
    does not compile for, and :class:`CompileError` when it rejects the source.
    """
    nvrtc = _nvrtc()
    _check([*archs, *[ptx] * bool(ptx)], nvrtc)
    ptx = ptx or ptx_arch(archs)
    programs = {arch: _compile(nvrtc, source, name, arch) for arch in dict.fromkeys([*archs, ptx])}
    return DeviceCode(
        {arch: programs[arch].cubin for arch in archs},
        programs[ptx].ptx,
        {arch: programs[arch].resources for arch in archs},
    )


def ptx_arch(archs: Sequence[str]) -> str:
    """The architecture whose PTX goes with code for ``archs``; all GPUs that are not older run it.

    That is the newest one without the suffix "a", because what has it runs on no other GPU. It is compiled to machine
    code too, which shows instructions that are not there without the "a": PTX alone is not looked at.
    """
    portable = [arch for arch in archs if not arch.endswith("a")]
    return max(portable or [arch[:-1] for arch in archs], key=_capability)


def nvrtc_version() -> tuple[int, int]:
    """Major and minor version. Raises :class:`TargetError` when there is no NVRTC."""
    return _nvrtc().version


def supported_archs() -> tuple[str, ...]:
    """The architectures that :func:`compile_source` takes. Raises :class:`TargetError` when there is no NVRTC."""
    return _names(_nvrtc().capabilities)


def find_nvrtc() -> str | None:
    """Where NVRTC is: the path in an installed wheel, else the name by which the system finds it, else None."""
    return next(map(str, _wheel_libraries()), None) or next(filter(_loads, _SYSTEM), None)


def _wheel_libraries() -> Iterator[pathlib.Path]:
    """The wheels share the folder "nvidia", which is no package of its own and may be in several places."""
    spec = importlib.util.find_spec("nvidia")
    folders = spec.submodule_search_locations if spec is not None else None
    for layout in _LAYOUTS:
        for folder in folders or ():
            yield from sorted((pathlib.Path(folder) / layout).glob("libnvrtc.so.*"))


def _loads(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


@functools.cache
def _nvrtc() -> _Nvrtc:
    path = find_nvrtc()
    if path is None:
        raise TargetError(
            f"CUDA kernels are compiled by NVRTC ({' or '.join(_SYSTEM)}), which is not installed; "
            f"use pip install 'polycomp[cuda]'"
        )
    try:
        library = _load(path)
        version = _version(library)
        return _Nvrtc(library, version, _capabilities(library))
    except (OSError, AttributeError) as error:
        raise TargetError(f"NVRTC cannot be loaded, install it anew: {error}") from error


def _load(path: str) -> ctypes.CDLL:
    """NVRTC opens its builtins by name alone, so outside of the system's folders they must be there already."""
    if path not in _SYSTEM:
        for builtins in sorted(pathlib.Path(path).parent.glob("libnvrtc-builtins.so.*")):
            ctypes.CDLL(str(builtins))
    library = ctypes.CDLL(path)
    library.nvrtcGetErrorString.restype = ctypes.c_char_p
    return library


def _version(library: ctypes.CDLL) -> tuple[int, int]:
    major, minor = ctypes.c_int(), ctypes.c_int()
    library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return major.value, minor.value


def _capabilities(library: ctypes.CDLL) -> tuple[int, ...]:
    count = ctypes.c_int()
    library.nvrtcGetNumSupportedArchs(ctypes.byref(count))
    found = (ctypes.c_int * count.value)()
    library.nvrtcGetSupportedArchs(found)
    return tuple(capability for capability in found if capability >= OLDEST)


def _capability(arch: str) -> int:
    return int(arch.removeprefix("sm_").removesuffix("a"))


def _names(capabilities: Sequence[int]) -> tuple[str, ...]:
    suffixes = [(c, suffix) for c in capabilities for suffix in ("", "a") if not suffix or c >= _ACCELERATED]
    return tuple(f"sm_{capability}{suffix}" for capability, suffix in suffixes)


def _check(archs: Sequence[str], nvrtc: _Nvrtc) -> None:
    known = _names(nvrtc.capabilities)
    unknown = [repr(arch) for arch in archs if arch not in known]
    if unknown or not archs:
        version = ".".join(map(str, nvrtc.version))
        what = f"cannot be compiled for {', '.join(unknown)}" if unknown else "need an architecture"
        raise TargetError(f"CUDA kernels {what}; NVRTC {version} has {', '.join(known)}")


def _compile(nvrtc: _Nvrtc, source: str, name: str, arch: str) -> _Program:
    options = [option.encode() for option in (f"--gpu-architecture={arch}", *nvrtc.options)]
    with _program(nvrtc, source, name) as program:
        status = nvrtc.library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
        log = nvrtc.result("ProgramLog", program).rstrip(b"\0").decode(errors="replace")
        if status:
            reason = _first_error(log, source) or nvrtc.status_text(status)
            raise CompileError(f"NVRTC rejects the code generated for the kernel {name!r} ({arch}): {reason}")
        cubin = nvrtc.result("CUBIN", program)
        return _Program(cubin, nvrtc.result("PTX", program), _resources(log, cubin))


@contextlib.contextmanager
def _program(nvrtc: _Nvrtc, source: str, name: str) -> Iterator[ctypes.c_void_p]:
    program = ctypes.c_void_p()
    nvrtc.call("nvrtcCreateProgram", ctypes.byref(program), source.encode(), name.encode(), 0, None, None)
    try:
        yield program
    finally:
        nvrtc.library.nvrtcDestroyProgram(ctypes.byref(program))


# Of the front end, with the line of the source, or of the assembler, whose lines are those of the PTX.
_ERROR = re.compile(r"(?:\((?P<line>\d+)\): )?(?:catastrophic )?\b(?:error|fatal)\b[^:\n]*: (?P<text>.*)")


def _first_error(log: str, source: str) -> str:
    """The first error of a log and the line of the source that it is about; empty when the log has none."""
    found = _ERROR.search(log)
    if found is None:
        return ""
    text, line = found["text"].strip(), int(found["line"] or 0)
    lines = source.splitlines()[line - 1 : line] if line else []
    return f"{text}, in line {line}: {lines[0].strip()}" if lines else text


# The assembler's report begins anew with each kernel, and has the functions that it calls after itself.
_KERNEL = re.compile(r"^.*Compiling entry function '(\w+)' for .*$", re.MULTILINE)


def _resources(log: str, cubin: bytes) -> dict[str, Resources]:
    """What the assembler reports of each kernel, in the order of their names.

    It is silent about constants since compute capability 9.0; for them the cubin's sections are looked at.
    """
    parts = _KERNEL.split(log)
    reports, sections = dict(zip(parts[1::2], parts[2::2], strict=True)), _section_sizes(cubin)
    return {name: _of_kernel(reports[name], _constants(sections, name)) for name in sorted(reports)}


def _of_kernel(report: str, constant_bytes: int) -> Resources:
    return Resources(
        registers=_total(report, r"Used (\d+) registers"),
        shared_bytes=_total(report, r"(\d+) bytes smem"),
        stack_bytes=_total(report, r"(\d+) bytes cumulative stack") or _total(report, r"(\d+) bytes stack frame"),
        spill_store_bytes=_total(report, r"(\d+) bytes spill stores"),
        spill_load_bytes=_total(report, r"(\d+) bytes spill loads"),
        constant_bytes=constant_bytes,
    )


def _total(report: str, pattern: str) -> int:
    return sum(map(int, re.findall(pattern, report)))


def _constants(sections: Mapping[str, int], name: str) -> int:
    """A kernel's constants are in sections ``.nv.constant0.NAME``, ``.nv.constant2.NAME``, by their bank."""
    return sum(sections.get(f".nv.constant{bank}.{name}", 0) for bank in range(8))


def _section_sizes(cubin: bytes) -> dict[str, int]:
    """A cubin is an ELF file."""
    view = memoryview(cubin)
    header = elf.FileHeader.unpack(view)
    places = range(header.section_offset, len(view), elf.SECTION_HEADER_BYTES)[: header.n_sections]
    sections = [elf.SectionHeader.unpack(view, place) for place in places]
    names = sections[header.names_section].offset
    return {cubin[names + s.name : cubin.index(b"\0", names + s.name)].decode(): s.size for s in sections}
