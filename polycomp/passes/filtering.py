"""Which convolutions are computed by Winograd's minimal filtering, and in output tiles of which size.

Filtering does fewer multiplications, and pays with transforms of its data and with larger weights. Both ways are
estimated in cycles of one core; a layer of few channels, or of a small image and many channels, stays direct.
"""

from __future__ import annotations

import dataclasses

from polycomp.ops.winograd import POINTS
from polycomp.target import Target

_KERNELS = (3, 5)
_TILES = (2, 4)

_BYTES_PER_CYCLE = 4.5
"""How fast weights arrive at one core from behind its own caches, where a model's other layers have driven them."""

_MULTIPLYING = 1.05
"""Cycles of a matrix product by those of its multiplications alone."""

_UNHIDDEN = 0.2
"""Multiplying hides waiting for weights, or the other way round, except for this part of what takes less."""

_ADVANTAGE = 0.9
"""Filtering rounds more, so it must take no more than this part of a direct convolution's cycles."""


@dataclasses.dataclass(frozen=True)
class Layer:
    """A convolution of stride 1: channels, outputs, a kernel of ``kernel`` squared, an output of ``height * width``."""

    channels: int
    outputs: int
    kernel: int
    height: int
    width: int


def filtering_tile(layer: Layer, target: Target) -> int | None:
    """The size of output tiles by which ``layer`` is computed fastest; None when that is a direct convolution."""
    best = min(filtering_tiles(layer), key=lambda t: filtered_cycles(layer, t, target), default=None)
    if best is None or filtered_cycles(layer, best, target) > _ADVANTAGE * direct_cycles(layer, target):
        return None
    return best


def filtering_tiles(layer: Layer) -> list[int]:
    """The sizes of output tiles by which ``layer`` can be filtered at all."""
    return [t for t in _TILES if layer.kernel in _KERNELS and t + layer.kernel - 1 in (4, len(POINTS) + 1)]


def direct_cycles(layer: Layer, target: Target) -> float:
    """Cycles of a direct convolution."""
    taps = layer.kernel**2
    return _product_cycles(layer, layer.height * layer.width, taps, target)


def filtered_cycles(layer: Layer, tile: int, target: Target) -> float:
    """Cycles by minimal filtering in tiles of ``tile``."""
    lanes = target.lanes(4)
    points = (tile + layer.kernel - 1) ** 2
    count = -(-layer.height // tile) * -(-layer.width // tile)
    there, back = _transform_cycles(points, points), _transform_cycles(points, tile**2)
    transforms = count * (-(-layer.channels // lanes) * there + -(-layer.outputs // lanes) * back)
    return transforms + _product_cycles(layer, count, points, target)


def _product_cycles(layer: Layer, rows: int, products: int, target: Target) -> float:
    """Cycles of ``products`` matrix products of ``rows`` by the channels, each with weights of its own.

    Schedules take weights that fit the second-level cache to be there, and do not hide the waiting for them.
    """
    vectors = products * layer.channels * -(-layer.outputs // target.lanes(4))
    multiplying, waiting = _MULTIPLYING * rows / target.fma_units, target.vector_bytes / _BYTES_PER_CYCLE
    unhidden = 1.0 if vectors * target.vector_bytes <= target.l2_bytes else _UNHIDDEN
    return vectors * (max(multiplying, waiting) + unhidden * min(multiplying, waiting))


def _transform_cycles(read: int, written: int) -> float:
    """Of a tile's vectors: two passes of sums over what is read, a store for each result."""
    return 2.5 * read + written
