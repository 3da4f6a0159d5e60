"""The listings in the documentation of every primitive are what the primitives do."""

from __future__ import annotations

import doctest
from typing import Any

import pytest

import polycomp as pc
from polycomp.schedules import loop_primitives, schedule, stage_primitives
from polycomp.schedules.schedule import PRIMITIVES, Schedule


def names() -> dict[str, Any]:
    """The tensors of the examples."""
    x = pc.placeholder((10,), name="x")
    y = pc.compute((10,), lambda i: x[i] * 2.0, "y")
    z = pc.compute((8,), lambda i: y[i] + y[i + 2], "z")
    a, b, k = pc.placeholder((4, 3), name="a"), pc.placeholder((3, 6), name="b"), pc.reduce_axis(3, "k")
    c = pc.compute((4, 6), lambda i, j: pc.sum(a[i, k] * b[k, j], axis=k), "c")
    u, v = pc.placeholder((3, 4), "uint8", "u"), pc.placeholder((3, 8, 4), "int8", "v")
    k, q = pc.reduce_axis(3, "k"), pc.reduce_axis(4, "q")
    d = pc.compute((8,), lambda i: pc.sum(pc.cast("int32", u[k, q]) * pc.cast("int32", v[k, i, q]), axis=(k, q)), "d")
    g, h, k = pc.placeholder((16, 8), name="g"), pc.placeholder((8, 8), name="h"), pc.reduce_axis(8, "k")
    f = pc.compute((16, 8), lambda i, j: pc.sum(g[i, k] * h[k, j], axis=k), "f")
    w = pc.placeholder((16, 32), name="w")
    p = pc.compute((16, 32), lambda i, j: w[i, j] * 2.0, "p")
    r = pc.compute((16, 32), lambda i, j: p[i, j] + 1.0, "q")
    found = {"x": x, "y": y, "z": z, "a": a, "b": b, "c": c, "d": d, "f": f, "g": g, "h": h, "p": p, "q": r}
    return {"pc": pc, **found}


def examples() -> list[doctest.DocTest]:
    finder = doctest.DocTestFinder()
    found = (t for m in (loop_primitives, stage_primitives, schedule) for t in finder.find(m, globs=names()))
    return [test for test in found if test.examples]


@pytest.mark.parametrize("example", examples(), ids=lambda e: e.name.rsplit(".", 1)[-1])
def test_the_documented_listing_is_right(example: doctest.DocTest) -> None:
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.FAIL_FAST)
    assert runner.run(example, out=report.append).failed == 0, "".join(report)


def test_every_primitive_shows_what_it_does() -> None:
    documented = {e.name.rsplit(".", 1)[-1] for e in examples()}
    assert documented >= PRIMITIVES, sorted(PRIMITIVES - documented)


def test_every_example_shows_a_listing() -> None:
    for name in PRIMITIVES:
        text = getattr(Schedule, name).__doc__
        assert ">>> s.show()\n" in text, name
