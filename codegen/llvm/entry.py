"""The entry functions of a module as LLVM IR: they run a Program's steps on the memory they are given."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from polycomp.codegen.workspace import THREAD_ALIGNMENT
from polycomp.dtypes import DType
from polycomp.errors import CompileError
from polycomp.expr import Binary, Cast, Compare, Const, Expr, Select, Unary, Var
from polycomp.loops.program import Operand, Program, Step, Storage
from polycomp.target import ALIGNMENT, Target
from polycomp.te import Dim

ENTRY_SYMBOLS = ("polycomp_run", "polycomp_arena_bytes", "polycomp_workspace_bytes")

_INSTRUCTIONS = {"add": "add", "sub": "sub", "mul": "mul", "and": "and", "or": "or", "xor": "xor"}
_PREDICATES = {"lt": "slt", "le": "sle", "gt": "sgt", "ge": "sge", "eq": "eq", "ne": "ne"}
_FUNCTIONS = {"min": "llvm.smin.i64", "max": "llvm.smax.i64"} | {
    name: f"entry_{name}" for name in ("floordiv", "floormod", "truncdiv", "truncmod")
}


class _Body:
    """Lines of one function under construction; equal expressions share one value."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._known: dict[Expr, str] = {}
        self._numbers = itertools.count()

    def emit(self, text: str) -> str:
        """Append ``%new = text`` and return the new value."""
        name = f"%v{next(self._numbers)}"
        self.lines.append(f"  {name} = {text}")
        return name

    def do(self, text: str) -> None:
        self.lines.append(f"  {text}")

    def load_size(self, var: Var, position: int) -> None:
        at = self.emit(f"getelementptr i64, ptr %sizes, i64 {position}")
        self._known[var] = self.emit(f"load i64, ptr {at}")

    def dim(self, value: Dim) -> str:
        """The operand of an i64 (or i1, for conditions) that holds ``value``.

        Raises :class:`CompileError` for an expression that is not integer arithmetic over the program's sizes.
        """
        if isinstance(value, int):
            return str(value)
        if value not in self._known:
            self._known[value] = self._compute(value)
        return self._known[value]

    def _compute(self, e: Expr) -> str:
        kind = "i1" if e.dtype is DType.BOOL else "i64"
        match e:
            case Const():
                return str(int(e.value))
            case Binary() if e.op in _INSTRUCTIONS:
                return self.emit(f"{_INSTRUCTIONS[e.op]} {kind} {self.dim(e.left)}, {self.dim(e.right)}")
            case Binary() if e.op in _FUNCTIONS:
                left, right = self.dim(e.left), self.dim(e.right)
                return self.emit(f"call i64 @{_FUNCTIONS[e.op]}(i64 {left}, i64 {right})")
            case Compare():
                operand = "i1" if e.left.dtype is DType.BOOL else "i64"
                return self.emit(f"icmp {_PREDICATES[e.op]} {operand} {self.dim(e.left)}, {self.dim(e.right)}")
            case Select():
                condition, a, b = self.dim(e.condition), self.dim(e.on_true), self.dim(e.on_false)
                return self.emit(f"select i1 {condition}, {kind} {a}, {kind} {b}")
            case Unary(op="neg"):
                return self.emit(f"sub i64 0, {self.dim(e.operand)}")
            case Unary(op="not"):
                return self.emit(f"xor {kind} {self.dim(e.operand)}, -1")
            case Cast() if e.operand.dtype is DType.BOOL and e.dtype is DType.INT64:
                return self.emit(f"zext i1 {self.dim(e.operand)} to i64")
        raise CompileError(f"the size {e} is not integer arithmetic over the sizes of the program")

    def rounded(self, value: Dim, alignment: int) -> str:
        """``value`` rounded up to a multiple of ``alignment``, a power of two."""
        raised = self.emit(f"add i64 {self.dim(value)}, {alignment - 1}")
        return self.emit(f"and i64 {raised}, {-alignment}")


