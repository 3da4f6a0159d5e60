"""Loop nests to LLVM IR: one function per kernel, and one per parallel loop in it."""

from __future__ import annotations

import dataclasses

from polycomp.codegen.llvm import emit_stmt
from polycomp.codegen.llvm.builder import FunctionBuilder, ModuleBuilder
from polycomp.codegen.llvm.frame import Frame
from polycomp.codegen.llvm.linear import of_atom
from polycomp.codegen.workspace import plan_workspace
from polycomp.loops import LoopNest
from polycomp.loops.program import Workspace
from polycomp.target import Target


@dataclasses.dataclass(frozen=True)
class EmittedKernel:
    """A module in LLVM IR with one kernel, and the scratch memory that it needs."""

    ir: str
    workspace: Workspace


def emit_kernel(nest: LoopNest, target: Target) -> EmittedKernel:
    """The kernel ``nest.name`` as LLVM IR.

    Its signature is ``void(ptr input0.., ptr output0.., i64 size0.., ptr workspace, ptr context)``, no buffer
    overlaps another, and each is aligned as it says.
    """
    module = ModuleBuilder(target)
    b = FunctionBuilder(module)
    frame = Frame(b, nest.name, plan_workspace(nest))
    parameters: list[str] = []
    for buffer in (*nest.inputs, *nest.outputs):
        frame.pointers[buffer] = f"%a{len(parameters)}"
        parameters.append(f"ptr noalias align {buffer.alignment} %a{len(parameters)}")
    for position, size in enumerate(nest.sizes):
        frame.env[size] = of_atom(b.atom(f"%n{position}", 0, None))
        parameters.append(f"i64 %n{position}")
    emit_stmt.statement(frame, nest.body)
    b.void("ret void")
    parameters += ["ptr noalias align 64 %workspace", "ptr noalias %context"]
    header = _header(nest)
    text = f"define void @{nest.name}({', '.join(parameters)}) nounwind {{\n{b.body()}\n}}\n"
    return EmittedKernel(f"{header}{text}{module.text()}", frame.plan.workspace)


def _header(nest: LoopNest) -> str:
    return "".join(f"; {source}\n" for source in nest.sources).replace("\r", " ")
