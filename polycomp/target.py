"""What a module is compiled for: a :class:`Target`, detected from this machine or named by the user."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
import pathlib
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from polycomp.errors import InputError, TargetError

ALIGNMENT = 64
"""Bytes. Arenas, weights, arrays and all that a kernel writes begin at a multiple of it: no store of a vector crosses a
cache line."""

CACHE_LINE_BYTES = 64

PAGE_BYTES = 4096
"""Of memory: addresses so far apart are in one set of a first-level cache."""

# Linux's /proc/cpuinfo flag -> LLVM feature. Only what codegen can use; a masked feature is absent from cpuinfo.
_X86_FEATURES = {
    "sse3": "sse3", "pni": "sse3", "ssse3": "ssse3", "sse4_1": "sse4.1", "sse4_2": "sse4.2", "popcnt": "popcnt",
    "avx": "avx", "avx2": "avx2", "fma": "fma", "f16c": "f16c", "bmi1": "bmi", "bmi2": "bmi2", "abm": "lzcnt",
    "movbe": "movbe", "avx512f": "avx512f", "avx512bw": "avx512bw", "avx512cd": "avx512cd", "avx512dq": "avx512dq",
    "avx512vl": "avx512vl", "avx512_vnni": "avx512vnni", "avx_vnni": "avxvnni", "avx512vbmi": "avx512vbmi",
    "avx512_bf16": "avx512bf16", "avx512_fp16": "avx512fp16",
}  # fmt: skip
_AVX512 = frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"})

_FMA_UNITS = 2  # of a core, each for vectors of its full width

# Cores that multiply and add one vector of 512 bits per cycle, for which they join their two units of 256 bits: vendor
# and family of /proc/cpuinfo, with the models (none: all of the family).
_ONE_FMA_OF_512_BITS: dict[tuple[str, int], tuple[int, ...]] = {
    ("AuthenticAMD", 25): (),  # Zen 4. Zen 3 has no such vectors, servers of Zen 5 (family 26) have two such units
    ("GenuineIntel", 6): (0x66, 0x7D, 0x7E, 0x8C, 0x8D, 0xA7),  # Cannon, Ice, Tiger and Rocket Lake of clients
}


@dataclasses.dataclass(frozen=True)
class Target:
    """A CPU or a GPU to compile for.

    ``features`` are LLVM feature names, sorted; ``vector_bytes`` is the width of one vector register and
    ``vector_registers`` their number; cache sizes are in bytes per core (L3: per socket); ``cores`` share the work;
    ``fma_units`` is how many vectors of the full width one core multiplies and adds per cycle.

    Of a GPU, ``features`` are the architectures that there is code for ("sm_80"), and ``cpu`` is the oldest of them;
    a vector is what one thread loads at once, ``cores`` are its multiprocessors, ``shared_bytes`` is the shared memory
    that one thread block may have, and the first-level cache is left out; ``tf32`` allows products of float32 on tensor
    cores, which round their operands to 10 bits of fraction; ``warpgroups`` allows products of warpgroups, which the
    one architecture of ``features`` must have.
    """

    kind: str  # "cpu" or "cuda"
    triple: str
    cpu: str
    features: tuple[str, ...]
    vector_bytes: int
    vector_registers: int
    l1_bytes: int = 32 * 1024
    l2_bytes: int = 512 * 1024
    l3_bytes: int = 8 * 1024 * 1024
    cores: int = 1
    fma_units: int = _FMA_UNITS
    shared_bytes: int = 0
    tf32: bool = False
    warpgroups: bool = False

    @property
    def is_gpu(self) -> bool:
        """Whether kernels are made of thread blocks."""
        return self.kind == "cuda"

    @property
    def arch(self) -> str:
        """``x86_64``, ``aarch64`` or ``cuda``."""
        return "cuda" if self.is_gpu else self.triple.split("-")[0]

    @property
    def dot_signs(self) -> str:
        """Which bytes the machine's dot product instruction multiplies: ``"mixed"`` (one operand unsigned, the other
        signed: VNNI), ``"same"`` (NEON's sdot and udot), or ``"any"`` where there is none."""
        if {"avx512vnni", "avxvnni"} & set(self.features):
            return "mixed"
        return "same" if "dotprod" in self.features else "any"

    def lanes(self, element_bytes: int) -> int:
        """Elements of ``element_bytes`` bytes in one vector register."""
        return max(1, self.vector_bytes // element_bytes)

    @property
    def special(self) -> tuple[Target, ...]:
        """One for each architecture of a GPU target with instructions of its own that kernels can make use of."""
        if self.warpgroups or WITH_WARPGROUPS not in self.features:
            return ()
        return (dataclasses.replace(cuda_target([WITH_WARPGROUPS], self.tf32), warpgroups=True, cores=132),)

    @property
    def key(self) -> str:
        """Text that is equal for two targets exactly when a kernel gets the same code for both."""
        caches = f"{self.l1_bytes}/{self.l2_bytes}/{self.l3_bytes}"
        text = f"{self.triple};{self.cpu};{','.join(self.features)};{caches};{self.cores}"
        return f"{text};{self.shared_bytes};{self.tf32};{self.warpgroups}" if self.is_gpu else text

    @property
    def module_key(self) -> str:
        """Text that is equal for two targets exactly when a model gets the same module for both: passes, which choose
        its kernels, look at ``fma_units``, and no kernel's schedule does."""
        return f"{self.key};{self.fma_units}"


def host_target() -> Target:
    """Describe the CPU this process runs on, as Linux reports it (so features masked by a hypervisor are absent)."""
    machine = platform.machine()
    if machine in ("aarch64", "arm64"):
        return _aarch64("generic")
    if machine not in ("x86_64", "AMD64"):
        raise TargetError(f"this machine's CPU {machine!r} is not supported; polycomp compiles for x86_64 and aarch64")
    return _x86_64(_cpuinfo_flags())


def parse_target(text: str) -> Target:
    """Turn ``--target``'s text into a Target: ``cpu`` (this machine), ``TRIPLE[,cpu=NAME][,features=a+b]``, or
    ``cuda[,arch=sm_80+sm_90a][,math=tf32]``."""
    if text == "cpu":
        return host_target()
    triple, *settings = text.split(",")
    if triple == "cuda":
        return _cuda(settings)
    arch = triple.split("-")[0]
    unknown = [s for s in settings if s.partition("=")[0] != _SETTINGS.get(arch)]
    if arch not in _SETTINGS or unknown:
        what = f"setting {unknown[0]!r}" if unknown and arch in _SETTINGS else f"target {text!r}"
        raise TargetError(
            f"{what} is unknown; use 'cpu' for this machine, 'cuda' for a GPU, or a triple such as "
            f"'x86_64-linux-gnu,features=avx2+fma' or 'aarch64-linux-gnu,cpu=cortex-a72'"
        )
    value = settings[-1].partition("=")[2] if settings else ""
    return _aarch64(_known_cpu(value or "generic")) if arch == "aarch64" else _x86_64(_flags(value or "avx2+fma"))


_CUDA_SHARED_BYTES = {"sm_80": 163 << 10, "sm_86": 99 << 10, "sm_87": 163 << 10, "sm_89": 99 << 10, "sm_90": 227 << 10,
    "sm_100": 227 << 10, "sm_103": 227 << 10, "sm_110": 227 << 10, "sm_120": 99 << 10, "sm_121": 99 << 10}  # fmt: skip
"""Bytes of shared memory that a thread block may have, by architecture ("CUDA C++ Programming Guide", compute
capabilities)."""

WITH_WARPGROUPS = "sm_90a"
"""The architecture whose warpgroups multiply together."""

CUDA_ARCHITECTURES = ("sm_80", "sm_90a")
"""What is compiled for when no architecture is named: data centres' GPUs; later ones have the PTX."""


def cuda_target(architectures: Sequence[str] = CUDA_ARCHITECTURES, tf32: bool = False) -> Target:
    """A GPU target with code for ``architectures`` ("sm_80", "sm_90a"). Raises :class:`TargetError` for others."""
    known = [a for a in architectures if a.rstrip("af") in _CUDA_SHARED_BYTES]
    unknown = [a for a in architectures if a not in known]
    if unknown or not known:
        raise TargetError(
            f"the CUDA architecture {(*unknown, '')[0]!r} is unknown or too old; there are "
            f"{', '.join(_CUDA_SHARED_BYTES)}, and some of them with an 'a'"
        )
    ordered = tuple(sorted(set(known), key=lambda a: (int(a.strip("sm_af")), a)))
    return Target(
        kind="cuda",
        triple="nvptx64-nvidia-cuda",
        cpu=ordered[0],
        features=ordered,
        vector_bytes=16,
        vector_registers=255,
        l1_bytes=0,
        l2_bytes=40 << 20,
        l3_bytes=0,
        cores=108,
        shared_bytes=min(_CUDA_SHARED_BYTES[a.rstrip("af")] for a in ordered),
        tf32=tf32,
    )


def _cuda(settings: Sequence[str]) -> Target:
    given = dict(s.partition("=")[::2] for s in settings)
    unknown = [s for s in settings if s.partition("=")[0] not in ("arch", "math")]
    unknown += [f"math={given['math']}"] if given.get("math", "tf32") not in ("tf32", "float32") else []
    if unknown or len(given) < len(settings):
        what = f"setting {unknown[0]!r} is unknown" if unknown else "a setting is given twice"
        raise TargetError(f"{what}; a GPU has 'arch' and 'math': 'cuda,arch=sm_80+sm_90a,math=tf32'")
    architectures = given["arch"].split("+") if "arch" in given else CUDA_ARCHITECTURES
    return cuda_target(architectures, given.get("math") == "tf32")


_X86_FLAGS = {feature: flag for flag, feature in _X86_FEATURES.items()}


_SETTINGS = {"x86_64": "features", "aarch64": "cpu"}
_ALWAYS = frozenset({"sse", "sse2"})  # every x86-64 CPU has them
_AARCH64_CPUS = (
    "generic", "a64fx", "ampere1", "apple-m1", "apple-m2", "apple-m3", "cortex-a35", "cortex-a53", "cortex-a55",
    "cortex-a57", "cortex-a72", "cortex-a73", "cortex-a75", "cortex-a76", "cortex-a77", "cortex-a78", "cortex-a710",
    "cortex-a715", "cortex-x1", "cortex-x2", "cortex-x3", "neoverse-n1", "neoverse-n2", "neoverse-v1", "neoverse-v2",
    "thunderx2t99",
)  # fmt: skip


_WITHOUT_DOTPROD = frozenset(["generic", "a64fx", "cortex-a35", "cortex-a53", "cortex-a57", "cortex-a72",
    "cortex-a73", "thunderx2t99"])  # fmt: skip


def _known_cpu(name: str) -> str:
    """Raises TargetError for a CPU that LLVM would ignore."""
    if name not in _AARCH64_CPUS:
        raise TargetError(f"the CPU {name!r} is unknown; there are {', '.join(_AARCH64_CPUS)}")
    return name


def _flags(text: str) -> frozenset[str]:
    """``avx2+fma`` as flags of cpuinfo. Raises TargetError for unknown ones, and for parts of AVX-512."""
    features = {f for f in text.split("+") if f} - _ALWAYS
    unknown = sorted(features - set(_X86_FLAGS))
    if unknown:
        raise TargetError(f"the CPU feature {unknown[0]!r} is unknown; there are {', '.join(sorted(_X86_FLAGS))}")
    wide = sorted(f for f in features if f.startswith("avx512"))
    if wide and not features >= _AVX512:
        raise TargetError(
            f"{wide[0]} is used only together with all of {'+'.join(sorted(_AVX512))}; add what is missing"
        )
    return frozenset(_X86_FLAGS[f] for f in features)


@functools.cache
def _cpuinfo() -> Mapping[str, str]:
    """What is said of the first CPU; the file has a section per CPU and is slow to read in full on a large machine."""
    try:
        with pathlib.Path("/proc/cpuinfo").open() as lines:
            pairs = [line.partition(":") for line in itertools.takewhile(str.strip, lines)]
    except OSError:
        return {}
    return {name.strip(): value.strip() for name, _, value in pairs}


def _cpuinfo_flags() -> frozenset[str]:
    return frozenset(_cpuinfo().get("flags", "").split())


def fma_units(cpuinfo: Mapping[str, str], vector_bytes: int) -> int:
    """Vectors that a core multiplies and adds per cycle, by what Linux says of it."""
    try:
        kind, model = (cpuinfo["vendor_id"], int(cpuinfo["cpu family"])), int(cpuinfo["model"])
    except (KeyError, ValueError):  # another architecture or system
        return _FMA_UNITS
    models = _ONE_FMA_OF_512_BITS.get(kind)
    halves = vector_bytes == 64 and models is not None and (not models or model in models)
    return 1 if halves else _FMA_UNITS


def host_features() -> frozenset[str]:
    """LLVM names of the features that this machine's CPU has, among those that polycomp uses."""
    if platform.machine() in ("aarch64", "arm64"):
        return frozenset(_aarch64("generic").features)
    return frozenset(_X86_FEATURES[f] for f in _cpuinfo_flags() if f in _X86_FEATURES)


def _x86_64(flags: frozenset[str]) -> Target:
    features = {_X86_FEATURES[f] for f in flags if f in _X86_FEATURES}
    if not features >= _AVX512:
        features = {f for f in features if not f.startswith("avx512")}
    wide = "avx512f" in features
    vector_bytes = 64 if wide else 32 if "avx2" in features else 16
    return Target(
        kind="cpu",
        triple="x86_64-unknown-linux-gnu",
        cpu="x86-64",
        features=tuple(sorted(features)),
        vector_bytes=vector_bytes,
        vector_registers=32 if wide else 16,
        cores=available_cores(),
        fma_units=fma_units(_cpuinfo(), vector_bytes),
        **_cache_sizes(),
    )


def _aarch64(cpu: str) -> Target:
    return Target(
        kind="cpu",
        triple="aarch64-unknown-linux-gnu",
        cpu=cpu,
        features=("neon",) if cpu in _WITHOUT_DOTPROD else ("dotprod", "neon"),
        vector_bytes=16,
        vector_registers=32,
        cores=available_cores(),
    )


def check_threads(threads: object) -> None:
    """Raise :class:`InputError` for what is no number of threads, of which 0 means as many as there are cores."""
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 0:
        raise InputError(f"threads is {threads!r}; give a positive int, or 0 for all cores")


def available_cores() -> int:
    """Cores that this process may use: the affinity mask, cut by the cgroup's CPU quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_cpu_quota()
    return max(1, min(cores, quota) if quota else cores)


def _cgroup_cpu_quota() -> int | None:
    """CPUs granted by cgroup v2's ``cpu.max`` or v1's CFS quota, rounded up; None when there is no limit."""
    try:
        quota, period = pathlib.Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            folder = pathlib.Path("/sys/fs/cgroup/cpu")
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if not quota.isdigit() or not period.isdigit() or int(period) == 0:
        return None
    return -(-int(quota) // int(period))


def _cache_sizes() -> dict[str, Any]:
    """Data cache sizes of CPU 0 in bytes, as sysfs gives them; absent levels keep the Target's defaults."""
    sizes: dict[str, int] = {}
    for index in pathlib.Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        try:
            level, kind = (index / "level").read_text().strip(), (index / "type").read_text().strip()
            text = (index / "size").read_text().strip()
        except OSError:
            continue
        if kind != "Instruction" and text.endswith("K"):
            sizes[f"l{level}_bytes"] = int(text[:-1]) * 1024
    return {k: v for k, v in sizes.items() if k in ("l1_bytes", "l2_bytes", "l3_bytes")}