def entry_ir(program: Program, target: Target) -> str:
    """LLVM IR of ``polycomp_run``, ``polycomp_arena_bytes`` and ``polycomp_workspace_bytes`` for a program.

    The kernels are declared, to be linked. Raises :class:`CompileError` when two steps call the same symbol with
    different signatures, or when a size is not integer arithmetic.
    """
    parts = [f'target triple = "{target.triple}"', _SUPPORT, *_declarations(program.steps)]
    parts += [_run(program), _arena_bytes(program), _workspace_bytes(program)]
    return "\n".join(parts)


def _declarations(steps: Iterable[Step]) -> list[str]:
    found: dict[str, str] = {}
    for step in steps:
        types = ["ptr"] * len(step.operands) + ["i64"] * len(step.sizes) + ["ptr", "ptr"]
        text = f"declare void {_symbol(step)}({', '.join(types)}) nounwind"
        if found.setdefault(step.symbol, text) != text:
            raise CompileError(f"kernel {step.symbol!r} is called with two different numbers of operands or sizes")
    return list(found.values())


def _symbol(step: Step) -> str:
    escaped = step.symbol.replace("\\", "\\5C").replace('"', "\\22")
    return f'@"{escaped}"'


def _function(signature: str, body: _Body, result: str) -> str:
    return "\n".join([f"define {signature} nounwind {{", *body.lines, f"  ret {result}", "}", ""])


def _load_sizes(sizes: Sequence[Var]) -> _Body:
    """A body that begins by reading the sizes array."""
    body = _Body()
    for i, var in enumerate(sizes):
        body.load_size(var, i)
    return body


def _run(program: Program) -> str:
    body = _load_sizes(program.sizes)
    io = _load_pointers(body, program.n_inputs + program.n_outputs)
    timings = body.emit("call ptr @entry_timings(ptr %context)")
    body.do(f"call void @entry_stamp(ptr {timings}, i64 0)")
    for number, step in enumerate(program.steps, 1):
        pointers = [f"ptr {_pointer(body, o, io, program.n_inputs)}" for o in step.operands]
        sizes = [f"i64 {body.dim(s)}" for s in step.sizes]
        arguments = ", ".join([*pointers, *sizes, "ptr %workspace", "ptr %context"])
        body.do(f"call void @entry_begin(ptr %context, i64 {number - 1})")
        body.do(f"call void {_symbol(step)}({arguments})")
        body.do(f"call void @entry_stamp(ptr {timings}, i64 {number})")
    status = body.emit("call i32 @entry_status(ptr %context)")
    signature = "i32 @polycomp_run(ptr %io, ptr %sizes, ptr %arena, ptr %workspace, ptr %weights, ptr %context)"
    return _function(signature, body, f"i32 {status}")


def _load_pointers(body: _Body, count: int) -> list[str]:
    places = [body.emit(f"getelementptr ptr, ptr %io, i64 {i}") for i in range(count)]
    return [body.emit(f"load ptr, ptr {at}") for at in places]


def _pointer(body: _Body, operand: Operand, io: Sequence[str], n_inputs: int) -> str:
    match operand.storage:
        case Storage.INPUT:
            base = io[operand.position]
        case Storage.OUTPUT:
            base = io[n_inputs + operand.position]
        case Storage.WEIGHT:
            base = "%weights"
        case Storage.ARENA:
            base = "%arena"
    return body.emit(f"getelementptr i8, ptr {base}, i64 {body.dim(operand.offset)}")


def _arena_bytes(program: Program) -> str:
    body = _load_sizes(program.sizes)
    return _function("i64 @polycomp_arena_bytes(ptr %sizes)", body, f"i64 {body.dim(program.arena_bytes)}")


def _workspace_bytes(program: Program) -> str:
    """The most that any step needs: its shared part, then one for each thread, both rounded up to their alignment."""
    body = _load_sizes(program.sizes)
    most = "0"
    for workspace in dict.fromkeys(s.workspace for s in program.steps):
        shared = body.rounded(workspace.shared, ALIGNMENT)
        each = body.rounded(workspace.per_thread, THREAD_ALIGNMENT)
        private = body.emit(f"mul i64 {each}, %threads")
        total = body.emit(f"add i64 {shared}, {private}")
        most = body.emit(f"call i64 @llvm.smax.i64(i64 {most}, i64 {total})")
    return _function("i64 @polycomp_workspace_bytes(ptr %sizes, i64 %threads)", body, f"i64 {most}")


