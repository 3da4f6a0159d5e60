"""``build``: a schedule as a native function on arrays."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from polycomp.codegen.cuda.emit import emit_cuda, full_source
from polycomp.codegen.cuda.nvrtc import compile_source
from polycomp.codegen.llvm.emit import emit_kernel
from polycomp.codegen.llvm.machine import assembly, compile_ir, optimised_ir
from polycomp.driver.device import DeviceKernel, build_device_module
from polycomp.driver.link import build_module
from polycomp.driver.manifest import ModuleInfo
from polycomp.driver.targets import as_target, load_or_defer
from polycomp.driver.work import chosen_from, flops, moved_bytes
from polycomp.errors import BuildError, CompileError, InputError, TargetError
from polycomp.expr import Interval, Var, simplify, wrap
from polycomp.graph.ir import Symbol, TensorType
from polycomp.loops import LoopNest, lower_kernel
from polycomp.loops.lower import identifier
from polycomp.loops.printer import nest_text
from polycomp.loops.program import Operand, Program, Step, Storage, Workspace
from polycomp.poly.kernel import Kernel
from polycomp.poly.tree import Allocate, Leaf, Loop, LoopKind, Node, Scope, walk
from polycomp.runtime import Module
from polycomp.runtime.cuda.plan import MOST_THREADS
from polycomp.runtime.image import ModuleParts, assemble
from polycomp.schedules import Schedule
from polycomp.schedules.notation import notation
from polycomp.schedules.rewrite import as_dim
from polycomp.target import Target
from polycomp.te import Tensor

_MOST_COPIES = 1 << 16  # of one statement

_OF_A_GPU = {
    LoopKind.BLOCK: "bound to the blocks",
    LoopKind.THREAD: "bound to the threads",
    LoopKind.TENSOR: "for the tensor cores",
}


def build(schedule: Schedule, target: str | Target = "cpu", threads: int = 0) -> NativeFunction:
    """Compile a schedule to a function that takes numpy arrays and returns numpy arrays.

    ``target`` is ``"cpu"`` for this machine, or what ``polycomp targets`` lists; ``threads`` share the parallel loops
    (0: all cores). A function for ``"cuda"`` also takes arrays on a GPU, of cupy and others, and then returns cupy's;
    its loops are bound to blocks and threads (:meth:`Schedule.bind`), or else one thread does it all.

    Raises :class:`IllegalScheduleError` when the schedule does not compute what its tensors say, and
    :class:`BuildError` for something that is no schedule, repeated names, sizes that no input tells, too many copies of
    a statement by unrolled loops, and loops of another kind of target; :class:`InputError` for what is no number of
    threads; :class:`TargetError` for a target that there is not, or that this install cannot compile for.
    """
    if not isinstance(schedule, Schedule):
        raise BuildError(f"build takes a Schedule, not {_kind(schedule)}; make one: pc.build(pc.Schedule(C))")
    wanted = as_target(target, threads)
    _check_names(schedule.kernel)
    _check_sizes(schedule.kernel)
    for node in schedule.kernel.tree:
        _check_copies(node, 1, ())
    (_check_for_gpu if wanted.is_gpu else _check_for_cpu)(schedule.kernel)
    schedule.verify()
    return NativeFunction(schedule, wanted, threads)


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
    expanded = isinstance(node, Loop) and node.kind.is_expanded and node.kind is not LoopKind.THREAD
    if expanded and isinstance(node, Loop) and isinstance(node.extent, int):
        copies, loops = copies * node.extent, (*loops, node.var.name)
    if isinstance(node, Leaf) and copies > _MOST_COPIES:
        names = ", ".join(map(repr, loops))
        raise BuildError(
            f"build: unrolling or vectorising {names} makes {copies} copies of {node.statement}, which would take very "
            f"long to compile (at most {_MOST_COPIES} are made); split these loops and mark short inner ones instead"
        )
    for inner in () if isinstance(node, Leaf) else node.body:
        _check_copies(inner, copies, loops)


def _check_for_cpu(kernel: Kernel) -> None:
    for node, _ in walk(kernel.tree):
        if isinstance(node, Loop) and node.kind in _OF_A_GPU:
            raise BuildError(
                f"build: loop {node.var.name!r} is {_OF_A_GPU[node.kind]} of a GPU; build for one with "
                f'target="cuda", or take it back with serial({node.var.name!r})'
            )
        if isinstance(node, Allocate) and node.scope is Scope.SHARED:
            raise BuildError(
                f"build: {node.tensor.name!r} is in shared memory, which a GPU has; build for one with "
                f'target="cuda", or use set_scope({node.tensor.name!r}, "workspace")'
            )


def _check_for_gpu(kernel: Kernel) -> None:
    for node, path in walk(kernel.tree):
        if isinstance(node, Loop) and node.kind is LoopKind.PARALLEL:
            raise BuildError(
                f"build: loop {node.var.name!r} is parallel, which is for CPUs; for a GPU use "
                f'bind({node.var.name!r}, "block")'
            )
        threads = [n for n in (*path, node) if isinstance(n, Loop) and n.kind is LoopKind.THREAD]
        count = math.prod(n.extent for n in threads if isinstance(n.extent, int))
        if count > MOST_THREADS:
            names = ", ".join(repr(n.var.name) for n in threads)
            raise BuildError(
                f"build: binding {names} to threads makes blocks of {count}, and a GPU has {MOST_THREADS} at most; "
                f"split these loops and bind shorter ones"
            )


def _shape_text(tensor: Tensor) -> str:
    return f"{tensor.name}[{', '.join(notation(wrap(d)) for d in tensor.shape)}]"


class _Code(Protocol):
    """The code of a kernel: its text, what scratch memory it needs, and the module that it makes."""

    @property
    def workspace(self) -> Workspace: ...

    @property
    def llvm(self) -> str: ...

    @property
    def cuda(self) -> str: ...

    @property
    def assembly(self) -> str: ...

    def module(self, program: Program, info: ModuleInfo) -> ModuleParts: ...


class _CpuCode:
    def __init__(self, kernel: Kernel, nest: LoopNest, target: Target) -> None:
        self._target = target
        self._emitted = emit_kernel(nest, target)
        self._object = compile_ir(self._emitted.ir, target)
        self.workspace = self._emitted.workspace

    @property
    def llvm(self) -> str:
        return optimised_ir(self._emitted.ir, self._target)

    @property
    def cuda(self) -> str:
        raise TargetError('a function for a CPU has no CUDA C: look at .llvm, or build it with target="cuda"')

    @property
    def assembly(self) -> str:
        return assembly(self._emitted.ir, self._target)

    def module(self, program: Program, info: ModuleInfo) -> ModuleParts:
        (step,) = program.steps
        return build_module(program, {step.symbol: self._object}, (), 0, info, self._target)


class _GpuCode:
    def __init__(self, kernel: Kernel, nest: LoopNest, target: Target) -> None:
        self._target = target
        with _blaming_the_schedule():
            emitted = emit_cuda(nest, target, kernel.ranges)
        own = "" if emitted.is_portable else target.cpu
        code = compile_source(full_source(emitted), nest.name, target.features, own)
        self._device = DeviceKernel(emitted.source, emitted.launches, code, emitted.workspace, nest.sizes)
        self.workspace = emitted.workspace

    @property
    def llvm(self) -> str:
        raise TargetError("a function for a GPU is not made by LLVM: look at .cuda, or build it for another target")

    @property
    def cuda(self) -> str:
        return self._device.source

    @property
    def assembly(self) -> str:
        return self._device.code.ptx.rstrip(b"\0").decode()

    def module(self, program: Program, info: ModuleInfo) -> ModuleParts:
        (step,) = program.steps
        return build_device_module(program, {step.symbol: self._device}, (), 0, info, self._target)


class NativeFunction:
    """A compiled schedule. Call it with one array per input, in the order of ``inputs`` or by name.

    It returns a new array, or a tuple of arrays when the schedule has several outputs. Everything on the way to the
    machine code can be looked at: ``loops``, ``llvm`` (for a GPU, ``cuda``) and ``assembly`` are text.
    """

    def __init__(self, schedule: Schedule, target: Target, threads: int) -> None:
        self.kernel: Kernel = schedule.kernel
        self.trace = schedule.trace
        self.target, self.threads = target, threads
        self._symbol = identifier(self.kernel.name)
        with _blaming_the_schedule() if target.is_gpu else contextlib.nullcontext():
            self._nest: LoopNest = lower_kernel(self.kernel)
        self._code: _Code = (_GpuCode if target.is_gpu else _CpuCode)(self.kernel, self._nest, target)

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
        """LLVM IR after LLVM's optimisations. Raises :class:`TargetError` for a GPU."""
        return self._code.llvm

    @property
    def cuda(self) -> str:
        """CUDA C, without the functions that all kernels share. Raises :class:`TargetError` for a CPU."""
        return self._code.cuda

    @functools.cached_property
    def assembly(self) -> str:
        """The machine's instructions, as text; for a GPU, PTX."""
        return self._code.assembly

    @property
    def flops(self) -> Any:
        """Floating-point operations of one call, a multiply-add counted as two; an expression over symbolic sizes."""
        return flops(self.kernel.outputs)

    @property
    def scratch_bytes(self) -> Any:
        """Bytes of scratch memory of one call on one thread; an expression over symbolic sizes."""
        workspace = self._code.workspace
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
        step = Step(self._symbol, tuple(operands), sizes, self._code.workspace, (kernel.name,), *work)
        program = Program(kernel.name, sizes, len(kernel.inputs), len(kernel.outputs), (step,))
        info = ModuleInfo(
            inputs={t.name: TensorType(t.dtype, t.shape) for t in kernel.inputs},
            outputs={t.name: TensorType(t.dtype, t.shape) for t in kernel.outputs},
            symbols=tuple(_symbol(v, kernel.ranges.get(v, (0, None))) for v in sizes),
            threads=self.threads,
        )
        return self._code.module(program, info)

    @functools.cached_property
    def module(self) -> Module:
        """The function as a serving module, which can be saved and loaded where no compiler is."""
        return load_or_defer(assemble(self.parts), self.threads)

    def __call__(self, *arrays: Any, **named: Any) -> Any:
        """Run it. Raises :class:`InputError` naming everything that is wrong with the arguments."""
        results = self.module.run(self._bound(arrays, named))
        return results[self.outputs[0]] if len(results) == 1 else tuple(results[name] for name in self.outputs)

    def __repr__(self) -> str:
        arguments = ", ".join(f"{_shape_text(t)}: {t.dtype.value}" for t in self.kernel.inputs)
        return f"<{self.kernel.name}({arguments}) -> {', '.join(map(_shape_text, self.kernel.outputs))}>"

    def _bound(self, arrays: Sequence[Any], named: dict[str, Any]) -> dict[str, Any]:
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


@contextlib.contextmanager
def _blaming_the_schedule() -> Iterator[None]:
    """What a GPU's blocks and threads cannot do is only found on the way to its code."""
    try:
        yield
    except CompileError as error:
        raise BuildError(f"build: {error}") from error


def _symbol(size: Var, interval: Interval) -> Symbol:
    low, high = interval
    return Symbol(size, 0 if low is None else max(0, math.ceil(low)), high)
