"""How many warps of a kernel a streaming multiprocessor (SM) holds at a time."""

from __future__ import annotations

import dataclasses

from polycomp.codegen.cuda.nvrtc import Resources
from polycomp.errors import TargetError

WARP = 32
"""Threads."""

_KB = 1024
_PARTITIONS = 4  # of an SM: each has a quarter of its registers, and holds a quarter of a block's warps


@dataclasses.dataclass(frozen=True)
class Limits:
    """What an SM holds and a block may have. Shared memory is in bytes, registers are of 32 bits.

    ``register_unit`` are the registers that a warp's are rounded up to, ``shared_unit`` the bytes that a block's shared
    memory is, of which the driver takes ``reserved_shared_bytes`` for itself.
    """

    threads: int
    blocks: int
    shared_bytes: int
    registers: int = 64 * _KB
    register_unit: int = 256
    shared_unit: int = 128
    reserved_shared_bytes: int = _KB
    block_threads: int = 1024
    thread_registers: int = 255

    @property
    def warps(self) -> int:
        return self.threads // WARP

    @property
    def block_shared_bytes(self) -> int:
        """The most that a block may ask for, static and dynamic."""
        return self.shared_bytes - self.reserved_shared_bytes


_AMPERE, _HOPPER = Limits(2048, 32, 164 * _KB), Limits(2048, 32, 228 * _KB)
_SMALL_AMPERE, _ADA = Limits(1536, 16, 100 * _KB), Limits(1536, 24, 100 * _KB)

_LIMITS = {
    "sm_80": _AMPERE,
    "sm_86": _SMALL_AMPERE,
    "sm_87": Limits(1536, 16, 164 * _KB),
    "sm_88": _SMALL_AMPERE,
    "sm_89": _ADA,
    "sm_90": _HOPPER,
    "sm_100": _HOPPER,
    "sm_103": _HOPPER,
    "sm_110": Limits(1536, 24, 228 * _KB),
    "sm_120": _ADA,
    "sm_121": _ADA,
}


def limits(arch: str) -> Limits:
    """Of ``sm_80``, ``sm_90a`` and the like.

    From the technical specifications per compute capability in NVIDIA's CUDA C++ programming guide, and the allocation
    units of the occupancy calculator. Raises :class:`TargetError` for an architecture that is not there.
    """
    found = _LIMITS.get(arch.removesuffix("a"))
    if found is None:
        raise TargetError(f"the limits of {arch!r} are not known; those of {', '.join(_LIMITS)} are")
    return found


def occupancy(resources: Resources, block: int, dynamic_shared: int, arch: str) -> float:
    """Warps that are resident at a time by the most that an SM holds: 0 for a launch that is refused, at most 1.

    ``block`` is in threads, at least 1; ``dynamic_shared`` is in bytes. The SM's memory is taken to be shared memory as
    far as it can, which the driver does for kernels that need it. Raises :class:`TargetError` as :func:`limits` does.
    """
    return resident_blocks(resources, block, dynamic_shared, arch) * _warps(block) / limits(arch).warps


def resident_blocks(resources: Resources, block: int, dynamic_shared: int, arch: str) -> int:
    """Blocks that an SM holds at a time, 0 for a launch that is refused; arguments as for :func:`occupancy`.

    The rules are those of NVIDIA's occupancy calculator (``cuda_occupancy.h`` in the CUDA toolkit): registers are
    allocated to warps, in units, from a quarter of the SM; shared memory is allocated to blocks, in units.
    """
    most = limits(arch)
    shared = resources.shared_bytes + dynamic_shared
    if block > most.block_threads or shared > most.block_shared_bytes or resources.registers > most.thread_registers:
        return 0
    by_warps = most.warps // _warps(block)
    by_shared = most.shared_bytes // _round_up(shared + most.reserved_shared_bytes, most.shared_unit)
    return min(most.blocks, by_warps, by_shared, _by_registers(resources.registers, block, most))


def _by_registers(registers: int, block: int, most: Limits) -> int:
    per_warp = _round_up(max(registers, 1) * WARP, most.register_unit)
    if per_warp * _round_up(_warps(block), _PARTITIONS) > most.registers:  # as the hardware checks a launch
        return 0
    return most.registers // _PARTITIONS // per_warp * _PARTITIONS // _warps(block)


def _warps(block: int) -> int:
    return -(-block // WARP)


def _round_up(value: int, unit: int) -> int:
    return -(-value // unit) * unit
