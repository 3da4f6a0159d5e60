"""Linear forms and the proofs about them, against evaluation on small grids."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping

from polycomp.expr import Expr, Interval, Var, compare, const, maximum, minimum, select
from polycomp.poly.linear import Form, Forms, Prover, linear_facts, same
from polycomp.poly.violations import evaluate

X, Y, N = Var("x"), Var("y"), Var("N")
BOUNDS = {X: (0, 5), Y: (-2, 3), N: (1, 4)}
RANGES: Mapping[Var, Interval] = BOUNDS


def random_index(rng: random.Random, depth: int) -> Expr:
    if depth == 0 or rng.random() < 0.2:
        return rng.choice([X, Y, N, const(rng.randint(-3, 7))])
    a, b = random_index(rng, depth - 1), random_index(rng, depth - 1)
    divisor = rng.randint(2, 4)
    arithmetic = (a + b, a - b, a * rng.randint(-3, 3), a * N, a // divisor, a % divisor)
    return rng.choice((*arithmetic, minimum(a, b), maximum(a, b), select(a < b, a, b - 1)))


def value(e: Expr, at: Mapping[Expr, int]) -> int:
    return evaluate(Form({e: 1}), at)


def grid() -> list[dict[Expr, int]]:
    axes = [[(v, x) for x in range(low, high + 1)] for v, (low, high) in BOUNDS.items()]
    return [dict(point) for point in itertools.product(*axes)]


def test_forms_equal_their_expressions() -> None:
    rng = random.Random(1)
    points = random.Random(2).sample(grid(), 12)
    for _ in range(300):
        e = random_index(rng, 3)
        form = Forms(RANGES).of(e)
        assert all(evaluate(form, p) == value(e, p) for p in points), str(e)
        assert all(value(form.expr(), p) == value(e, p) for p in points), str(e)


def test_equal_polynomials_have_the_same_form() -> None:
    forms = Forms(RANGES)
    assert same(forms.of((X + 2) * (N - 1)), forms.of(N * X - X + N * 2 - 2))
    assert same(forms.of((X * 6 + Y) - (Y + X * 6)), Form({}))


def test_a_proof_holds_everywhere() -> None:
    rng = random.Random(3)
    proven = 0
    for _ in range(400):
        forms = Forms(RANGES)
        fact, claim = random_index(rng, 2), random_index(rng, 3) + rng.randint(0, 4)
        prover = Prover(forms, [forms.of(fact)])
        if prover.nonnegative(forms.of(claim)):
            proven += 1
            assert all(value(claim, p) >= 0 for p in grid() if value(fact, p) >= 0), f"{fact} => {claim}"
    assert proven > 50


def test_split_loops_are_proven_inside_their_bounds() -> None:
    outer, inner, size = Var("o"), Var("in"), Var("M")
    forms = Forms({outer: (0, None), inner: (0, 5), size: (0, None)})
    index = outer * 6 + inner
    guard, _ = linear_facts(index < size, True, forms)
    assert Prover(forms, guard).nonnegative(forms.of(size - 1 - index))
    assert not Prover(forms, ()).nonnegative(forms.of(size - 1 - index))


def test_quotients_by_a_size_are_bounded() -> None:
    fused, rows, columns = Var("f"), Var("R"), Var("C")
    forms = Forms({fused: (0, None), rows: (0, None), columns: (1, None)})
    prover = Prover(forms, [forms.of(rows * columns - 1 - fused)])
    assert prover.nonnegative(forms.of(rows - 1 - fused // columns))
    assert prover.nonnegative(forms.of(columns - 1 - fused % columns))
    assert not prover.nonnegative(forms.of(rows - 2 - fused // columns))


def test_facts_of_conditions() -> None:
    forms = Forms(RANGES)
    facts, complete = linear_facts((compare("lt", X, N)) & (compare("ge", Y, 0)), True, forms)
    assert complete
    assert same(facts[0], forms.of(N - X - 1))
    assert same(facts[1], forms.of(Y))
    assert linear_facts(compare("ne", X, N), True, forms) == ((), False)
    assert linear_facts((X < N) | (Y < N), True, forms) == ((), False)
    assert len(linear_facts((X < N) | (Y < N), False, forms)[0]) == 2
