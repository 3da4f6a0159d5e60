"""Conversion to isl, against evaluation on small grids."""

from __future__ import annotations

import random

import islpy as isl
import pytest
from test_linear_forms import RANGES, N, X, Y, grid, random_index, value

from polycomp.expr import Expr, Load, Var, compare, ne, select
from polycomp.poly.affine import Frame, NotAffineError, isl_variables, size_parameters
from polycomp.poly.linear import Form, Forms
from polycomp.te import placeholder


def points_of(frame: Frame, s: isl.Set, at: list[dict[Expr, int]]) -> list[bool]:
    """Whether each point of the grid is in ``s``."""
    fixed = (frame.where(zero=[Form({v: 1}, -x) for v, x in p.items()]) for p in at)
    return [not s.intersect(f).is_empty() for f in fixed]


def make_frame(forms: Forms) -> Frame:
    return Frame(isl.Context(), forms, [N], [X, Y])


def affine_index(rng: random.Random) -> Expr:
    while True:
        e = random_index(rng, 2)
        if "* N" not in str(e) and "N *" not in str(e):
            return e


def test_sets_contain_the_points_that_satisfy_them() -> None:
    rng = random.Random(5)
    at = random.Random(6).sample(grid(), 10)
    for _ in range(60):
        forms = Forms(RANGES)
        frame = make_frame(forms)
        e = affine_index(rng)
        inside = points_of(frame, frame.where([forms.of(e)]), at)
        assert inside == [value(e, p) >= 0 for p in at], str(e)
        zero = points_of(frame, frame.where(zero=[forms.of(e)]), at)
        assert zero == [value(e, p) == 0 for p in at], str(e)


def test_conditions_and_their_negations() -> None:
    rng = random.Random(7)
    at = random.Random(8).sample(grid(), 10)
    for _ in range(40):
        forms = Forms(RANGES)
        frame = make_frame(forms)
        ops = ("lt", "le", "gt", "ge", "eq", "ne")
        first, second = (compare(rng.choice(ops), affine_index(rng), affine_index(rng)) for _ in range(2))
        condition = rng.choice([first & second, first | second, first])
        for holds in (True, False):
            inside = points_of(frame, frame.condition(condition, holds, None), at)
            assert inside == [bool(value(condition, p)) == holds for p in at], str(condition)


def test_conditions_on_data_are_unknown() -> None:
    frame = make_frame(Forms(RANGES))
    condition = placeholder((6,), "float32", "mask")[X] > 0.0
    assert frame.condition(condition, True, True).is_equal(frame.universe())
    assert frame.condition(condition, False, True).is_equal(frame.universe())
    assert frame.condition(condition, True, False).is_empty()
    with pytest.raises(NotAffineError):
        frame.condition(condition, True, None)


def test_products_of_sizes_are_parameters() -> None:
    other = Var("M")
    forms = Forms({**RANGES, other: (1, None)})
    form = forms.of(N * other * 2 + X)
    found = isl_variables([form], forms)
    assert [str(p) for p in size_parameters(found, [X])] == ["(M * N)"]
    frame = Frame(isl.Context(), forms, size_parameters(found, [X]), [X])
    assert frame.space.get_dim_name(isl.dim_type.param, 0) == "(M * N)"
    with pytest.raises(NotAffineError):
        size_parameters(isl_variables([forms.of(X * N)], forms), [X])


def test_loads_are_not_affine() -> None:
    frame = make_frame(Forms(RANGES))
    load = Load(placeholder((6,), "int64", "at"), (X,))
    with pytest.raises(NotAffineError):
        frame.affine(Form({load: 1}))


def test_samples_name_variables() -> None:
    forms = Forms(RANGES)
    frame = make_frame(forms)
    found = frame.sample(frame.where(zero=[forms.of(X - 3), forms.of(Y + 2), forms.of(N - 4)]))
    assert found == {N: 4, X: 3, Y: -2}
    assert frame.sample(frame.empty()) is None


def test_limits_of_a_variable() -> None:
    forms = Forms(RANGES)
    frame = make_frame(forms)
    box = [forms.of(X), forms.of(5 - X), forms.of(N - 1), forms.of(3 - N)]
    assert frame.limits(frame.where(box, [forms.of(Y - X * 2 - X // 2)]), Y) == (0, 12)
    assert frame.limits(frame.where(box), Y) == (None, None)
    chosen = forms.of(select(ne(X, 0), X * 3, 7))
    assert frame.limits(frame.where(box, [chosen.plus(Form({Y: 1}), -1)]), Y) == (3, 15)
