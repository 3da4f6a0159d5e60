"""Hints to memory: which lines a loop asks for."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from polycomp import te
from polycomp.expr import Var
from polycomp.loops import For, Let, Prefetch, Stmt, lower_kernel
from polycomp.loops.visit import inner
from polycomp.schedules.schedule import LoopRef, Schedule
from polycomp.te.evaluate import evaluate_dim

PANELS, STEPS, WIDTH = 3, 8, 32
LINE = 16  # elements


def product(rows: te.Dim) -> tuple[Schedule, tuple[LoopRef, ...]]:
    """[rows, 8] times panels [3, 8, 32]: column, row and step loops around the vector."""
    a, b = te.placeholder((rows, STEPS), name="a"), te.placeholder((PANELS, STEPS, WIDTH), name="b")
    k = te.reduce_axis(STEPS, "k")
    c = te.compute((rows, PANELS * WIDTH), lambda m, n: te.sum(a[m, k] * b[n // WIDTH, k, n % WIDTH], k), "c")
    s = Schedule(c, [a, b], {v: (1, 64) for v in [rows] if isinstance(v, Var)})
    m, n, step = s[c].loops
    column, lane = s.split(n, WIDTH)
    s.reorder(column, m, step, lane)
    return s, (column, m, step)


def asked(schedule: Schedule, sizes: Mapping[Var, int] | None = None) -> dict[int, list[int]]:
    """The lines of ``b`` that each column's iterations ask for, by column."""
    found: dict[int, list[int]] = {}

    def visit(stmt: Stmt, values: dict[Var, int], column: int | None) -> None:
        if isinstance(stmt, Prefetch):
            panel, step, element = (evaluate_dim(i, values) for i in stmt.indices)
            assert not stmt.near
            found.setdefault(column or 0, []).append((panel * STEPS + step) * WIDTH // LINE + element // LINE)
        elif isinstance(stmt, For):
            start, stop = evaluate_dim(stmt.start, values), evaluate_dim(stmt.stop, values)
            for i in range(start, stop):
                visit(stmt.body, values | {stmt.var: i}, i if column is None else column)
        else:
            bound = {stmt.var: evaluate_dim(stmt.value, values)} if isinstance(stmt, Let) else {}
            for child in inner(stmt):
                visit(child, values | bound, column)

    visit(lower_kernel(schedule.kernel).body, dict(sizes or {}), None)
    return found


def next_panel(column: int) -> set[int]:
    lines = STEPS * WIDTH // LINE
    return set(range((column + 1) * lines, (column + 2) * lines))


@pytest.mark.parametrize("rows", [1, 2, 3, 5])
def test_the_tiles_of_a_column_ask_for_the_next_panel_once(rows: int) -> None:
    s, (column, _, step) = product(rows)
    s.prefetch("b", step, 1, around=column)
    lines = asked(s)
    assert set(lines) == set(range(PANELS))
    for number, found in lines.items():
        assert set(found) == next_panel(number)
        assert len(set(found[:LINE])) == LINE  # those that are left over ask for the last line again


@pytest.mark.parametrize("rows", [2, 3])
def test_iterations_of_a_fused_loop_share(rows: int) -> None:
    s, (column, row, step) = product(rows)
    fused = s.fuse(column, row)
    s.prefetch("b", step, rows, around=fused)
    lines = asked(s)
    for number in range(PANELS):
        shares = [line for i in range(rows) for line in lines[number * rows + i]]
        assert set(shares) == next_panel(number)


def test_an_unknown_number_of_rows_counts_as_eight() -> None:
    rows = Var("m")
    s, (column, _, step) = product(rows)
    s.prefetch("b", step, 1, around=column)
    assert asked(s, {rows: 8})[0] == [min(16 + i, 31) for i in range(64)]


def test_a_box_that_is_no_piece_of_memory_is_not_asked_for() -> None:
    b = te.placeholder((4, 64), name="b")
    s = Schedule(te.compute((2, 4, 32), lambda t, i, j: b[i, t * 32 + j], "w"), [b])
    half, _, element = s["w"].loops
    s.prefetch("b", element, 1, around=half)
    assert asked(s) == {}


def in_order(schedule: Schedule) -> list[int]:
    return [line for lines in asked(schedule).values() for line in lines]


@pytest.mark.parametrize(("loop", "factor"), [(0, 3), (0, 1), (1, 2), (2, 4), (2, 8)])
def test_splitting_its_loops_changes_nothing(loop: int, factor: int) -> None:
    (s, loops), (changed, others) = product(4), product(4)
    s.prefetch("b", loops[2], 1, around=loops[0])
    changed.prefetch("b", others[2], 1, around=others[0])
    changed.split(others[loop], factor)
    assert in_order(changed) == in_order(s)


def test_fusing_its_loops_is_fusing_them_before_and_splitting_takes_it_back() -> None:
    (s, (column, _, step)), (fused, (a, b, c)), (split, (d, e, f)) = product(3), product(3), product(3)
    s.prefetch("b", step, 1, around=column)
    fused.prefetch("b", c, 3, around=fused.fuse(a, b))
    split.prefetch("b", f, 1, around=d)
    loop = split.fuse(d, e)
    assert in_order(split) == in_order(fused)
    split.split(loop, 3)
    assert in_order(split) == in_order(s)


def test_a_hint_at_a_loop_stays_with_its_iterations() -> None:
    x = te.placeholder((4, 6), name="x")
    s = Schedule(te.compute((4, 6), lambda i, j: x[i, j] * 2.0, "y"))
    s.prefetch("x", "i", 2)
    s.prefetch("x", "j", 3)
    _, inner = s.split("i", 2)
    fused = s.fuse(inner, "j")
    assert [ahead.distance for ahead in s.loop(fused).prefetch] == [2 * 6, 3]


def test_a_hint_within_peeled_iterations_counts_their_loop() -> None:
    (s, (column, _, step)), (peeled, (other, _, last)) = product(4), product(4)
    s.prefetch("b", step, 1, around=column)
    peeled.prefetch("b", last, 1, around=other)
    peeled.peel(other, 1)
    assert sorted(in_order(peeled)) == sorted(in_order(s))
