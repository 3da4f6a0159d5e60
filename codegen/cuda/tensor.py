"""Products on tensor cores: loops that a schedule marks as TENSOR, as one instruction of a whole warp.

A thread of a warp, number ``4*r + c``, has of each tile of 16 by 8 sums the rows ``r`` and ``r + 8`` and the columns
``2*c`` and ``2*c + 1``; that is what the loops say. Which elements of the operands it passes to the instruction is
another matter ("PTX ISA", matrix fragments for mma.m16n8k8, m16n8k16 and m16n8k32): these follow from the loops' own
indices, with other numbers in the places of the thread's and of the step's. Fragments are loaded before the products,
each once.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from polycomp.codegen.cuda import warpgroups
from polycomp.codegen.cuda.code import INT, SUM, Code
from polycomp.codegen.cuda.control import constant_extent, counted_all, tell_source
from polycomp.codegen.cuda.expressions import element_of, index, offset_of, position
from polycomp.codegen.cuda.frame import Frame
from polycomp.dtypes import DType
from polycomp.expr import Binary, Cast, Expr, Load, Var, const, free_vars, linear_in, simplify, substitute, terms
from polycomp.loops import For, LoopKind, Scope, Stmt, Store

_ROWS, _COLUMNS = 8, 4
"""Of a warp's threads."""

_TURNED_BYTES = 2
"""Of an element of matrices that can be turned while they are loaded."""

_EXPANDED = (LoopKind.UNROLL, LoopKind.TENSOR)


@dataclasses.dataclass(frozen=True)
class _Instruction:
    """``function`` of the prelude adds products of ``steps`` steps; a thread passes ``left`` and ``right`` registers of
    ``per_register`` elements each."""

    function: str
    steps: int
    left: int
    right: int
    per_register: int
    kind: str


_BYTES = (DType.INT8, DType.UINT8)

_INSTRUCTIONS: Mapping[tuple[DType, DType, DType], _Instruction] = {
    (DType.FLOAT32, DType.FLOAT32, DType.FLOAT32): _Instruction("pc_mma_tf32", 8, 4, 2, 1, "float"),
    (DType.FLOAT16, DType.FLOAT16, DType.FLOAT32): _Instruction("pc_mma_half", 16, 4, 2, 2, "unsigned"),
    (DType.BFLOAT16, DType.BFLOAT16, DType.FLOAT32): _Instruction("pc_mma_bfloat16", 16, 4, 2, 2, "unsigned"),
    **{
        (left, right, DType.INT32): _Instruction(f"pc_mma_{left.value}_{right.value}", 32, 4, 2, 4, "unsigned")
        for left in _BYTES
        for right in _BYTES
    },
}
"""By the types of both operands and of the sums."""


@dataclasses.dataclass(frozen=True)
class _Product:
    """``around`` are unrolled loops; ``row``, ``column`` and ``step`` the variables of the three that are tensors."""

    around: tuple[For, ...]
    row: Var
    column: Var
    step: Var
    store: Store
    left: Load
    right: Load
    instruction: _Instruction


def is_product(loop: For) -> bool:
    """Whether ``loop``, unrolled or a tensor's, is the outermost of a nest that tensor cores execute."""
    store = _innermost(loop)
    return isinstance(store, Store) and bool(store.reduce) and any(x.kind is LoopKind.TENSOR for x in _loops(loop))


def _loops(stmt: Stmt) -> list[For]:
    found: list[For] = []
    while isinstance(stmt, For) and stmt.kind in _EXPANDED:
        found.append(stmt)
        stmt = stmt.body
    return found


def _innermost(stmt: Stmt) -> Stmt:
    return stmt if not isinstance(stmt, For) or stmt.kind not in _EXPANDED else _innermost(stmt.body)


