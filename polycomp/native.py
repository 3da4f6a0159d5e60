"""``build``: a schedule as a native function on numpy arrays."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from polycomp.codegen.llvm.emit import EmittedKernel, emit_kernel
from polycomp.codegen.llvm.machine import assembly, compile_ir, optimised_ir
from polycomp.driver.link import build_module
from polycomp.driver.manifest import ModuleInfo
from polycomp.driver.work import chosen_from, flops, moved_bytes
from polycomp.errors import BuildError, InputError
from polycomp.expr import Interval, Var, simplify, wrap
from polycomp.graph.ir import Symbol, TensorType
from polycomp.loops import LoopNest, lower_kernel
from polycomp.loops.lower import identifier
from polycomp.loops.printer import nest_text
from polycomp.loops.program import Operand, Program, Step, Storage
from polycomp.poly.kernel import Kernel
from polycomp.poly.tree import Leaf, Loop, Node
from polycomp.runtime import Module, load_parts
from polycomp.runtime.image import ModuleParts
from polycomp.schedules import Schedule
from polycomp.schedules.notation import notation
from polycomp.schedules.rewrite import as_dim
from polycomp.target import Target, check_threads, parse_target
from polycomp.te import Tensor

Array = np.ndarray[Any, Any]

_MOST_COPIES = 1 << 16  # of one statement


def build(schedule: Schedule, target: str | Target = "cpu", threads: int = 0) -> NativeFunction:
    """Compile a schedule to a function that takes numpy arrays and returns numpy arrays.

    ``target`` is ``"cpu"`` for this machine, or what ``polycomp targets`` lists; ``threads`` share the parallel loops
    (0: all cores). Raises :class:`IllegalScheduleError` when the schedule does not compute what its tensors say, and
    :class:`BuildError` for something that is no schedule, repeated names, sizes that no input tells, and too many
    copies of a statement by unrolled loops; :class:`InputError` for what is no number of threads.
    """
    if not isinstance(schedule, Schedule):
        raise BuildError(f"build takes a Schedule, not {_kind(schedule)}; make one: pc.build(pc.Schedule(C))")
    check_threads(threads)
    _check_names(schedule.kernel)
    _check_sizes(schedule.kernel)
    for node in schedule.kernel.tree:
        _check_copies(node, 1, ())
    schedule.verify()
    return NativeFunction(schedule, target if isinstance(target, Target) else parse_target(target), threads)


def _kind(value: object) -> str:
    return f"the tensor {value.name!r}" if isinstance(value, Tensor) else f"a {type(value).__name__}"


def _check_names(kernel: Kernel) -> None:
    names = [t.name for t in (*kernel.inputs, *kernel.outputs)]
    repeated = sorted({n for n in names if names.count(n) > 1})
    if repeated:
        raise BuildError(f"build: two arguments are named {repeated[0]!r}; give each tensor its own name")


def _check_sizes(kernel: Kernel) -> None:
    told = {d for t in kernel.inputs for d in t.shape if isinstance(d, Var)}
    untold = [v.name for v in kernel.sizes if v not in told]
    if untold:
        shapes = ", ".join(map(_shape_text, kernel.inputs)) or "none"
        raise BuildError(
            f"build: no input tells the size {untold[0]!r}; make it a dimension of an input (the inputs are {shapes})"
        )


def _check_copies(node: Node, copies: int, loops: tuple[str, ...]) -> None:
    """``copies`` of ``node`` are made by the unrolled and vectorised ``loops`` around it."""
    if isinstance(node, Loop) and node.kind.is_expanded and isinstance(node.extent, int):
        copies, loops = copies * node.extent, (*loops, node.var.name)
    if isinstance(node, Leaf) and copies > _MOST_COPIES:
        names = ", ".join(map(repr, loops))
        raise BuildError(
            f"build: unrolling or vectorising {names} makes {copies} copies of {node.statement}, which would take very "
            f"long to compile (at most {_MOST_COPIES} are made); split these loops and mark short inner ones instead"
        )
    for inner in () if isinstance(node, Leaf) else node.body:
        _check_copies(inner, copies, loops)


def _shape_text(tensor: Tensor) -> str:
    return f"{tensor.name}[{', '.join(notation(wrap(d)) for d in tensor.shape)}]"


class NativeFunction:
    """A compiled schedule. Call it with one array per input, in the order of ``inputs`` or by name.

    It returns a new array, or a tuple of arrays when the schedule has several outputs. Everything on the way to the
    machine code can be looked at: ``loops``, ``llvm`` and ``assembly`` are text.
    """

    def __init__(self, schedule: Schedule, target: Target, threads: int) -> None:
        self.kernel: Kernel = schedule.kernel
        self.trace = schedule.trace
        self.target, self.threads = target, threads
        self._symbol = identifier(self.kernel.name)
        self._nest: LoopNest = lower_kernel(self.kernel)
        self._emitted: EmittedKernel = emit_kernel(self._nest, target)
        self._object = compile_ir(self._emitted.ir, target)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the arguments, in order."""
        return tuple(t.name for t in self.kernel.inputs)

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(t.name for t in self.kernel.outputs)

    @property
    def loops(self) -> str:
        """The loop nest that the code was made from, as text."""
        return nest_text(self._nest)

    @functools.cached_property
    def llvm(self) -> str:
        """LLVM IR after LLVM's optimisations."""
        return optimised_ir(self._emitted.ir, self.target)

    @functools.cached_property
    def assembly(self) -> str:
        """The machine's instructions, as text."""
        return assembly(self._emitted.ir, self.target)

    @property
    def flops(self) -> Any:
        """Floating-point operations of one call, a multiply-add counted as two; an expression over symbolic sizes."""
        return flops(self.kernel.outputs)

    @property
    def scratch_bytes(self) -> Any:
        """Bytes of scratch memory of one call on one thread; an expression over symbolic sizes."""
        workspace = self._emitted.workspace
        return as_dim(simplify(wrap(workspace.shared) + workspace.per_thread))

    @functools.cached_property
    def parts(self) -> ModuleParts:
        """The module as it is linked, to be loaded here or in another process."""
        kernel = self.kernel
        operands = [Operand(Storage.INPUT, i) for i in range(len(kernel.inputs))]
        operands += [Operand(Storage.OUTPUT, i) for i in range(len(kernel.outputs))]
        sizes = self._nest.sizes
        chosen = chosen_from([t.name for t in kernel.inputs], kernel.inputs, kernel.outputs)
        work = (flops(kernel.outputs), moved_bytes(kernel.inputs, kernel.outputs), chosen)
        step = Step(self._symbol, tuple(operands), sizes, self._emitted.workspace, (kernel.name,), *work)
        program = Program(kernel.name, sizes, len(kernel.inputs), len(kernel.outputs), (step,))
        info = ModuleInfo(
            inputs={t.name: TensorType(t.dtype, t.shape) for t in kernel.inputs},
            outputs={t.name: TensorType(t.dtype, t.shape) for t in kernel.outputs},
            symbols=tuple(_symbol(v, kernel.ranges.get(v, (0, None))) for v in sizes),
            threads=self.threads,
        )
        return build_module(program, {self._symbol: self._object}, (), 0, info, self.target)

    @functools.cached_property
    def module(self) -> Module:
        """The function as a serving module, which can be saved and loaded where no compiler is."""
        return load_parts(self.parts, self.threads)

    def __call__(self, *arrays: Array, **named: Array) -> Any:
        """Run it. Raises :class:`InputError` naming everything that is wrong with the arguments."""
        results = self.module.run(self._bound(arrays, named))
        return results[self.outputs[0]] if len(results) == 1 else tuple(results[name] for name in self.outputs)

    def __repr__(self) -> str:
        arguments = ", ".join(f"{_shape_text(t)}: {t.dtype.value}" for t in self.kernel.inputs)
        return f"<{self.kernel.name}({arguments}) -> {', '.join(map(_shape_text, self.kernel.outputs))}>"

    def _bound(self, arrays: Sequence[Array], named: dict[str, Array]) -> dict[str, Array]:
        names = self.inputs
        if len(arrays) > len(names):
            raise InputError(
                f"{self.kernel.name} takes {len(names)} arrays ({', '.join(names)}), but {len(arrays)} were given"
            )
        given = dict(zip(names, arrays, strict=False))
        twice = sorted(given.keys() & named.keys())
        if twice:
            raise InputError(f"{self.kernel.name} was given {twice[0]!r} twice: by position and by name")
        return {**given, **named}


def _symbol(size: Var, interval: Interval) -> Symbol:
    low, high = interval
    return Symbol(size, 0 if low is None else max(0, math.ceil(low)), high)
