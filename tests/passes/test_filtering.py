"""Which layers are computed by minimal filtering: a choice by estimated cycles."""

from __future__ import annotations

import dataclasses

import pytest

from polycomp.passes.filtering import Layer, direct_cycles, filtered_cycles, filtering_tile
from polycomp.target import Target, parse_target


def target(text: str) -> Target:
    """With caches that are the same on all machines."""
    return dataclasses.replace(parse_target(text), l2_bytes=1 << 20)


AVX2 = target("x86_64-linux-gnu,features=avx2+fma")
AVX512 = target("x86_64-linux-gnu,features=avx2+fma+avx512f+avx512bw+avx512cd+avx512dq+avx512vl")
NEON = target("aarch64-linux-gnu")
TYPICAL = Layer(64, 64, 3, 56, 56)


@pytest.mark.parametrize("target", [AVX2, NEON])
def test_a_typical_layer_is_filtered_in_large_tiles(target):
    assert filtering_tile(TYPICAL, target) == 4
    assert filtering_tile(dataclasses.replace(TYPICAL, kernel=5), target) == 2


@pytest.mark.parametrize("kernel", [1, 2, 4, 7])
def test_other_kernels_are_direct(kernel):
    assert filtering_tile(dataclasses.replace(TYPICAL, kernel=kernel), AVX2) is None


def test_few_channels_are_direct():
    assert filtering_tile(Layer(8, 8, 3, 6, 6), AVX2) is None


def test_many_channels_of_a_tiny_image_are_direct():
    """The transformed weights are four times as large, and each is used for one tile only."""
    assert filtering_tile(Layer(512, 512, 3, 3, 3), AVX2) is None
    assert filtering_tile(Layer(512, 512, 3, 14, 14), AVX2) is not None


def test_tiles_that_would_hang_over_are_smaller():
    layer = Layer(128, 128, 3, 6, 6)
    assert filtering_tile(layer, AVX2) == 2
    assert filtered_cycles(layer, 2, AVX2) < direct_cycles(layer, AVX2) < filtered_cycles(layer, 4, AVX2)


def test_weights_that_arrive_slowly_are_kept_small():
    """Multiplications alone would make tiles of 4 the best for both images."""
    assert filtering_tile(Layer(256, 256, 3, 56, 56), AVX2) == 4
    assert filtering_tile(Layer(256, 256, 3, 8, 8), AVX2) == 2


@pytest.mark.parametrize(
    ("layer", "with_one", "with_two"), [(Layer(512, 512, 3, 7, 7), 2, None), (Layer(256, 256, 3, 14, 14), 4, 2)]
)
def test_what_multiplies_slower_saves_more_by_filtering(layer, with_one, with_two):
    """With one unit, multiplications hide the waiting for larger weights longer."""
    one, two = (dataclasses.replace(AVX512, fma_units=n) for n in (1, 2))
    assert filtering_tile(layer, one) == with_one
    assert filtering_tile(layer, two) == with_two
    assert direct_cycles(layer, two) < direct_cycles(layer, one)


def test_weights_that_fit_the_second_level_cache_are_waited_for():
    """Their schedule takes them to be there, so the smaller ones of small tiles do better; else tiles of 4 hide it."""
    layer, one = Layer(64, 96, 3, 14, 14), dataclasses.replace(AVX512, fma_units=1)
    assert filtering_tile(layer, one) == 2
    assert filtering_tile(layer, dataclasses.replace(one, l2_bytes=1 << 18)) == 4
