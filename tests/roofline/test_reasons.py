"""Which roof a kernel is under, and what its loops tell."""

from __future__ import annotations

import dataclasses

import pytest

from polycomp import te
from polycomp.expr import Var, unary
from polycomp.loops import lower_kernel
from polycomp.roofline.reasons import Point, efficiency, reasons
from polycomp.roofline.roofs import Roofs, measure_roofs, memory_bytes
from polycomp.roofline.traits import Traits, traits_of
from polycomp.schedules import Schedule
from polycomp.target import host_target

ROOFS = Roofs(threads=2, gflops=100.0, memory=10.0, cache=50.0, fork_ns=1000.0, call_ns=100.0, memory_bytes=1 << 20)
FINE = Traits(operations=64.0, vector=64.0, slots=64.0, accesses=8.0, parallel=2)


def point(nanoseconds: float, flops: int, moved: int, traits: Traits | None = FINE) -> Point:
    return Point("kernel_0", ("node",), nanoseconds, flops, moved, traits)


@pytest.mark.parametrize(
    ("measured", "share", "reason"),
    [
        (point(1e6, 80_000_000, 1_000_000), 0.8, "compute-bound: 80% of the peak"),
        (point(1e6, 5_000_000, 9_000_000), 0.9, "memory-bound: 90% of the memory's bandwidth"),
        (point(1e6, 5_000_000, 40_000_000), 0.8, "cache-bound: 80% of the second-level cache's bandwidth"),
        (point(2000, 100, 100), 0.005, "too small: calling it and sharing it out to threads takes 1.1 of its 2 µs"),
        (point(1e6, 1_000_000, 1_000_000), 0.1, "not explained: 1% of the peak and 10% of the memory's bandwidth"),
    ],
)
def test_the_nearest_roof(measured: Point, share: float, reason: str) -> None:
    assert efficiency(measured, ROOFS) == pytest.approx(share, rel=0.01)
    assert reasons(measured, ROOFS) == [reason]


def test_a_part_of_the_inputs_is_no_bandwidth() -> None:
    found = reasons(point(1e6, 1000, 200_000_000), ROOFS)
    assert found == ["reads a part of its inputs only: 200 GB/s for all of them are more than the caches deliver"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"parallel": 0}, "runs on one of 2 threads: it has no parallel loop"),
        ({"parallel": 3}, "uneven: 3 iterations on 2 threads keep 75% of them busy"),
        ({"scattered": 4.0}, "element by element: 50% of its vector accesses are not to neighbouring elements"),
        ({"vector": 32.0, "slots": 32.0}, "scalar: 50% of its operations are not in vectors"),
        ({"slots": 256.0}, "low vector efficiency: 25% of the lanes are used"),
        (
            {"elementary": 16.0},
            "elementary functions: 25% of its operations take many instructions (exponentials and the like)",
        ),
    ],
)
def test_what_the_loops_tell(change: dict[str, float], reason: str) -> None:
    traits = dataclasses.replace(FINE, **change)  # type: ignore[arg-type]
    assert reasons(point(1e6, 1_000_000, 1_000_000, traits), ROOFS) == [reason]


def test_a_module_file_says_less() -> None:
    (found,) = reasons(point(1e6, 1_000_000, 1_000_000, None), ROOFS)
    assert found.endswith("(the ONNX file tells more: its loops are known)")


def traits(schedule: Schedule, sizes: dict[Var, int] | None = None) -> Traits:
    return traits_of(lower_kernel(schedule.kernel), sizes or {}, lanes=8)


def test_traits_of_vectors_along_memory() -> None:
    x = te.placeholder((6, 20), name="x")
    schedule = Schedule(te.compute((6, 20), lambda i, j: unary("exp", x[i, j]) * 2.0, "y"))
    i, j = schedule["y"].loops
    schedule.parallel(i)
    schedule.vectorize(j)
    found = traits(schedule)
    assert (found.operations, found.vector, found.elementary, found.parallel) == (240.0, 240.0, 120.0, 6)
    assert (found.scattered_share, found.lanes_used) == (0.0, pytest.approx(20 / 24))


def test_traits_of_a_transposition() -> None:
    x = te.placeholder((16, 24), name="x")
    schedule = Schedule(te.compute((24, 16), lambda i, j: x[j, i] + 1.0, "y"))
    schedule.vectorize(schedule["y"].loops[1])
    assert traits(schedule).scattered_share == 0.5


def test_traits_of_panels_are_neighbours() -> None:
    x = te.placeholder((4, 16, 8), name="x")
    schedule = Schedule(te.compute((16, 32), lambda i, j: x[j // 8, i, j % 8] + 1.0, "y"))
    _, inner = schedule.split(schedule["y"].loops[1], 8)
    schedule.vectorize(inner)
    assert traits(schedule).scattered_share == 0.0


def test_traits_of_scalar_code_and_open_sizes() -> None:
    n = Var("n")
    x = te.placeholder((n, 4), name="x")
    schedule = Schedule(te.compute((n, 4), lambda i, j: x[i, j] * 2.0 + 1.0, "y"))
    found = traits(schedule, {n: 10})
    assert (found.operations, found.vector_share, found.accesses) == (80.0, 0.0, 0.0)


def test_roofs_of_this_machine() -> None:
    target = dataclasses.replace(host_target(), l3_bytes=0)
    roofs = measure_roofs(target, 2)
    assert roofs.memory_bytes == memory_bytes(target) == 64 << 20
    assert min(roofs.gflops, roofs.memory, roofs.cache, roofs.fork_ns, roofs.call_ns) > 0
