"""Dependences against enumeration of all pairs of instances."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import islpy as isl
from random_trees import kernel_of, random_kernel
from soundness import all_sizes

from polycomp import te
from polycomp.expr import Var, maximum, select
from polycomp.poly.dependences import Dependence, DependenceKind, dependences
from polycomp.poly.kernel import Kernel


def test_kinds_and_deltas_of_a_chain() -> None:
    a, k = te.placeholder((8, 8), name="A"), te.reduce_axis(8, "k")
    b = te.compute((8, 8), lambda i, j: a[i, j] * 2.0, "B")
    c = te.compute((8, 6), lambda i, j: te.sum(b[i, k] + b[i, j + 2], axis=k), "C")
    d = te.compute((8, 6), lambda i, j: c[i, j] + select(j > 0, c[i, maximum(j - 1, 0)], 0.0), "D")
    found = [(x.source, x.target, x.kind.name) for x in dependences(kernel_of([d]))]
    assert found == [
        ("B", "C.update", "RAW"),
        ("B", "C.update", "RAW"),
        ("C.init", "C.update", "RAW"),
        ("C.init", "C.update", "WAW"),
        ("C.init", "D", "RAW"),
        ("C.init", "D", "RAW"),
        ("C.update", "C.update", "REDUCTION"),
        ("C.update", "D", "RAW"),
        ("C.update", "D", "RAW"),
    ]
    stencil = dependences(kernel_of([d]))[1]
    assert stencil.deltas == {"i": (0, 0), "j": (-2, -2)}
    assert dependences(kernel_of([d]))[6].deltas == {"i": (0, 0), "j": (0, 0), "k": (-7, 7)}


def test_relations_hold_the_pairs_that_touch_the_same_element() -> None:
    for seed in range(30):
        kernel = random_kernel(random.Random(seed))
        if any("checked" in str(s.value) for s in kernel.statements.values()):
            continue
        for dependence in dependences(kernel):
            for sizes in all_sizes(kernel)[-1:]:
                _check_deltas(dependence, kernel, sizes)


def _check_deltas(dependence: Dependence, kernel: Kernel, sizes: dict[Var, int]) -> None:
    source, target = kernel.statements[dependence.source], kernel.statements[dependence.target]
    for before, after in _pairs(dependence, sizes, len(source.iters)):
        first = dict(zip((a.name for a in source.iters), before, strict=True))
        second = dict(zip((a.name for a in target.iters), after, strict=True))
        for name, (low, high) in dependence.deltas.items():
            delta = second[name] - first[name]
            assert low is None or low <= delta
            assert high is None or delta <= high
        if dependence.kind is DependenceKind.REDUCTION:
            assert before < after


def _pairs(
    dependence: Dependence, sizes: dict[Var, int], count: int
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    relation = dependence.relation
    for size, value in sizes.items():
        place = relation.get_space().find_dim_by_name(isl.dim_type.param, size.name)
        if place >= 0:
            relation = relation.fix_val(isl.dim_type.param, place, isl.Val.int_from_si(relation.get_ctx(), value))
    found: list[tuple[int, ...]] = []
    flat = relation.wrap().flatten().project_out_all_params()
    flat.foreach_point(lambda p: found.append(_coordinates(p)))
    return ((x[:count], x[count:]) for x in found)


def _coordinates(point: isl.Point) -> tuple[int, ...]:
    count = point.get_space().dim(isl.dim_type.set)
    return tuple(int(point.get_coordinate_val(isl.dim_type.set, i).to_python()) for i in range(count))


def test_a_copy_has_exactly_the_identity() -> None:
    a = te.placeholder((2, 3), name="A")
    b = te.compute((2, 3), lambda i, j: a[i, j] + 1.0, "B")
    c = te.compute((3, 2), lambda i, j: b[j, i] + 1.0, "C")
    (dependence,) = dependences(kernel_of([c]))
    pairs = sorted(_pairs(dependence, {}, 2))
    assert pairs == [((i, j), (j, i)) for i, j in itertools.product(range(2), range(3))]
    assert dependence.deltas == {"i": (-1, 2), "j": (-2, 1)}
