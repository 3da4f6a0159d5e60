"""Loop nests to CUDA C: one function per launch, readable, in terms of the model's and the schedule's names."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from polycomp.codegen.cuda import code
from polycomp.codegen.cuda.code import INT, LONG, Code
from polycomp.codegen.cuda.expressions import index
from polycomp.codegen.cuda.frame import Frame
from polycomp.codegen.cuda.functions import needed_functions
from polycomp.codegen.cuda.groups import find_groups
from polycomp.codegen.cuda.launches import Piece, split
from polycomp.codegen.cuda.names import Names, comment
from polycomp.codegen.cuda.prelude import PRELUDE
from polycomp.codegen.cuda.shared import SharedMemory, check_size, plan_shared
from polycomp.codegen.cuda.spans import Span
from polycomp.codegen.cuda.statements import statement
from polycomp.codegen.cuda.warpgroups import warpgroup_functions
from polycomp.codegen.workspace import WorkspacePlan, plan_workspace
from polycomp.errors import CompileError
from polycomp.expr import Interval, Load, Ranges, Var, wrap
from polycomp.expr import walk as walk_expression
from polycomp.loops import Buffer, LoopNest, Stmt, Store
from polycomp.loops.program import Workspace
from polycomp.loops.visit import expressions, walk
from polycomp.target import WITH_WARPGROUPS, Target
from polycomp.te import Dim


@dataclasses.dataclass(frozen=True)
class Launch:
    """A function, the number of its blocks (0: it is not launched), the threads of a block, and the bytes of shared
    memory that are asked for at the launch."""

    function: str
    grid: Dim
    block: int
    shared_bytes: int


@dataclasses.dataclass(frozen=True)
class EmittedCuda:
    """CUDA C of a kernel without the prelude, its launches in order, and the scratch memory that it needs."""

    source: str
    launches: tuple[Launch, ...]
    workspace: Workspace

    @property
    def has_tensor_products(self) -> bool:
        """Whether tensor cores multiply in it."""
        return any(name in self.source for name in ("pc_mma_", "pc_multiply_"))

    @property
    def is_portable(self) -> bool:
        """Whether later architectures have all of its instructions."""
        return not warpgroup_functions(self.source)


def emit_cuda(nest: LoopNest, target: Target, ranges: Ranges | None = None) -> EmittedCuda:
    """The kernel as CUDA C; ``ranges`` are inclusive bounds of its sizes.

    All of its functions have the signature ``void NAME_k(const T* input0.., T* output0.., long long size0.., unsigned
    char* workspace, long long* status)``. No buffer overlaps another, and all begin at multiples of 16 bytes.

    Raises :class:`CompileError` for what a GPU cannot do: blocks that are too large, loops over threads of no constant
    extent, too much shared memory, products of warpgroups for architectures that have none.
    """
    known: dict[Var, Interval] = dict.fromkeys(nest.sizes, (0, None)) | dict(ranges or {})
    plan = plan_workspace(nest)
    if plan.private:
        name = min(buffer.name for buffer in plan.private)
        raise CompileError(f"kernel {nest.name!r} has scratch memory {name!r} for each thread of a CPU, a GPU has none")
    base = re.sub(r"\W", "_", nest.name)
    functions, launches = [], []
    for number, piece in enumerate(split(nest, known)):
        name = f"{base}_{number}"
        frame = _frame(nest, piece, plan, known)
        functions.append(_function(name, nest, piece, frame))
        exchanged = sum(dtype.bytes * size for dtype, size in frame.scratch)
        check_size(frame.shared.bytes + exchanged, nest.name, target)
        launches.append(Launch(name, piece.grid, piece.threads, frame.shared.dynamic_bytes))
    text = "\n".join(functions)
    emitted = EmittedCuda(needed_functions(text) + text, tuple(launches), plan.workspace)
    if not emitted.is_portable and target.features != (WITH_WARPGROUPS,):
        raise CompileError(
            f"kernel {nest.name!r} multiplies swizzled operands, as warpgroups do, which only {WITH_WARPGROUPS} has, "
            f"not {', '.join(target.features)}; compile it for 'cuda,arch={WITH_WARPGROUPS}' alone"
        )
    return emitted


def full_source(emitted: EmittedCuda) -> str:
    """What NVRTC compiles: the prelude's functions and the kernel."""
    return PRELUDE + warpgroup_functions(emitted.source) + emitted.source


