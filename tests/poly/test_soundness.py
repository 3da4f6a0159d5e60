"""Legality verdicts against literal execution, on random kernels under random trees."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from random_primitives import random_decision, random_primitives
from random_trees import random_kernel, random_schedule
from soundness import Judgement, Tally, drive, judge

from polycomp.poly import legality, rule_races, rule_reductions
from polycomp.poly.fast import Covering
from polycomp.poly.legality import Verdict
from polycomp.poly.linear import Prover


def test_the_order_of_definition_is_legal() -> None:
    for seed in range(40):
        judgement = judge(random_kernel(random.Random(seed)))
        assert judgement.verdict.legal
        assert not judgement.fault


def test_accepted_is_right_and_rejected_is_wrong() -> None:
    tally = drive(random_schedule, range(800))
    assert tally.accepted >= 200
    assert tally.rejected >= 200
    assert tally.conservative_share <= 0.10


def test_schedule_primitives_are_judged_right() -> None:
    tally = drive(random_primitives, range(600))
    assert tally.accepted >= 200
    assert tally.rejected >= 30
    assert tally.conservative_share <= 0.10


def test_decisions_of_the_schedule_language_are_right(record_property: Callable[[str, object], None]) -> None:
    """Every primitive, several statements, imperfect nests, symbolic sizes, stencils in time."""
    tally = drive(random_decision, range(600))
    share = f"{tally.conservative} of {tally.rejected} refused schedules are right ({tally.conservative_share:.1%})"
    record_property("told", f"{tally.accepted} schedules accepted, all right; {share}")
    assert tally.accepted >= 300
    assert tally.rejected >= 100
    assert tally.conservative_share <= 0.05


def test_the_harness_needs_every_rule() -> None:
    """Without any one of the rules some broken schedule would be accepted: the harness does exercise them."""
    kernels = [random_schedule(random.Random(seed)) for seed in range(200)]
    broken = [k for i, k in enumerate(kernels) if judge(k, i, lambda _: Verdict(None)).fault]
    found = dict.fromkeys(legality.RULES, 0)
    for kernel in broken:
        violations = legality.violations_by_rule(kernel)
        if sum(map(bool, violations.values())) == 1:
            found[next(rule for rule, v in violations.items() if v)] += 1
    assert all(found.values()), {rule.__name__: count for rule, count in found.items()}


def test_both_tiers_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the structural tier, isl alone gives the same verdicts."""
    kernels = [random_schedule(random.Random(seed)) for seed in range(2000, 2200)]
    verdicts = [legality.verify_kernel(k).legal for k in kernels]
    monkeypatch.setattr(Covering, "reaches", lambda *_: False)
    monkeypatch.setattr(Prover, "nonnegative", lambda *_: False)
    monkeypatch.setattr(rule_races, "equal_variables", lambda rows, shared, prover: shared)
    monkeypatch.setattr(rule_reductions, "equal_variables", lambda rows, shared, prover: shared)
    assert [legality.verify_kernel(k).legal for k in kernels] == verdicts


def test_tally_counts_conservative_rejections() -> None:
    tally = Tally()
    violation = legality.Violation(legality.ViolationKind.RACE, "made up")
    tally.add(Judgement(Verdict(violation), ""))
    tally.add(Judgement(Verdict(violation), "really wrong"))
    tally.add(Judgement(Verdict(None), ""))
    assert (tally.accepted, tally.rejected, tally.conservative) == (1, 2, 1)
