"""Products of warpgroups: four warps of sm_90a that multiply what lies in shared memory, and load none of it.

The sums are shared out to threads as those of :mod:`polycomp.codegen.cuda.tensor` are, a warp's 16 rows after those of
another: the same loops say the same. What differs is how an instruction gets its operands, which a swizzled buffer
decides: by a description of where in shared memory they begin ("PTX ISA", wgmma and its matrix descriptors), so that
one of them makes 64 rows of all columns, and threads wait for it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping

from polycomp.codegen.cuda.code import SUM
from polycomp.codegen.cuda.control import constant_extent, counted_all
from polycomp.codegen.cuda.expressions import index, offset_of
from polycomp.codegen.cuda.frame import Frame
from polycomp.codegen.cuda.shared import element_count
from polycomp.dtypes import DType
from polycomp.expr import Expr, Load, Var, const, free_vars, linear_in, simplify, substitute
from polycomp.loops import For, Store
from polycomp.poly.tree import SWIZZLED_BYTES

_WARPS = 4
_ROWS = 16  # of a warp, in an instruction
_MOST_COLUMNS = 256
_GROUP = 8  # rows that pieces change places in

_KINDS: Mapping[DType, str] = {DType.FLOAT16: "half", DType.BFLOAT16: "bfloat16"}


@dataclasses.dataclass(frozen=True)
class WarpgroupProduct:
    """``around`` are unrolled loops; ``row``, ``column`` and ``step`` the variables of the three that are tensors,
    within which ``store`` adds ``left * right``."""

    around: tuple[For, ...]
    row: Var
    column: Var
    step: Var
    store: Store
    left: Load
    right: Load


def takes(left: Load, right: Load) -> bool:
    """Whether a product of these is one of warpgroups: both lie as these take them."""
    return left.source.swizzled and right.source.swizzled and left.dtype in _KINDS


def emit_product(frame: Frame, found: WarpgroupProduct) -> None:
    """Emit a product that :func:`takes` says is one. Raises :class:`CompileError` where the loops around are others."""
    _Emitter(frame, found).emit()


class _Emitter:
    def __init__(self, frame: Frame, found: WarpgroupProduct) -> None:
        self.frame, self.found = frame, found
        self.row_lane, self.column_lane = (t.var for t in frame.threads[-2:])
        self.warp = self._warp()
        self.tiles = self._tiles()

    def emit(self) -> None:
        frame, found = self.frame, self.found
        sums = frame.place(found.store.buffer)
        count = element_count(found.store.buffer, frame.kernel)
        frame.line(f"pc_begin_products<{count}>({sums});")
        with counted_all(frame, [x for x in found.around if x is not self.tiles]):
            upper, lower = (f"{sums} + {self._sum(row)}" for row in range(2))
            frame.line(f"{self._function()}({upper}, {lower},")
            frame.line(f"    {self._description(found.left)},")
            frame.line(f"    {self._description(found.right)});")
        frame.line(f"pc_end_products<{count}>({sums});")

    def _function(self) -> str:
        columns = 8 * (constant_extent(self.tiles) or 0)
        turned = (str(self._is_turned(x)).lower() for x in (self.found.left, self.found.right))
        return f"pc_multiply_{_KINDS[self.found.left.dtype]}<{columns}, {', '.join(turned)}>"

    def _is_turned(self, operand: Load) -> bool:
        """Whether rows (or columns) are side by side in memory, not steps."""
        return self.found.step not in free_vars(operand.indices[-1])

    def _description(self, operand: Load) -> str:
        """Of the matrix that the current instruction takes: where it begins, the bytes from panel to panel, and from
        eight rows in memory to the next."""
        place = self.frame.place(operand.source)
        offset = index(self.frame, self._first(operand)).within(SUM)
        panel = SWIZZLED_BYTES * self._rows_in_memory(operand) if self._is_turned(operand) else _UNUSED
        return f"pc_describe({place} + {offset}, {panel}, {_GROUP * SWIZZLED_BYTES})"

    def _rows_in_memory(self, operand: Load) -> int:
        rows = operand.source.shape[-2]
        assert isinstance(rows, int)  # of shared memory
        return rows

    def _first(self, operand: Load) -> Expr:
        """The number of the first element of the matrix."""
        found, zero = self.found, const(0)
        at: dict[Var, Expr] = dict.fromkeys(
            (found.row, found.column, found.step, self.row_lane, self.column_lane, self.tiles.var), zero
        )
        at[self.warp] = self.warp // _WARPS * _WARPS
        indices = tuple(substitute(i, at) for i in operand.indices)
        return offset_of(operand.source, indices, self.frame.ranges)

    def _sum(self, row: int) -> str:
        found = self.found
        at: dict[Var, Expr] = {found.row: const(row), found.column: const(0), self.tiles.var: const(0)}
        flat = self._flat_sum()
        return index(self.frame, simplify(substitute(flat, at), self.frame.ranges)).within(SUM)

    def _flat_sum(self) -> Expr:
        return offset_of(self.found.store.buffer, self.found.store.indices, self.frame.ranges)

    def _warp(self) -> Var:
        """The loop over warps that are one after another's rows."""
        for thread, extent in list(zip(self.frame.threads, self.frame.shape, strict=True))[-3::-1]:
            if extent > 1:
                if extent % _WARPS or not self._advances(self.found.left, {thread.var: _ROWS}):
                    break
                return thread.var
        raise self._error(f"warps in fours, of {_ROWS} rows each")

    def _tiles(self) -> For:
        """The loop over tiles of eight columns, all of which one instruction makes."""
        found = self.found
        for loop in found.around:
            steps = {loop.var: 8, self.column_lane: 2, found.column: 1}
            columns = 8 * (constant_extent(loop) or 0)
            if self._advances(found.right, steps) and 8 <= columns <= _MOST_COLUMNS and self._are_neighbours(loop):
                return loop
        raise self._error(f"an unrolled loop over up to {_MOST_COLUMNS // 8} tiles of 8 columns")

    def _advances(self, operand: Load, steps: Mapping[Var, int]) -> bool:
        """Whether the index along rows or columns is so many times each variable."""
        along = [i for i in operand.indices if self.found.step not in free_vars(i)]
        return any(all((linear_in(i, v) or (0,))[0] == n for v, n in steps.items()) for i in along)

    def _are_neighbours(self, tiles: For) -> bool:
        """Whether a thread's sums of one row are side by side."""
        flat = self._flat_sum()
        return all((linear_in(flat, v) or (0,))[0] == n for v, n in ((tiles.var, 2), (self.found.column, 1)))

    def _error(self, what: str) -> Exception:
        return self.frame.error(
            f"multiplies swizzled {self.found.left.source.name!r} and {self.found.right.source.name!r}, as warpgroups "
            f"do, which takes {what}"
        )


