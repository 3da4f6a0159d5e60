"""Legality verdicts against literal execution, on random kernels under random trees."""

from __future__ import annotations

import random

from soundness import drive, judge
from trees import random_kernel, random_schedule

SEEDS = range(600)


def test_the_order_of_definition_is_legal() -> None:
    for seed in range(40):
        judgement = judge(random_kernel(random.Random(seed)))
        assert judgement.verdict.legal
        assert not judgement.fault


def test_accepted_is_right_and_rejected_is_wrong() -> None:
    tally = drive(random_schedule, SEEDS)
    assert tally.accepted >= 100
    assert tally.rejected >= 100
    assert tally.conservative_share <= 0.10
