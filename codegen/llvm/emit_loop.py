"""Counted loops, and the induction variables that addresses within them use."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from polycomp.codegen.llvm import emit_index, linear
from polycomp.codegen.llvm.builder import FunctionBuilder
from polycomp.codegen.llvm.frame import Frame
from polycomp.codegen.llvm.linear import Atom, Linear, Monomial


@dataclasses.dataclass
class Counter:
    """A loop's counter, from which multiples are derived that are added to instead of multiplied.

    LLVM's own strength reduction finds the same but takes half of the compile time for it on unrolled code. The slots
    are the places before the loop, among its phis, and at its end.
    """

    atom: Atom
    start: str
    before: str
    latch: str
    setup_slot: list[str]
    phi_slot: list[str]
    step_slot: list[str]
    multiples: dict[tuple[Monomial, int], str] = dataclasses.field(default_factory=dict)

    def multiple(self, b: FunctionBuilder, others: Monomial, factor: int) -> str:
        """``counter * factor * product(others)`` for atoms that are defined outside of the loop."""
        known = self.multiples.get((others, factor))
        if known is None:
            known = self.multiples[others, factor] = self._derive(b, others, factor)
        return known

    def _derive(self, b: FunctionBuilder, others: Monomial, factor: int) -> str:
        step = str(factor)
        for atom in others:
            step = self._before_loop(b, f"mul i64 {atom.ref}, {step}")
        first = "0" if self.start == "0" else self._before_loop(b, f"mul i64 {self.start}, {step}")
        name = f"%d{b.order()}"
        self.phi_slot.append(f"  {name} = phi i64 [ {first}, %{self.before} ], [ {name}.next, %{self.latch} ]")
        self.step_slot.append(f"  {name}.next = add i64 {name}, {step}")
        return name

    def _before_loop(self, b: FunctionBuilder, text: str) -> str:
        name = f"%d{b.order()}"
        self.setup_slot.append(f"  {name} = {text}")
        return name


def counted_loop(frame: Frame, start: Linear, stop: Linear, body: Callable[[Linear], None]) -> None:
    """``body(i)`` for ``start <= i < stop``, in LLVM's rotated form: one test before, then one after each iteration."""
    b = frame.b
    head, latch, done = b.new_label("loop"), b.new_label("next"), b.new_label("done")
    first, last = emit_index.to_value(b, start), emit_index.to_value(b, stop)
    entered = emit_index.compare(b, "lt", start, stop).ref
    before, setup_slot = b.label, b.slot()
    if entered == "true":
        b.jump(head)
    else:
        b.branch(entered, head, done)
    b.start(head)
    number = b.order()
    counter, following = f"%i{number}", f"%j{number}"
    b.void(f"{counter} = phi i64 [ {first.ref}, %{before} ], [ {following}, %{latch} ]")
    low, high = linear.bounds(start)[0], linear.bounds(stop)[1]
    atom = b.atom(counter, low, None if high is None else high - 1)
    phi_slot, step_slot = b.slot(), list[str]()
    frame.counters[atom] = Counter(atom, first.ref, before, latch, setup_slot, phi_slot, step_slot)
    with frame.region():
        body(linear.of_atom(atom))
    b.jump(latch)
    b.start(latch)
    b.slot().extend(step_slot)
    b.void(f"{following} = add nsw i64 {counter}, 1")
    again = b.fresh(f"icmp slt i64 {following}, {last.ref}")
    b.branch(again, head, done)
    b.start(done)
