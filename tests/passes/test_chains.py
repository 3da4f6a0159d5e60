"""Passes that replace nodes, where one such node reads another."""

from __future__ import annotations

import pytest
from graph_builder import Make, check, ops

from polycomp.passes.grouped import split_groups
from polycomp.passes.packing import pack_matrices


def test_matrix_products_of_matrix_products() -> None:
    make = Make()
    first = make.op("MatMul", make.input(3, 8), make.weight(8, 5))
    biased = make.op("Add", first, make.weight(5))
    second = make.op("MatMul", biased, make.weight(5, 7))
    third = make.op("MatMul", second, make.weight(7, 2))
    assert ops(check(make.graph(second, third), pack_matrices))["MatMulPacked"] == 3


@pytest.mark.parametrize("channels", [32, 6])
def test_grouped_convolutions_of_grouped_convolutions(channels: int) -> None:
    make = Make()
    weights = [make.weight(channels, channels // 2, 1, 1) for _ in range(2)]
    first = make.conv(make.input(1, channels, 3, 4), weights[0], group=2, pad=0)
    second = make.conv(first, weights[1], group=2, pad=0)
    check(make.graph(second), split_groups)