def product(frame: Frame, loop: For) -> None:
    """Emit a nest that :func:`is_product`. Raises :class:`CompileError` when no instruction does what it says."""
    found = _match(frame, loop)
    tell_source(frame, found.store)
    if warpgroups.takes(found.left, found.right):
        loops = (found.around, found.row, found.column, found.step)
        warpgroups.emit_product(frame, warpgroups.WarpgroupProduct(*loops, found.store, found.left, found.right))
        return
    lane = frame.declare("lane", INT, "threadIdx.x % 32")
    with frame.bound(_LANE, Code(lane, INT), (0, _ROWS * _COLUMNS - 1), frozenset([_LANE])):
        left = _Fragments(frame, found, found.left, found.instruction.left)
        right = _Fragments(frame, found, found.right, found.instruction.right)
        for fragments in (left, right):
            fragments.load()
    with counted_all(frame, found.around):
        sums = [_sum(frame, found, row, column) for row in range(2) for column in range(2)]
        operands = [*sums, *left.registers(), *right.registers()]
        frame.line(f"{found.instruction.function}({', '.join(operands)});")


_LANE = Var("<lane>")


def _match(frame: Frame, loop: For) -> _Product:
    loops, store = _loops(loop), _innermost(loop)
    assert isinstance(store, Store)
    problem = f"has tensor loops around {store.buffer.name!r}, for which there is no instruction: "
    tensors = [x for x in loops if x.kind is LoopKind.TENSOR]
    factors = _factors(store.value)
    if len(tensors) != 3 or factors is None or store.reduce != "sum":
        raise frame.error(f"{problem}they are not the three of a sum of products")
    steps = [x.var for x in tensors if not any(x.var in free_vars(i) for i in store.indices)]
    ordered = [f for f in (factors, factors[::-1]) if _is_left(f, steps, tensors)]
    left, right = ordered[0] if ordered else factors
    instruction = _INSTRUCTIONS.get((left.dtype, right.dtype, store.buffer.dtype))
    if instruction is None:
        kinds = f"{left.dtype.value} and {right.dtype.value} summed in {store.buffer.dtype.value}"
        raise frame.error(f"{problem}not of {kinds}")
    if any(x.source.scope is not Scope.SHARED for x in factors) or store.buffer.scope is not Scope.REGISTER:
        raise frame.error(f"{problem}operands are taken from shared memory and summed in registers")
    extents = sorted(constant_extent(x) or 0 for x in tensors)
    if len(steps) != 1 or not ordered or extents != [2, 2, instruction.steps] or not _is_warp(frame):
        raise frame.error(f"{problem}it takes two rows, two columns and {instruction.steps} steps of 8 by 4 threads")
    row = next(x.var for x in tensors if x.var != steps[0] and _uses(left, x.var))
    column = next(x.var for x in tensors if x.var not in (steps[0], row))
    around = tuple(x for x in loops if x.kind is LoopKind.UNROLL)
    return _Product(around, row, column, steps[0], store, left, right, instruction)


def _factors(value: Expr) -> tuple[Load, Load] | None:
    if not isinstance(value, Binary) or value.op != "mul":
        return None
    left, right = (e.operand if isinstance(e, Cast) else e for e in value.operands)
    return (left, right) if isinstance(left, Load) and isinstance(right, Load) else None


def _uses(load: Load, var: Var) -> bool:
    return any(var in free_vars(i) for i in load.indices)


def _is_left(factors: tuple[Load, Load], steps: Sequence[Var], tensors: Sequence[For]) -> bool:
    """Whether the first factor is the one of the outer of the two loops over sums: the rows."""
    sums = [x.var for x in tensors if x.var not in steps]
    return len(sums) == 2 and _uses(factors[0], sums[0]) and _uses(factors[1], sums[1])


def _is_warp(frame: Frame) -> bool:
    return len(frame.threads) == len(frame.shape) >= 2 and frame.shape[-2:] == (_ROWS, _COLUMNS)


def _sum(frame: Frame, found: _Product, row: int, column: int) -> str:
    at = {found.row: const(row), found.column: const(column)}
    indices = tuple(simplify(substitute(i, at), frame.ranges) for i in found.store.indices)
    return element_of(frame, found.store.buffer, indices).text


