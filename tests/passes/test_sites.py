"""What passes decide where there are several ways: they say so, can be told otherwise, and compute the same."""

from __future__ import annotations

import pytest
from graph_builder import Make, check, ops

from polycomp.decisions import Decisions, Value
from polycomp.errors import ScheduleError
from polycomp.graph import Graph
from polycomp.options import Options
from polycomp.passes.fuse import fuse
from polycomp.passes.layout import choose_layout
from polycomp.passes.packing import pack_matrices
from polycomp.target import parse_target

TARGET = parse_target("x86_64-linux-gnu,features=avx2+fma")
CONV = "Conv of 1x16x10x10 to 16 by 3x3"
MATMUL = "MatMul of 5x24 by 24x40 float32"


def asked(problem: str, name: str, value: Value) -> dict[str, Decisions]:
    return {problem: Decisions(((name, value),))}


def convolution() -> Graph:
    m = Make()
    return m.graph(m.conv(m.input(1, 16, 10, 10), m.weight(16, 16, 3, 3), m.weight(16)))


def product() -> Graph:
    m = Make()
    return m.graph(m.op("MatMul", m.input(5, 24), m.weight(24, 40)))


def attention() -> Graph:
    m = Make()
    q, k, v = m.input(2, 6, 8), m.input(2, 8, 6), m.input(2, 6, 8)
    weights = m.op("Softmax", m.op("MatMul", q, k), axis=-1)
    return m.graph(m.op("MatMul", weights, v))


@pytest.mark.parametrize(("algorithm", "op", "tile"), [("direct", "ConvBlocked", None), ("F(2x2)", "ConvWinograd", 2),
                                                       ("F(4x4)", "ConvWinograd", 4)])  # fmt: skip
def test_the_algorithm_of_a_convolution(algorithm: str, op: str, tile: int | None) -> None:
    graph = check(convolution(), choose_layout, target=TARGET, decisions=asked(CONV, "algorithm", algorithm))
    (node,) = [n for n in graph.nodes if n.op == op]
    assert node.attributes.get("tile") == tile
    (site,) = graph.sites
    assert (site.problem, site.decision.value, site.sources) == (CONV, algorithm, ("n0",))
    assert site.decision.alternatives == ("direct", "F(2x2)", "F(4x4)")


def test_a_kernel_of_five_has_one_way_of_filtering() -> None:
    m = Make()
    x = m.conv(m.input(1, 16, 10, 10), m.weight(16, 16, 5, 5))
    (site,) = choose_layout(m.graph(x), Options(TARGET)).sites
    assert site.decision.alternatives == ("direct", "F(2x2)")


@pytest.mark.parametrize("vectors", [2, 3, 4])
def test_the_panels_of_a_matrix(vectors: int) -> None:
    graph = check(product(), pack_matrices, target=TARGET, decisions=asked(MATMUL, "panel", vectors))
    (node,) = [n for n in graph.nodes if n.op == "MatMulPacked"]
    assert node.attributes["nr"] == 8 * vectors


def test_attention_is_one_kernel_or_three() -> None:
    graph = fuse(attention(), Options(TARGET))
    (site,) = graph.sites
    assert site.decision.value is True and len(graph.groups) == 1
    apart = fuse(attention(), Options(TARGET, decisions=asked(site.problem, "one kernel", False)))
    assert [group.anchor.op for group in apart.groups] == ["MatMul", "Softmax", "MatMul"]


def test_passes_agree_with_themselves_where_nothing_is_asked() -> None:
    assert ops(choose_layout(convolution(), Options(TARGET)))["ConvWinograd"] == 1


def test_what_is_asked_must_be_possible() -> None:
    with pytest.raises(ScheduleError, match=r"'algorithm' cannot be 'F\(3x3\)'; the alternatives are 'direct'"):
        choose_layout(convolution(), Options(TARGET, decisions=asked(CONV, "algorithm", "F(3x3)")))


def test_advice_that_does_not_fit_is_told_and_left_out() -> None:
    with pytest.warns(UserWarning, match=r"advice for Conv of 1x16x10x10 to 16 by 3x3 does not fit: .*'F\(3x3\)'"):
        graph = choose_layout(convolution(), Options(TARGET, tuned=asked(CONV, "algorithm", "F(3x3)")))
    assert ops(graph)["ConvWinograd"] == 1


@pytest.mark.parametrize(("rows", "depth", "vectors"), [(24, 1024, 3), (24, 1000, 2), (8, 1024, 2)])
def test_rows_that_meet_in_one_set_of_the_cache_get_wide_panels(rows: int, depth: int, vectors: int) -> None:
    """Of 32 registers a narrow panel has tiles of 14 rows: more than a cache has ways."""
    m, target = Make(), parse_target("x86_64-linux-gnu,features=avx512f+avx512bw+avx512cd+avx512dq+avx512vl+fma+avx2")
    graph = m.graph(m.op("MatMul", m.input(rows, depth), m.weight(depth, 96)))
    (site,) = pack_matrices(graph, Options(target)).sites
    assert site.decision.value == vectors
