"""An explanation of a primitive that there is not."""

from __future__ import annotations

from mistakes import doubled, refuses

from polycomp.errors import ScheduleError


def test_explain_unknown_primitive() -> None:
    s = doubled()
    message = (
        "there is no primitive 'vectorise'; there are bind, cache_read, cache_write, compute_at, "
        "compute_inline, compute_root, compute_with, dot, fold_storage, fuse, pad, pad_storage, parallel, peel, "
        "pipeline, prefetch, reorder, rfactor, serial, set_scope, skew, split, swizzle_storage, "
        "tensorize, tile, unroll, unroll_and_jam, vectorize; did you mean 'vectorize'?"
    )
    with refuses(s, ScheduleError, message):
        s.explain("vectorise", "i")
