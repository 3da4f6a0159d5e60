"""A trace read from something else."""

from __future__ import annotations

from mistakes import doubled, refuses

import polycomp as pc
from polycomp.errors import TraceError


def test_trace_malformed() -> None:
    s = doubled()
    message = "this is no trace as Trace.to_json writes it: 1 is not [primitive, operands, options]"
    with refuses(s, TraceError, message):
        s.replay(pc.Trace.from_json("[1, 2]"))