# The context is {ptr pool, i64 status, ptr timings, i64 step, i64 index, i64 size}: timings is null unless steps are to
# be timed; the status is 0, or one more than the number of the step in which the index was outside of the size.
_SUPPORT = """
declare i64 @llvm.smin.i64(i64, i64)
declare i64 @llvm.smax.i64(i64, i64)
declare i32 @clock_gettime(i32, ptr)

; Both sides of a select are computed, so dividing by zero must not trap: it gives what dividing by one does.
define internal i64 @entry_divisor(i64 %b) alwaysinline nounwind {
  %zero = icmp eq i64 %b, 0
  %divisor = select i1 %zero, i64 1, i64 %b
  ret i64 %divisor
}

define internal i64 @entry_truncdiv(i64 %a, i64 %b) alwaysinline nounwind {
  %divisor = call i64 @entry_divisor(i64 %b)
  %quotient = sdiv i64 %a, %divisor
  ret i64 %quotient
}

define internal i64 @entry_truncmod(i64 %a, i64 %b) alwaysinline nounwind {
  %divisor = call i64 @entry_divisor(i64 %b)
  %rest = srem i64 %a, %divisor
  ret i64 %rest
}

define internal i64 @entry_floordiv(i64 %a, i64 %b) alwaysinline nounwind {
  %quotient = call i64 @entry_truncdiv(i64 %a, i64 %b)
  %rest = call i64 @entry_truncmod(i64 %a, i64 %b)
  %inexact = icmp ne i64 %rest, 0
  %signs = xor i64 %rest, %b
  %opposite = icmp slt i64 %signs, 0
  %below = and i1 %inexact, %opposite
  %one = zext i1 %below to i64
  %floor = sub i64 %quotient, %one
  ret i64 %floor
}

define internal i64 @entry_floormod(i64 %a, i64 %b) alwaysinline nounwind {
  %rest = call i64 @entry_truncmod(i64 %a, i64 %b)
  %inexact = icmp ne i64 %rest, 0
  %signs = xor i64 %rest, %b
  %opposite = icmp slt i64 %signs, 0
  %adjust = and i1 %inexact, %opposite
  %added = select i1 %adjust, i64 %b, i64 0
  %floor = add i64 %rest, %added
  ret i64 %floor
}

define internal void @entry_begin(ptr %context, i64 %step) alwaysinline nounwind {
  %at = getelementptr i64, ptr %context, i64 3
  store i64 %step, ptr %at
  ret void
}

define internal ptr @entry_timings(ptr %context) nounwind {
  %at = getelementptr { ptr, i64, ptr }, ptr %context, i64 0, i32 2
  %timings = load ptr, ptr %at
  ret ptr %timings
}

define internal i32 @entry_status(ptr %context) nounwind {
  %at = getelementptr { ptr, i64, ptr }, ptr %context, i64 0, i32 1
  %status = load atomic i64, ptr %at monotonic, align 8
  %short = trunc i64 %status to i32
  ret i32 %short
}

define internal void @entry_stamp_now(ptr %timings, i64 %index) nounwind noinline cold {
  %time = alloca { i64, i64 }
  %status = call i32 @clock_gettime(i32 1, ptr %time)
  %seconds = load i64, ptr %time
  %rest.at = getelementptr { i64, i64 }, ptr %time, i32 0, i32 1
  %rest = load i64, ptr %rest.at
  %scaled = mul i64 %seconds, 1000000000
  %now = add i64 %scaled, %rest
  %at = getelementptr i64, ptr %timings, i64 %index
  store i64 %now, ptr %at
  ret void
}

define internal void @entry_stamp(ptr %timings, i64 %index) alwaysinline nounwind {
  %none = icmp eq ptr %timings, null
  br i1 %none, label %done, label %stamp
stamp:
  call void @entry_stamp_now(ptr %timings, i64 %index)
  br label %done
done:
  ret void
}
"""
