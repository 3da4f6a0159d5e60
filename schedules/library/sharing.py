"""How evenly threads share out a loop over blocks and a loop over tiles in it: each thread gets as many iterations of
both as the others, one after the other.

Those of a short last block are less work, so that the threads which get none of them have more than their part.
"""

from __future__ import annotations

import itertools
import math


def longest_share(extent: int, block: int, rows: int, tile: int, cores: int) -> int:
    """The work of the thread that gets the most of ``extent`` times ``rows``, in blocks of the former outside of tiles
    of the latter."""
    tiles = math.ceil(rows / tile)
    each, longer = divmod(math.ceil(extent / block) * tiles, cores)
    done = [_work_before(each * i + min(i, longer), extent, block, rows, tile) for i in range(cores + 1)]
    return max(end - begin for begin, end in itertools.pairwise(done))


def _work_before(iteration: int, extent: int, block: int, rows: int, tile: int) -> int:
    whole, tiles = divmod(iteration, math.ceil(rows / tile))
    before = min(whole * block, extent)
    return before * rows + min(block, extent - before) * min(tiles * tile, rows)