@dataclasses.dataclass(frozen=True)
class _Parameters:
    """A kernel's parameters in C, and what its buffers and sizes are called. ``casts`` are the sizes that are ints."""

    text: str
    places: Mapping[Buffer, str]
    sizes: Mapping[Var, Code]
    casts: Mapping[str, str]
    names: Names


def _parameters(nest: LoopNest, ranges: Ranges) -> _Parameters:
    names = Names()
    places: dict[Buffer, str] = {}
    declared: list[str] = []
    for buffer in (*nest.inputs, *nest.outputs):
        places[buffer] = names.fresh(buffer.name)
        constant = "const " if buffer in nest.inputs else ""
        declared.append(f"{constant}{code.memory_type(buffer.dtype)}* __restrict__ {places[buffer]}")
    sizes: dict[Var, Code] = {}
    casts: dict[str, str] = {}
    for size in nest.sizes:
        name = names.fresh(size.name)
        kind = INT if Span(*ranges.get(size, (0, None)), True).fits(32) else LONG
        if kind == INT:
            casts[name] = names.fresh(f"{size.name}_size")
        sizes[size] = Code(name, kind)
        declared.append(f"long long {casts.get(name, name)}")
    declared += ["unsigned char* __restrict__ workspace", "long long* __restrict__ status"]
    return _Parameters(",\n    ".join(declared), places, sizes, casts, names)


def _frame(nest: LoopNest, piece: Piece, plan: WorkspacePlan, ranges: Ranges) -> Frame:
    parameters = _parameters(nest, ranges)
    groups = find_groups(piece.body, nest.name)
    shared = plan_shared(piece, groups, nest.name)
    names = Names(parameters.names)
    frame = Frame(nest.name, plan, names, piece.threads, dict(ranges), groups, shared, piece.extents)
    frame.env |= parameters.sizes
    frame.places |= parameters.places
    return frame


def _function(name: str, nest: LoopNest, piece: Piece, frame: Frame) -> str:
    """The text of one launch's function."""
    _declare_workspace(frame, piece.body)
    statement(frame, piece.body)
    body = "\n".join([*frame.header, *frame.lines])
    parameters = _parameters(nest, frame.ranges)
    used = [(size, given) for size, given in parameters.casts.items() if re.search(rf"\b{size}\b", body)]
    casts = "".join(f"    const int {size} = (int){given};\n" for size, given in used)
    dynamic = _dynamic_memory(frame.shared) if frame.shared.dynamic_bytes else ""
    title = "".join(f" * {comment(source)}\n" for source in nest.sources)
    head = f'extern "C" __global__ void __launch_bounds__({piece.threads}) {name}(\n    {parameters.text}) {{\n'
    return (f"/*\n{title} */\n" if title else "") + head + casts + dynamic + body + "\n}\n"


def _dynamic_memory(shared: SharedMemory) -> str:
    return f"    extern __shared__ __align__({shared.alignment}) unsigned char shared_memory[];\n"


def _declare_workspace(frame: Frame, body: Stmt) -> None:
    """Pointers to the scratch memory that the function uses."""
    used = dict.fromkeys(buffer for buffer in _buffers(body) if buffer in frame.plan.offsets)
    for buffer in used:
        kind = code.memory_type(buffer.dtype)
        offset = index(frame, wrap(frame.plan.offsets[buffer]))
        frame.places[buffer] = place = frame.names.fresh(buffer.name)
        where = "workspace" if offset.text == "0" else f"workspace + {offset.within(code.PRODUCT)}"
        frame.header.append(f"    {kind}* const {place} = ({kind}*)({where});")


def _buffers(body: Stmt) -> list[Buffer]:
    found: list[Buffer] = []
    for stmt in walk(body):
        if isinstance(stmt, Store):
            found.append(stmt.buffer)
        for e in expressions(stmt):
            found += [part.source for part in walk_expression(e) if isinstance(part, Load)]
    return found