class _Fragments:
    """A thread's registers of one operand, for all iterations of the unrolled loops that it depends on."""

    def __init__(self, frame: Frame, found: _Product, operand: Load, count: int) -> None:
        self.frame, self.found, self.operand, self.count = frame, found, operand, count
        self.loops = [x for x in found.around if _uses(operand, x.var)]
        self.name = frame.names.fresh(f"{operand.source.name}_fragment")
        self.is_left = _uses(operand, found.row)

    def load(self) -> None:
        """Declare and fill the registers."""
        frame, total = self.frame, math.prod(constant_extent(x) or 0 for x in self.loops) * self.count
        frame.line(f"{self.found.instruction.kind} {self.name}[{total}];")
        with counted_all(frame, self.loops):
            (self._load_words if self.found.instruction.per_register == 1 else self._load_matrices)()

    def registers(self) -> list[str]:
        """Those of the current iteration."""
        return [self._register(i) for i in range(self.count)]

    def _register(self, number: int) -> str:
        position: Expr = const(0)
        for loop in self.loops:
            position = position * (constant_extent(loop) or 0) + (loop.var - loop.start)
        return f"{self.name}[{index(self.frame, simplify(position * self.count + number, self.frame.ranges)).text}]"

    def _load_words(self) -> None:
        """Elements of four bytes, one by one: rows (or columns) by the thread's row, steps by its column."""
        row, column = (t.var for t in self.frame.threads[-2:])
        for number in range(self.count):
            if self.is_left:
                at = {self.found.row: const(number % 2), self.found.step: column + 4 * (number // 2)}
            else:
                at = {column: row // 2, self.found.column: row % 2, self.found.step: column + 4 * number}
            self.frame.line(f"{self._register(number)} = {self.frame.place(self.operand.source)}[{self._offset(at)}];")

    def _load_matrices(self) -> None:
        """Matrices of 8 rows of 16 bytes, of which each thread passes the address of one."""
        steps_last, name = self._steps_are_last(), self.operand.source.name
        if not steps_last and self.operand.dtype.bytes != _TURNED_BYTES:
            raise self.frame.error(
                f"loads matrices of {self.operand.dtype.value} for tensor cores from {name!r}, where "
                f"the steps of the sum do not lie side by side: only elements of {_TURNED_BYTES} bytes can be turned; "
                f"copy this operand with its last two dimensions exchanged"
            )
        at = self._rows_of_steps() if steps_last else self._steps_of_rows()
        self._check_rows(at)
        function = f"pc_load_matrices{self.count}{'' if steps_last else '_turned'}"
        source = f"{self.frame.place(self.operand.source)} + {self._offset(at)}"
        self.frame.line(f"{function}({', '.join(self.registers())}, {source});")

    def _rows_of_steps(self) -> dict[Var, Expr]:
        """Where the thread's row of 16 bytes begins, which holds steps."""
        row, column = (t.var for t in self.frame.threads[-2:])
        found, steps = self.found, 16 // self.operand.dtype.bytes
        if self.is_left:
            return {row: _LANE % 8, found.row: _LANE // 8 % 2, found.step: _LANE // 16 * steps}
        return {column: _LANE % 8 // 2, found.column: _LANE % 2, found.step: _LANE // 8 % 2 * steps}

    def _steps_of_rows(self) -> dict[Var, Expr]:
        """The same of one that holds rows (or columns) of a step."""
        row, column = (t.var for t in self.frame.threads[-2:])
        found = self.found
        if self.is_left:
            return {row: const(0), found.row: _LANE // 8 % 2, found.step: _LANE // 16 * 8 + _LANE % 8}
        return {column: const(0), found.column: const(0), found.step: _LANE % 16}

    def _steps_are_last(self) -> bool:
        """Whether steps are side by side in memory; else the rows or columns are."""
        flat = offset_of(self.operand.source, self.operand.indices, self.frame.ranges)
        along = linear_in(simplify(flat, self.frame.ranges), self.found.step)
        return along is not None and along[0] == 1

    def _check_rows(self, at: Mapping[Var, Expr]) -> None:
        """Rows begin at multiples of 16 bytes."""
        flat = simplify(self._flat(at), self.frame.ranges)
        unit = 16 // self.operand.dtype.bytes
        if any(step % unit for step, _ in terms(flat)):
            raise self.frame.error(
                f"loads matrices for tensor cores from {self.operand.source.name!r} at {flat}, which is no multiple of "
                f"{unit} elements"
            )

    def _flat(self, at: Mapping[Var, Expr]) -> Expr:
        indices = tuple(substitute(i, at) for i in self.operand.indices)
        return offset_of(self.operand.source, indices, self.frame.ranges)

    def _offset(self, at: Mapping[Var, Expr]) -> str:
        flat = simplify(self._flat(at), self.frame.ranges)
        return position(self.frame, self.operand.source, flat).within(SUM)
