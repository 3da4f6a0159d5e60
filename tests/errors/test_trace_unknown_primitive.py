"""A trace with a primitive that there is not."""

from __future__ import annotations

from mistakes import doubled, refuses

import polycomp as pc
from polycomp.errors import TraceError


def test_trace_unknown_primitive() -> None:
    s = doubled()
    message = (
        "step 1 of the trace, splt('i', 2), does not fit this schedule: there is no primitive "
        "'splt'; there are bind, cache_read, cache_write, compute_at, compute_inline, compute_root, compute_with, dot, "
        "fold_storage, fuse, pad, pad_storage, parallel, peel, pipeline, prefetch, reorder, rfactor, serial, set_scope, skew, "
        "split, swizzle_storage, tensorize, tile, unroll, unroll_and_jam, vectorize; did you mean 'split'?"
    )
    with refuses(s, TraceError, message):
        s.replay(pc.Trace.from_json('[["splt", ["i", 2], {}]]'))
