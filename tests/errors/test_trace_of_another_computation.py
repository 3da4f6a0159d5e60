"""A trace replayed on another computation."""

from __future__ import annotations

from mistakes import doubled, product, refuses

from polycomp.errors import TraceError


def test_trace_of_another_computation() -> None:
    s = doubled()
    other = product()
    other.split("i", 2)
    other.parallel("j")
    trace = other.trace
    message = (
        "step 2 of the trace, parallel('j'), does not fit this schedule: there is no loop 'j'; the loops are 'io', 'ii'"
    )
    with refuses(s, TraceError, message):
        s.replay(trace)
