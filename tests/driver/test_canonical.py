"""Equal computations have equal canonical texts, whatever their names; different ones never do."""

from __future__ import annotations

import pickle

import pytest

from polycomp import te
from polycomp.driver.canonical import CanonicalKernel, canonicalize
from polycomp.expr import Var
from polycomp.te import Dim, Tensor


def matmul(rows: Dim, prefix: str = "", scale: float = 1.0, swap: bool = False) -> tuple[list[Tensor], Tensor]:
    a = te.placeholder((rows, 8), "float32", f"{prefix}a")
    b = te.placeholder((8, 5), "float32", f"{prefix}b")
    k = te.reduce_axis(8, f"{prefix}k")
    product = te.compute((rows, 5), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), f"{prefix}product")
    scaled = te.compute((rows, 5), lambda row, column: product[row, column] * scale, f"{prefix}scaled")
    return [b, a] if swap else [a, b], scaled


def canonical(rows: Dim, prefix: str = "", scale: float = 1.0, swap: bool = False) -> CanonicalKernel:
    inputs, output = matmul(rows, prefix, scale, swap)
    ranges = {rows: (1, 64)} if isinstance(rows, Var) else {}
    return canonicalize(inputs, (output,), ranges)


def test_names_do_not_matter() -> None:
    assert canonical(7, "first_").text == canonical(7, "second_").text


@pytest.mark.parametrize("other", [{"rows": 6}, {"rows": 7, "scale": 2.0}, {"rows": 7, "swap": True}])
def test_everything_else_does(other: dict[str, int | float | bool]) -> None:
    assert canonical(7).text != canonical(**other).text  # type: ignore[arg-type]


def test_size_parameters_are_renamed_and_remembered() -> None:
    first, second = canonical(Var("batch")), canonical(Var("sequence"))
    assert first.text == second.text
    assert list(first.parameters.values()) == [Var("batch")]
    assert list(second.parameters.values()) == [Var("sequence")]
    assert first.ranges == {Var("s000"): (1, 64)}


def test_bounds_of_sizes_are_part_of_the_key() -> None:
    inputs, output = matmul(Var("n"))
    wide = canonicalize(inputs, (output,), {Var("n"): (1, None)})
    assert wide.text != canonical(Var("n")).text


def test_an_output_that_is_read_again_stays_an_output() -> None:
    a = te.placeholder((4,), "float32", "a")
    b = te.compute((4,), lambda i: a[i] * 2.0, "b")
    c = te.compute((4,), lambda i: b[i] + 1.0, "c")
    assert canonicalize([a], (c,), {}).text != canonicalize([a], (b, c), {}).text


def test_the_canonical_kernel_is_well_formed() -> None:
    kernel = canonical(Var("n"))
    tensors = te.topological_order(kernel.outputs)
    assert set(kernel.inputs) == {t for t in tensors if t.body is None}
    assert len({t.name for t in tensors}) == len(tensors)


def test_a_kernel_survives_pickling() -> None:
    kernel = canonical(Var("n"))
    copy = pickle.loads(pickle.dumps((te.topological_order(kernel.outputs), kernel)))[1]
    assert canonicalize(copy.inputs, copy.outputs, copy.ranges).text == kernel.text
