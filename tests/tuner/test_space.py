"""The space of a kernel: points, resource formulas, features."""

from __future__ import annotations

import dataclasses
import random

import planted
import pytest

from polycomp import te
from polycomp.decisions import Decisions
from polycomp.errors import HopelessScheduleError
from polycomp.poly.tree import Scope
from polycomp.schedules import Schedule
from polycomp.target import Target, host_target
from polycomp.tuner.choosers import Inherited, Smallest
from polycomp.tuner.pruning import check_resources
from polycomp.tuner.space import Space

TARGET = Target("cpu", "x86_64-unknown-linux-gnu", "x86-64", (), vector_bytes=16, vector_registers=16)


def tiled(rows: int, columns: int) -> Schedule:
    """A product whose sums are a tile in registers, unrolled."""
    a, b = te.placeholder((1024, 8), name="a"), te.placeholder((8, 1024), name="b")
    k = te.reduce_axis(8, "k")
    schedule = Schedule(te.compute((1024, 1024), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), "c"), check=False)
    (c,) = schedule.kernel.outputs
    sums = schedule.cache_write(c)
    i, j = schedule[c].loops
    io, ii = schedule.split(i, rows)
    jo, ji = schedule.split(j, columns)
    schedule.reorder(io, jo, ii, ji)
    *tile, _ = schedule.compute_at(sums, jo, Scope.REGISTER)
    for loop in tile:
        schedule.unroll(loop)
    return schedule


def test_a_tile_that_fits_the_registers() -> None:
    check_resources(tiled(4, 12), TARGET)


def test_a_tile_of_too_many_registers() -> None:
    with pytest.raises(HopelessScheduleError, match="takes 64 registers"):
        check_resources(tiled(16, 16), TARGET)


def test_code_without_end() -> None:
    wide = dataclasses.replace(TARGET, vector_registers=10**6)
    with pytest.raises(HopelessScheduleError, match="unrolling makes 16384 copies of c"):
        check_resources(tiled(128, 128), wide)


def test_private_memory_that_no_cache_holds() -> None:
    x = te.placeholder((64, 1 << 20), name="x")
    y = te.compute((64, 1 << 20), lambda i, j: x[i, j] * 2.0, "y")
    schedule = Schedule(te.compute((64, 1 << 20), lambda i, j: y[i, (1 << 20) - 1 - j], "z"))
    i, _ = schedule["z"].loops
    schedule.compute_at("y", i)
    check_resources(schedule, dataclasses.replace(TARGET, l2_bytes=4 << 20))
    schedule.parallel(schedule["z"].loops[0])
    with pytest.raises(HopelessScheduleError, match="y takes 4194304 bytes of each thread"):
        check_resources(schedule, dataclasses.replace(TARGET, l2_bytes=1 << 20, l3_bytes=1 << 20))


def test_a_point_is_what_its_decisions_say() -> None:
    space = Space(planted.product())
    for seed in range(5):
        point = space.at_random(random.Random(seed))
        assert point is not None
        again = space.draw(point.decisions)
        assert again is not None
        assert (again.loops, again.decisions) == (point.loops, point.decisions)


def test_a_child_has_what_its_parents_have_but_for_what_varies() -> None:
    space = Space(planted.product())
    parent = dict(space.own.decisions.values)
    child = space.draw(Inherited(random.Random(0), [parent], ["t2.tile"]))
    assert child is not None
    assert child.decisions.get("t2.tile") != parent["t2.tile"]
    assert child.decisions.get("t2.prefetch") == parent["t2.prefetch"]


def test_the_naive_schedule_is_naive() -> None:
    space = Space(planted.product())
    naive = space.naive()
    assert naive.decisions.get("t2.tile") == (1, 1, 1)
    assert naive.decisions.get("t2.pack") is False
    assert Smallest().choose("order", "b", ["b", "a"]) == "a"


def test_features_tell_tiles_apart() -> None:
    workload = planted.product(96, 128, 64)
    lanes = host_target().lanes(4)
    tall, wide = (Space(workload).draw(Decisions().replace(planted.TILE, (1, rows, 2))) for rows in (1, 8))
    assert tall is not None and wide is not None
    assert tall.features["unrolled"] == 0.0
    assert wide.features["unrolled"] == 3.0
    assert tall.features["vectors"] == wide.features["vectors"] == 2.0
    assert tall.features["loads_per_step"] == pytest.approx(1 + 1 / (2 * lanes))
    assert wide.features["loads_per_step"] == pytest.approx(1 / 8 + 1 / (2 * lanes))
