"""Why a kernel is as slow as it is: its time against each roof, then against what is known of its loops."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

from polycomp.roofline.roofs import Roofs
from polycomp.roofline.traits import Traits

PEAK, MEMORY, CACHE = "the peak", "the memory's bandwidth", "the second-level cache's bandwidth"
_BOUND = {PEAK: "compute-bound", MEMORY: "memory-bound", CACHE: "cache-bound"}

_AT_THE_ROOF = 0.7  # of a roof: what is left is not worth a reason of its own
_NEAR_THE_ROOF = 0.4
_MOSTLY_OVERHEAD = 0.4
_MANY_SCATTERED = 0.1
_FEW_VECTORS = 0.8
_FEW_LANES = 0.8
_UNEVEN = 0.85
_MANY_ELEMENTARY = 0.05


@dataclasses.dataclass(frozen=True)
class Point:
    """A kernel call as measured: ``nanoseconds`` is the median of some runs, ``flops`` and ``bytes`` are its least work
    (every input read and every output written once). ``traits`` are missing where only the module file is known."""

    symbol: str
    sources: tuple[str, ...]
    nanoseconds: float
    flops: int
    bytes: int
    traits: Traits | None = None

    @property
    def gflops(self) -> float:
        return self.flops / self.nanoseconds

    @property
    def gbps(self) -> float:
        return self.bytes / self.nanoseconds

    @property
    def intensity(self) -> float:
        """FLOPs per byte."""
        return self.flops / self.bytes if self.bytes else math.inf


def shares(point: Point, roofs: Roofs) -> dict[str, float]:
    """What parts of the peak and of the bandwidth the kernel reaches. Faster than memory, its data is in the caches:
    then it is the second-level cache's bandwidth that counts."""
    cached = point.gbps > roofs.memory
    name, bandwidth = (CACHE, roofs.cache) if cached else (MEMORY, roofs.memory)
    return {PEAK: point.gflops / roofs.gflops, name: point.gbps / bandwidth}


def efficiency(point: Point, roofs: Roofs) -> float:
    """The part that the kernel reaches of the roof that is nearest to it."""
    return max(shares(point, roofs).values())


def reasons(point: Point, roofs: Roofs) -> list[str]:
    """What keeps the kernel from being faster, the weightiest first, in words with figures."""
    found = [*_overhead(point, roofs)]
    if found:
        return found
    bound = _bound(point, roofs)
    if bound and efficiency(point, roofs) >= _AT_THE_ROOF:
        return [bound]
    found = [*_of_loops(point, roofs)]
    if bound:
        found.insert(0, bound)
    return found or [_unexplained(point, roofs)]


def _overhead(point: Point, roofs: Roofs) -> Iterator[str]:
    shared = point.traits is None or point.traits.parallel > 1
    fixed = roofs.call_ns + (roofs.fork_ns if shared else 0.0)
    if fixed >= _MOSTLY_OVERHEAD * point.nanoseconds:
        what = "calling it and sharing it out to threads" if shared and roofs.threads > 1 else "calling it"
        yield f"too small: {what} takes {fixed / 1e3:.2g} of its {point.nanoseconds / 1e3:.2g} µs"


def _bound(point: Point, roofs: Roofs) -> str:
    """Which roof it is near to, if it is near to one."""
    reached = shares(point, roofs)
    roof = max(reached, key=reached.__getitem__)
    if roof == CACHE and reached[roof] > 1:
        return (
            f"reads a part of its inputs only: {point.gbps:.0f} GB/s for all of them are more than the caches deliver"
        )
    return f"{_BOUND[roof]}: {reached[roof]:.0%} of {roof}" if reached[roof] >= _NEAR_THE_ROOF else ""


def _of_loops(point: Point, roofs: Roofs) -> Iterator[str]:
    traits = point.traits
    if traits is None:
        return
    if roofs.threads > 1 and traits.parallel <= 1:
        yield f"runs on one of {roofs.threads} threads: it has no parallel loop"
    elif roofs.threads > 1 and (even := _evenness(traits.parallel, roofs.threads)) < _UNEVEN:
        yield f"uneven: {traits.parallel} iterations on {roofs.threads} threads keep {even:.0%} of them busy"
    if traits.scattered_share >= _MANY_SCATTERED:
        kind = "transposition" if not point.flops else "element by element"
        yield f"{kind}: {traits.scattered_share:.0%} of its vector accesses are not to neighbouring elements"
    if traits.vector_share < _FEW_VECTORS:
        yield f"scalar: {1 - traits.vector_share:.0%} of its operations are not in vectors"
    if traits.lanes_used < _FEW_LANES:
        yield f"low vector efficiency: {traits.lanes_used:.0%} of the lanes are used"
    if traits.operations and traits.elementary / traits.operations >= _MANY_ELEMENTARY:
        share = traits.elementary / traits.operations
        yield f"elementary functions: {share:.0%} of its operations take many instructions (exponentials and the like)"


def _evenness(iterations: int, threads: int) -> float:
    return iterations / (math.ceil(iterations / threads) * threads)


def _unexplained(point: Point, roofs: Roofs) -> str:
    reached = " and ".join(f"{share:.0%} of {roof}" for roof, share in shares(point, roofs).items())
    more = "" if point.traits is not None else " (the ONNX file tells more: its loops are known)"
    return f"not explained: {reached}{more}"
