"""Calling a scalar helper function once per lane, for the rare cases that are not worth vector code."""

from __future__ import annotations

from collections.abc import Sequence

from polycomp.codegen.llvm.builder import FunctionBuilder, Value
from polycomp.codegen.llvm.num import Num


def lanewise(b: FunctionBuilder, symbol: str, inputs: Sequence[Num], outputs: int) -> tuple[Num, ...]:
    """Call ``void symbol(double input.., ptr output..)`` for each lane of float64 inputs; the outputs are float64.

    The lanes go through memory and a loop, which keeps the code small.
    """
    dtype, lanes = inputs[0].dtype, max(1, inputs[0].lanes)
    kind = inputs[0].value.type
    sources = [b.alloca(f"[{lanes} x double]", 64) for _ in inputs]
    results = [b.alloca(f"[{lanes} x double]", 64) for _ in range(outputs)]
    for source, x in zip(sources, inputs, strict=True):
        b.void(f"store {kind} {x.value.ref}, ptr {source}, align 64")
    _call_each(b, symbol, sources, results, lanes)
    loaded = (b.fresh(f"load {kind}, ptr {result}, align 64") for result in results)
    return tuple(Num(b, Value(ref, dtype, inputs[0].lanes)) for ref in loaded)


def _call_each(b: FunctionBuilder, symbol: str, sources: Sequence[str], results: Sequence[str], lanes: int) -> None:
    before, loop, done = b.label, b.new_label("lanes"), b.new_label("called")
    b.jump(loop)
    b.start(loop)
    lane, following = f"%i{b.order()}", f"%j{b.order()}"
    b.void(f"{lane} = phi i64 [ 0, %{before} ], [ {following}, %{loop} ]")
    slots = [b.fresh(f"getelementptr double, ptr {array}, i64 {lane}") for array in (*sources, *results)]
    arguments = [f"double {b.fresh(f'load double, ptr {slot}, align 8')}" for slot in slots[: len(sources)]]
    arguments += [f"ptr {slot}" for slot in slots[len(sources) :]]
    b.void(f"call void @{symbol}({', '.join(arguments)})")
    b.void(f"{following} = add i64 {lane}, 1")
    b.branch(b.fresh(f"icmp ult i64 {following}, {lanes}"), loop, done)
    b.start(done)