_UNUSED = 16  # the bytes between panels, of which an instruction takes no more than one


_CALL = re.compile(r"\bpc_multiply_(half|bfloat16)<(\d+), (true|false), (true|false)>")
_INSTRUCTION = {"half": "f16", "bfloat16": "bf16"}


def warpgroup_functions(source: str) -> str:
    """The definitions of the products of warpgroups that ``source`` calls: an instruction has all of its registers in
    its text."""
    found = dict.fromkeys(_CALL.findall(source))
    return "".join(_definition(kind, int(columns), *turned) for kind, columns, *turned in found)


def _definition(kind: str, columns: int, left_turned: str, right_turned: str) -> str:
    count = columns // 2
    sums = ", ".join(f"%{i}" for i in range(count))
    operands = ", ".join(f'"+f"({where})' for where in _registers(columns))
    name = f"wgmma.mma_async.sync.aligned.m64n{columns}k16.f32.{_INSTRUCTION[kind]}.{_INSTRUCTION[kind]}"
    flags = ", ".join(str(int(turned == "true")) for turned in (left_turned, right_turned))
    return (
        f"template <>\n"
        f"__device__ __forceinline__ void pc_multiply_{kind}<{columns}, {left_turned}, {right_turned}>(\n"
        f"    float* upper, float* lower, unsigned long long left, unsigned long long right) {{\n"
        f'    asm volatile("{name} {{{sums}}}, %{count}, %{count + 1}, 1, 1, 1, {flags};"\n'
        f'        : {operands} : "l"(left), "l"(right));\n'
        f"}}\n\n"
    )


def _registers(columns: int) -> Iterator[str]:
    """A thread's sums in the instruction's order: of each tile of 8 columns two neighbours, of its upper row first."""
    for tile in range(columns // 8):
        for row in ("upper", "lower"):
            yield from (f"{row}[{2 * tile + i}]" for i in range(2))
