"""Conditions that are the same for all lanes of a vector."""

from __future__ import annotations

import itertools

import pytest

from polycomp.expr import Compare, Expr, Var, is_uniform, substitute, wrap
from polycomp.expr.simplify import simplify

LANE, ROW, COLUMN = Var("lane"), Var("i"), Var("j")
RANGES = {LANE: (0, 3), ROW: (0, 9), COLUMN: (0, 2)}


def conditions() -> list[Expr]:
    made: list[Expr] = []
    for step, offset, end in itertools.product((4, 8, 6), (0, 1, 4), (0, 7, 8, 20)):
        place = ROW * step + LANE + offset
        made += [
            place < end,
            place <= end,
            place > end,
            place >= end,
            (place < end) & (COLUMN < 1),
            end - place < COLUMN * 4,
        ]
    return made


@pytest.mark.parametrize("condition", conditions(), ids=str)
def test_what_is_called_uniform_is_the_same_in_all_lanes(condition: Expr) -> None:
    for i, j in itertools.product(range(10), range(3)):
        at = {ROW: wrap(i), COLUMN: wrap(j)}
        values = {simplify(substitute(condition, {**at, LANE: wrap(lane)})) for lane in range(4)}
        assert len(values) == 1 or not is_uniform(condition, LANE, 4, RANGES)


def test_ends_at_whole_vectors_are_uniform() -> None:
    place = ROW * 4 + LANE
    for uniform in (place < 20, place >= 8, place + 3 > 10, (place < 20) & (COLUMN < 1), COLUMN < 2):
        assert is_uniform(uniform, LANE, 4, RANGES)
    for other in (place < 21, ROW * 6 + LANE < 12, Compare("eq", place, wrap(8))):
        assert not is_uniform(other, LANE, 4, RANGES)
