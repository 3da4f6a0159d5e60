"""The public schedule language: the design's example, handles, traces, explanations, listings, native functions."""

# ruff: noqa: N803, N806 - the design's example has the names of the mathematics

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import polycomp as pc
from polycomp.errors import IllegalScheduleError, TraceError, UnprovenScheduleError
from polycomp.poly import legality
from polycomp.poly.tree import Loop, LoopKind
from polycomp.te.evaluate import evaluate

Array = np.ndarray[Any, Any]


def numbers(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def product(m: Any, n: Any, depth: Any) -> pc.Schedule:
    a, b, k = pc.placeholder((m, depth), name="a"), pc.placeholder((depth, n), name="b"), pc.reduce_axis(depth, "k")
    return pc.Schedule(pc.compute((m, n), lambda i, j: pc.sum(a[i, k] * b[k, j], axis=k), "c"))


def tiled(s: pc.Schedule) -> pc.Schedule:
    s.tile(("i", 6), ("j", 16))
    s.reorder("io", "jo", "k", "ii", "ji")
    s.unroll("ii")
    s.vectorize("ji")
    s.parallel("io")
    return s


@pytest.mark.parametrize(("M", "N", "K"), [(12, 32, 8), (13, 35, 7), (1, 1, 1)])
def test_the_example_of_the_design(M: int, N: int, K: int) -> None:
    A = pc.placeholder((M, K), "float32", "A")
    B = pc.placeholder((K, N), "float32", "B")
    k = pc.reduce_axis(K, "k")
    C = pc.compute((M, N), lambda i, j: pc.sum(A[i, k] * B[k, j], axis=k), "C")
    s = pc.Schedule(C)
    i, j, k = s[C].loops
    io, ii = s.split(i, 6)
    jo, ji = s.split(j, 16)
    s.reorder(io, jo, k, ii, ji)
    s.unroll(ii)
    s.vectorize(ji)
    s.parallel(io)
    gemm = pc.build(s, target="cpu")
    a, b = numbers(M, K), numbers(K, N)
    np.testing.assert_allclose(gemm(a, b), a @ b, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(gemm(B=b, A=a), a @ b, rtol=1e-4, atol=1e-5)


def test_marks_reach_the_initialisation_that_a_reorder_left_behind() -> None:
    s = tiled(product(12, 32, 8))
    kinds = {r.name: s.loop(r).kind for r in map(_ref, ["ii", "ji", "ii2", "ji2"])}
    assert kinds == dict.fromkeys(["ii", "ii2"], LoopKind.UNROLL) | dict.fromkeys(["ji", "ji2"], LoopKind.VECTOR)


def _ref(name: str) -> Any:
    from polycomp.expr import Var
    from polycomp.schedules import LoopRef

    return LoopRef(Var(name))


def test_a_split_reaches_the_initialisation_too() -> None:
    s = product(12, 32, 8)
    s.reorder("k", "i", "j")
    _, lane = s.split("j", 16)
    s.vectorize(lane)
    assert str(s).count("in vector(16)") == 2


def test_a_native_function_shows_how_it_was_made() -> None:
    multiply = pc.build(tiled(product(12, 32, 8)), threads=1)
    assert multiply.inputs == ("a", "b")
    assert multiply.outputs == ("c",)
    assert multiply.flops == 2 * 12 * 32 * 8
    assert "for io in range(2) parallel:" in multiply.loops
    assert "define void @kernel" in multiply.llvm
    assert "kernel:" in multiply.assembly
    assert repr(multiply) == "<kernel(a[12, 8]: float32, b[8, 32]: float32) -> c[12, 32]>"


def test_a_function_for_every_size() -> None:
    n = pc.size("n")
    multiply = pc.build(tiled(product(n, 40, n)), threads=2)
    for size in (1, 5, 6, 19):
        a, b = numbers(size, size), numbers(size, 40)
        np.testing.assert_allclose(multiply(a, b), a @ b, rtol=1e-4, atol=1e-4)


def test_a_folded_recurrence_of_any_size() -> None:
    n = pc.size("n")
    x = pc.placeholder((n,), name="x")

    def step(u: Any, t: Any, i: Any) -> Any:
        return pc.select(t < 1, x[i], pc.select(i >= 1, u[t - 1, i] + u[t - 1, i - 1], u[t - 1, i]))

    u = pc.recurrence((7, n), step, name="u")
    s = pc.Schedule(pc.compute((n,), lambda i: u[6, i] * 1.0, "last"))
    s.vectorize(s.split("i", 8)[1])
    s.fold_storage("u", dimension=0, factor=2)
    function = pc.build(s, threads=1)
    for size in (1, 8, 19):
        data = numbers(size)
        expected = data.copy()
        for _ in range(6):
            expected[1:] += expected[:-1].copy()
        np.testing.assert_allclose(function(data), expected, rtol=1e-4, atol=1e-4)


def running(size: Any) -> pc.Schedule:
    """Each row of a matrix divided by its sum, which is a recurrence along the row beside another one."""
    x = pc.placeholder((5, size), name="x")
    top = pc.recurrence(
        (5, size), lambda u, t, i: pc.select(t < 1, x[t, i], pc.maximum(u[t - 1, i], x[t, i])), name="top"
    )
    total = pc.recurrence(
        (5, size), lambda u, t, i: pc.select(t < 1, 0.0, u[t - 1, i]) + x[t, i] * top[t, i], name="total"
    )
    return pc.Schedule(pc.compute((size,), lambda i: total[4, i] * 2.0, "y"))


def test_recurrences_in_one_loop_keep_what_they_need() -> None:
    n = pc.size("n")
    s = running(n)
    block, lane = s.split("i3", 8)
    s.vectorize(lane)
    assert [r.name for r in s.compute_at("total", block)] == ["t3", "i4"]
    s.compute_at("top", block)
    assert [r.name for r in s.compute_with("top", "t3")] == ["i5"]
    for tensor in ("top", "total"):
        s.fold_storage(tensor, 0, 1)
        s.vectorize(s[tensor].loops[-1])
    s.parallel(block)
    assert str(s).count("for t") == 1
    again = running(n)
    again.replay(pc.Trace.from_json(s.trace.to_json()))
    assert str(again) == str(s)
    function = pc.build(s, threads=2)
    for size in (1, 8, 21):
        data = numbers(5, size)
        expected = 2 * (data * np.maximum.accumulate(data)).sum(axis=0)
        np.testing.assert_allclose(function(data), expected, rtol=1e-4, atol=1e-4)


def test_a_reduction_in_the_loops_of_its_reader() -> None:
    x, k = pc.placeholder((4, 6, 8), name="x"), pc.reduce_axis(8, "k")
    total = pc.compute((4, 6), lambda i, j: pc.sum(x[i, j, k], axis=k), "total")
    s = pc.Schedule(pc.compute((4, 6), lambda i, j: total[i, j] + 1.0, "y"))
    assert [r.name for r in s.compute_with(total, s["y"].loops[1])] == ["k"]
    s.fold_storage(total, 0, 1)
    s.fold_storage(total, 1, 1)
    data = numbers(4, 6, 8)
    np.testing.assert_allclose(pc.build(s, threads=1)(data), data.sum(axis=-1) + 1, rtol=1e-4, atol=1e-4)


def test_several_outputs_are_a_tuple() -> None:
    x = pc.placeholder((5,), name="x")
    more, less = pc.compute((5,), lambda i: x[i] + 1.0, "more"), pc.compute((5,), lambda i: x[i] - 1.0, "less")
    first, second = pc.build(pc.Schedule([more, less]), threads=1)(numbers(5))
    np.testing.assert_array_equal(first, numbers(5) + 1)
    np.testing.assert_array_equal(second, numbers(5) - 1)


def test_a_trace_goes_through_json_and_python() -> None:
    first = tiled(product(12, 32, 8))
    second, third = product(12, 32, 8), product(12, 32, 8)
    second.replay(pc.Trace.from_json(first.trace.to_json()))
    exec(first.trace.as_python("third"), {"third": third})
    assert str(first) == str(second) == str(third)
    assert first.trace == second.trace == third.trace


def test_the_library_leaves_a_trace_that_replays() -> None:
    from polycomp.schedules.library.choose import build_schedule
    from polycomp.target import parse_target

    c = product(40, 48, 24).tensor("c")
    target = parse_target("x86_64-linux-gnu,features=avx2+fma")
    made = build_schedule("kernel", c.inputs(), (c,), {}, target)
    again = pc.Schedule(made.kernel.outputs, made.kernel.inputs)
    again.replay(made.trace)  # proves each of the library's steps
    assert str(again) == str(made)


def test_a_replay_that_fails_changes_nothing() -> None:
    s = product(12, 32, 8)
    before = str(s)
    other = product(12, 32, 8)
    other.split("i", 2)
    other.cache_write("c")
    with pytest.raises(TraceError):
        s.replay(pc.Trace((*other.trace.steps, *other.trace.steps)))
    assert str(s) == before
    assert len(s.trace) == 0


def test_undo_goes_back_step_by_step() -> None:
    s = product(12, 32, 8)
    before = str(s)
    tiled(s)
    for _ in range(len(s.trace)):
        s.undo()
    assert str(s) == before


def test_names_of_replaced_loops_are_not_given_again() -> None:
    x = pc.placeholder((8,), name="x")
    y = pc.compute((8,), lambda i: x[i] * 2.0, "y")
    s = pc.Schedule(pc.compute((8,), lambda j: y[j] + 1.0, "z"))
    s.compute_at("y", s.split("j", 4)[0])
    assert "for i in" not in str(s)


def test_explanations_change_nothing_and_name_the_iterations() -> None:
    s = product(4, 6, 3)
    before = str(s)
    no = s.explain("parallel", "k")
    assert not no
    assert (no.source, no.target) == ("c.update[i=0, j=0, k=0]", "c.update[i=0, j=0, k=1]")
    assert "rfactor" in no.remedy
    assert s.explain("parallel", "i").legal
    assert str(s) == before


def test_what_cannot_be_decided_is_an_error_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    violation = legality.Violation(legality.ViolationKind.UNKNOWN, "isl gave up")
    monkeypatch.setattr("polycomp.schedules.refusal.verify_kernel", lambda _: legality.Verdict(violation))
    with pytest.raises(UnprovenScheduleError, match="isl gave up"):
        product(4, 6, 3).split("i", 2)


def test_unchecked_steps_are_proven_at_the_end() -> None:
    s = pc.Schedule(product(4, 6, 3).tensor("c"), check=False)
    s.parallel("k")
    with pytest.raises(IllegalScheduleError):
        s.verify()


def test_a_notebook_shows_loops_in_colours() -> None:
    page = tiled(product(12, 32, 8))._repr_html_()
    assert page.startswith("<pre")
    assert "&lt;" not in page.split("\n")[1]
    assert page.count("<span") == str(tiled(product(12, 32, 8))).count("\n") + 1


def test_a_stencil_in_time_may_be_tiled_when_it_is_skewed() -> None:
    x = pc.placeholder((30,), name="x")

    def step(u: Any, t: Any, i: Any) -> Any:
        inner = (u[t - 1, i - 1] + u[t - 1, i + 1]) * 0.5
        return pc.select(t < 1, x[i], pc.select((i >= 1) & (i < 29), inner, u[t - 1, i]))

    u = pc.recurrence((7, 30), step, name="u")
    s = pc.Schedule(u)
    assert not s.explain("tile", ("t", 3), ("i", 8))
    s.tile(("t", 3), (s.skew("t", "i"), 8))
    s.vectorize("isi")
    given = numbers(30)
    np.testing.assert_allclose(pc.build(s, threads=1)(given), evaluate([u], {x: given})[0], rtol=1e-5)


def test_importing_polycomp_loads_no_compiler() -> None:
    code = "import sys, polycomp; print(sorted({'islpy', 'llvmlite', 'onnx', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_loop_of_the_tree_has_a_name_of_its_own() -> None:
    s = product(13, 35, 7)
    s.peel("i", 1)
    s.unroll_and_jam("j", 2)
    names = [line.split()[1] for line in str(s).split("\n") if line.strip().startswith("for ")]
    assert len(set(names)) == len(names)
    assert isinstance(s.tree[0], Loop)


def test_numpys_functions_of_elements() -> None:
    x = pc.placeholder((5,), name="x")
    y = pc.compute((5,), lambda i: np.maximum(np.exp(x[i]) * np.float32(2), np.float64(3.0)) / np.float32(2), "y")
    values = np.linspace(-1, 2, 5, dtype=np.float32)
    np.testing.assert_allclose(pc.build(pc.Schedule(y))(values), np.maximum(np.exp(values) * 2, 3) / 2, rtol=1e-6)
