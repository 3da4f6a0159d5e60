"""Small modules made of kernels written as LLVM IR."""

from __future__ import annotations

import functools

import numpy as np

from polycomp.codegen.llvm.machine import compile_ir
from polycomp.driver.link import build_module
from polycomp.driver.manifest import ModuleInfo
from polycomp.dtypes import DType
from polycomp.expr import Var
from polycomp.graph.ir import Symbol, TensorType
from polycomp.loops.program import Operand, Program, Step, Storage, Workspace
from polycomp.runtime import ModuleParts
from polycomp.target import Target, host_target

N = Var("N")

# out[i] = x[i] + y[i] for n floats, in parallel. Every thread first writes its index to its part of the workspace.
ADD = """
declare void @polycomp_parallel_for(ptr, ptr, ptr, i64)
define internal void @add_chunk(ptr %arguments, i64 %begin, i64 %end, i64 %thread) {
entry:
  %x = load ptr, ptr %arguments
  %y.at = getelementptr ptr, ptr %arguments, i64 1
  %y = load ptr, ptr %y.at
  %out.at = getelementptr ptr, ptr %arguments, i64 2
  %out = load ptr, ptr %out.at
  %workspace.at = getelementptr ptr, ptr %arguments, i64 3
  %workspace = load ptr, ptr %workspace.at
  %private.offset = mul i64 %thread, 128
  %private = getelementptr i8, ptr %workspace, i64 %private.offset
  store i64 %thread, ptr %private
  br label %next
next:
  %i = phi i64 [ %begin, %entry ], [ %i.next, %next ]
  %x.i = getelementptr float, ptr %x, i64 %i
  %y.i = getelementptr float, ptr %y, i64 %i
  %out.i = getelementptr float, ptr %out, i64 %i
  %a = load float, ptr %x.i
  %b = load float, ptr %y.i
  %sum = fadd float %a, %b
  store float %sum, ptr %out.i
  %i.next = add i64 %i, 1
  %more = icmp slt i64 %i.next, %end
  br i1 %more, label %next, label %done
done:
  ret void
}
define void @add(ptr noalias %x, ptr noalias %y, ptr noalias %out, i64 %n, ptr %workspace, ptr %context) {
  %arguments = alloca [4 x ptr]
  store ptr %x, ptr %arguments
  %y.at = getelementptr ptr, ptr %arguments, i64 1
  store ptr %y, ptr %y.at
  %out.at = getelementptr ptr, ptr %arguments, i64 2
  store ptr %out, ptr %out.at
  %workspace.at = getelementptr ptr, ptr %arguments, i64 3
  store ptr %workspace, ptr %workspace.at
  %pool = load ptr, ptr %context
  call void @polycomp_parallel_for(ptr %pool, ptr @add_chunk, ptr %arguments, i64 %n)
  ret void
}
"""

# out = x, and reports an index out of range when x is negative.
CHECK = """
define void @check(ptr noalias %x, ptr noalias %out, ptr %workspace, ptr %context) {
  %value = load float, ptr %x
  store float %value, ptr %out
  %bad = fcmp olt float %value, 0.0
  br i1 %bad, label %fail, label %done
fail:
  %status = getelementptr { ptr, i64, ptr }, ptr %context, i64 0, i32 1
  store atomic i64 1, ptr %status monotonic, align 8
  br label %done
done:
  ret void
}
"""


def floats(*shape) -> TensorType:
    return TensorType(DType.FLOAT32, shape)


def given(position: int) -> Operand:
    return Operand(Storage.INPUT, position)


@functools.cache
def kernel(text: str, target: Target | None = None) -> bytes:
    return compile_ir(text, target or host_target())


def symbolic_parts(maximum: int | None = 1000, target: Target | None = None, **info) -> ModuleParts:
    """``out = (x + y) + [0, 1, 2, ...]`` for vectors of N floats."""
    target = target or host_target()
    temporary = Operand(Storage.ARENA, offset=64)
    workspace = Workspace(shared=0, per_thread=8)
    steps = (
        Step("add", (given(0), given(1), temporary), (N,), workspace, ("first", "again"), N, N * 12),
        Step("add", (temporary, Operand(Storage.WEIGHT, offset=64), Operand(Storage.OUTPUT)), (N,), workspace),
    )
    program = Program("tiny", (N,), 2, 1, steps, arena_bytes=64 + (N * 4 + 63) // 64 * 64)
    count = maximum or 1000
    weights = [(64, np.arange(count, dtype=np.float32))]
    details = ModuleInfo({"x": floats(N), "y": floats(N)}, {"out": floats(N)}, (Symbol(N, 1, maximum),), **info)
    return build_module(program, {"add": kernel(ADD, target)}, weights, 64 + 4 * count, details, target)


def static_parts(shape: tuple[int, ...] = (2, 3)) -> ModuleParts:
    """``out = x + y`` for floats of a fixed shape."""
    step = Step("add", (given(0), given(1), Operand(Storage.OUTPUT)), (int(np.prod(shape)),), Workspace(0, 8))
    info = ModuleInfo({"x": floats(*shape), "y": floats(*shape)}, {"out": floats(*shape)})
    return build_module(Program("fixed", (), 2, 1, (step,)), {"add": kernel(ADD)}, [], 0, info, host_target())


def checked_parts() -> ModuleParts:
    """``out = x`` for a scalar; a negative one makes the run fail."""
    step = Step("check", (given(0), Operand(Storage.OUTPUT)))
    info = ModuleInfo({"x": floats()}, {"out": floats()})
    return build_module(Program("checked", (), 1, 1, (step,)), {"check": kernel(CHECK)}, [], 0, info, host_target())
