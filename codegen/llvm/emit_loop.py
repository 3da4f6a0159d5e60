"""Counted loops."""

from __future__ import annotations

from collections.abc import Callable

from polycomp.codegen.llvm import emit_index, linear
from polycomp.codegen.llvm.frame import Frame
from polycomp.codegen.llvm.linear import Atom, Linear


def counted_loop(frame: Frame, start: Linear, stop: Linear, body: Callable[[Linear], None]) -> None:
    """``body(i)`` for ``start <= i < stop``, in LLVM's rotated form: one test before, then one after each iteration."""
    b = frame.b
    head, latch, done = b.new_label("loop"), b.new_label("next"), b.new_label("done")
    first, last = emit_index.to_value(b, start), emit_index.to_value(b, stop)
    entered = emit_index.compare(b, "lt", start, stop).ref
    before = b.label
    if entered == "true":
        b.jump(head)
    else:
        b.branch(entered, head, done)
    b.start(head)
    counter, following = f"%i{b.order()}", f"%j{b.order()}"
    b.void(f"{counter} = phi i64 [ {first.ref}, %{before} ], [ {following}, %{latch} ]")
    low, high = linear.bounds(start)[0], linear.bounds(stop)[1]
    with frame.region():
        body(linear.of_atom(Atom(counter, low, None if high is None else high - 1, b.order())))
    b.jump(latch)
    b.start(latch)
    b.void(f"{following} = add nsw i64 {counter}, 1")
    again = b.fresh(f"icmp slt i64 {following}, {last.ref}")
    b.branch(again, head, done)
    b.start(done)
