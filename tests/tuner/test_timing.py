"""Comparing two programs: on programs whose times are numbers, with drift and noise."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from polycomp.tuner.timing import Effort, Run, best_round, compare


class Machine:
    """Programs that take what they should, times a speed that drifts with every run, and a little noise."""

    def __init__(self, drift: float = 0.0, noise: float = 0.0) -> None:
        self.drift, self.noise = drift, noise
        self.runs = itertools.count()
        self.random = random.Random(1)

    def program(self, seconds: float) -> Run:
        return lambda: seconds * (1 + self.drift * next(self.runs)) * math.exp(self.random.gauss(0, self.noise))


@pytest.mark.parametrize("ratio", [0.5, 0.97, 1.0, 1.02])
def test_drift_cancels(ratio: float) -> None:
    machine = Machine(drift=0.002)
    found = compare(machine.program(1e-3 * ratio), machine.program(1e-3), Effort())
    assert found.ratio == pytest.approx(ratio, rel=0.01)


def test_noise_takes_more_rounds_up_to_the_limit() -> None:
    quiet, loud = Machine(noise=0.001), Machine(noise=0.1)
    short = compare(quiet.program(1e-3), quiet.program(1e-3), Effort())
    long = compare(loud.program(1e-3), loud.program(1e-3), Effort())
    assert len(short.samples) == Effort().rounds < len(long.samples) <= 40
    assert short.half_width < 0.01
    assert long.ratio == pytest.approx(1.0, rel=0.1)


def disturbed_program(seconds: float) -> Run:
    """As by a neighbour that takes half of the memory's time, now and then."""
    chance = random.Random(3)
    return lambda: seconds * (3.0 if chance.random() < 0.35 else chance.uniform(1.0, 1.02))


@pytest.mark.parametrize("seconds", [0.015, 5e-5])
def test_the_best_round_is_undisturbed(seconds: float) -> None:
    run = disturbed_program(seconds)
    assert all(best_round(run, 15, Effort()) == pytest.approx(seconds, rel=0.03) for _ in range(50))


def test_disturbances_of_single_rounds_make_no_program_faster() -> None:
    disturbed = disturbed_program(0.015)
    ratios = [compare(disturbed, disturbed, Effort().twice).ratio for _ in range(300)]
    assert min(ratios) > 0.9
    assert sum(ratio > 1.1 for ratio in ratios) < 0.1 * len(ratios)  # the price of that


class Spells:
    """A machine that is slow for a while, again and again, while a neighbour works."""

    def __init__(self, seed: int, spell: float) -> None:
        self.random, self.spell = random.Random(seed), spell
        self.now, self.slow, self.change = 0.0, False, 0.0

    def program(self, seconds: float) -> Run:
        def run() -> float:
            while self.now >= self.change:
                self.slow, self.change = not self.slow, self.change + self.random.expovariate(1 / self.spell)
            took = seconds * (1.6 if self.slow else 1.0) * self.random.uniform(1.0, 1.02)
            self.now += took
            return took

        return run


@pytest.mark.parametrize("seconds", [2e-4, 3e-3])
@pytest.mark.parametrize("spell", [0.004, 0.05, 1.0])
def test_spells_in_which_the_machine_is_slow_make_no_program_faster(seconds: float, spell: float) -> None:
    ratios = []
    for seed in range(200):
        machine = Spells(seed, spell)
        ratios.append(compare(machine.program(seconds), machine.program(seconds), Effort().twice).ratio)
    assert min(ratios) > 0.97
    assert sorted(ratios)[len(ratios) // 2] < 1.01


def test_what_is_surely_slower_ends_early() -> None:
    machine = Machine(noise=0.02)
    found = compare(machine.program(1.5e-3), machine.program(1e-3), Effort())
    assert len(found.samples) == 3


def test_what_is_far_slower_has_no_rounds() -> None:
    machine = Machine()
    found = compare(machine.program(5e-3), machine.program(1e-3), Effort())
    assert found.samples == (5e-3,)
    assert (found.ratio, found.half_width) == (pytest.approx(5.0), math.inf)
    assert next(machine.runs) == 5


def test_brief_programs_do_not_take_for_ever() -> None:
    machine = Machine(noise=0.3)
    found = compare(machine.program(1e-7), machine.program(1e-7), Effort())
    assert len(found.samples) < 50
