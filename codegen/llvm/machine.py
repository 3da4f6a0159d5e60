"""LLVM IR text to machine code: the only place that runs LLVM's optimiser and code generator."""

from __future__ import annotations

import functools

import llvmlite.binding as llvm

from polycomp.errors import CompileError
from polycomp.target import Target


def compile_ir(ir_text: str, target: Target, optimise: bool = True) -> bytes:
    """A relocatable ELF object (position independent, small code model) of an LLVM IR module.

    ``optimise=False`` skips the middle end; code generation still allocates registers and schedules. Raises
    :class:`CompileError` when LLVM does not accept the text.
    """
    machine, module = _lower(ir_text, target, optimise)
    return bytes(machine.emit_object(module))


def assembly(ir_text: str, target: Target) -> str:
    """The assembly of the same code that :func:`compile_ir` puts into the object."""
    machine, module = _lower(ir_text, target, True)
    return str(machine.emit_assembly(module))


def optimised_ir(ir_text: str, target: Target) -> str:
    """The IR after LLVM's middle end."""
    return str(_lower(ir_text, target, True)[1])


def _lower(ir_text: str, target: Target, optimise: bool) -> tuple[llvm.TargetMachine, llvm.ModuleRef]:
    machine = _target_machine(target)
    module = _parse(ir_text)
    module.triple = target.triple
    module.data_layout = str(machine.target_data)
    if optimise:
        _optimise(module, machine)
    return machine, module


def _parse(ir_text: str) -> llvm.ModuleRef:
    try:
        module = llvm.parse_assembly(ir_text, llvm.create_context())
        module.verify()
    except RuntimeError as error:
        raise CompileError(f"LLVM rejects the generated IR: {error}") from error
    return module


def _optimise(module: llvm.ModuleRef, machine: llvm.TargetMachine) -> None:
    """Inline the math functions, then LLVM's function simplification once, without unrolling.

    Schedules already unroll and vectorise, so that the whole default pipeline gives the same loops in twice the time.
    Every loop has a block of its own before it in the end: where a branch leads to one of two register tiles, the
    accumulators of both would otherwise be initialised before the branch, and spilt.
    """
    tuning = llvm.create_pipeline_tuning_options(speed_level=2)
    tuning.loop_unrolling = False
    builder = llvm.create_pass_builder(machine, tuning)
    inliner = llvm.create_new_module_pass_manager()
    inliner.add_always_inliner_pass()
    inliner.add_global_dead_code_eliminate_pass()
    inliner.run(module, builder)
    simplifier, preheaders = builder.getFunctionPassManager(), llvm.create_new_function_pass_manager()
    preheaders.add_loop_simplify_pass()
    for function in module.functions:
        if not function.is_declaration:
            simplifier.run(function, builder)
            preheaders.run(function, builder)


def _target_machine(target: Target) -> llvm.TargetMachine:
    _initialise()
    features = ",".join(f"+{name}" for name in target.features)
    try:
        kind = llvm.Target.from_triple(target.triple)
    except RuntimeError as error:
        raise CompileError(f"this LLVM has no code generator for {target.triple}: {error}") from error
    return kind.create_target_machine(cpu=target.cpu, features=features, opt=3, reloc="pic", codemodel="small")


@functools.cache
def _initialise() -> None:
    """Register all of LLVM's code generators, once per process.

    Two passes are switched off (for the process: LLVM has no finer switch). The scheduler before register allocation:
    code comes in the order that schedules chose, and reordering makes register tiles spill that use all registers
    exactly. Loop strength reduction: emitted addresses need none, and it takes half of the time on unrolled code.
    """
    llvm.set_option("polycomp", "-enable-misched=0")
    llvm.set_option("polycomp", "-disable-lsr")
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
