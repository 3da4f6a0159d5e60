"""A small workload, and builders of modules that misbehave; compile processes import them from here."""

from __future__ import annotations

import dataclasses
import time

from polycomp import te
from polycomp.codegen.llvm.machine import compile_ir
from polycomp.decisions import Decisions
from polycomp.driver.link import link_program
from polycomp.errors import ScheduleError
from polycomp.loops.program import Operand, Program, Step, Storage, Workspace
from polycomp.runtime import ModuleParts
from polycomp.target import host_target
from polycomp.tuner.builder import build_candidate
from polycomp.tuner.workload import Workload, workload_of_tensors

TILE = "t2.tile"


def product(rows: int = 24, columns: int = 40, depth: int = 16, threads: int = 1) -> Workload:
    """A small matrix product for this machine."""
    a, b = te.placeholder((rows, depth), name="a"), te.placeholder((depth, columns), name="b")
    k = te.reduce_axis(depth, "k")
    c = te.compute((rows, columns), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), "c")
    target = dataclasses.replace(host_target(), cores=threads)
    return workload_of_tensors("product", [a, b], [c], target)


LOOP = "entry:\n  br label %again\nagain:\n  br label %again"
CRASH = "entry:\n  store volatile i32 1, ptr null\n  ret void"
NOTHING = "entry:\n  ret void"

_PLANS = {2: CRASH, 3: LOOP, 4: NOTHING}
"""What the code of a candidate is, by the rows of its tile."""


def rows_of(decisions: Decisions) -> int:
    """The rows of the tile; 0 when it is the library's own."""
    tile = decisions.get(TILE)
    return tile[1] if isinstance(tile, tuple) else 0


def build_planted(workload: Workload, decisions: Decisions) -> ModuleParts:
    """Some candidates are bad in some way; the others are what they should be."""
    rows = rows_of(decisions)
    if rows in _PLANS:
        return with_code(workload, _PLANS[rows])
    if rows == 5:
        return with_code(workload, NOTHING, workspace=1 << 44)
    if rows == 6:
        bytearray(1 << 44)
    if rows == 7:
        time.sleep(3600)
    if rows == 8:
        raise ScheduleError("planted")
    return build_candidate(workload, decisions)


def with_code(workload: Workload, body: str, workspace: int = 0) -> ModuleParts:
    """A module whose kernel is ``body``, which takes so many bytes of scratch memory."""
    whole = build_candidate(workload, Decisions())
    symbol = workload.symbol
    operands = (Operand(Storage.INPUT, 0), Operand(Storage.INPUT, 1), Operand(Storage.OUTPUT, 0))
    step = Step(symbol, operands, (), Workspace(workspace, 0), (symbol,), 0, 0)
    program = Program(symbol, (), 2, 1, (step,))
    ir = f"define void @{symbol}(ptr %a, ptr %b, ptr %c, ptr %w, ptr %x) {{\n{body}\n}}\n"
    code = link_program(program, {symbol: compile_ir(ir, workload.target)}, workload.target)
    return dataclasses.replace(whole, shared_object=code)
