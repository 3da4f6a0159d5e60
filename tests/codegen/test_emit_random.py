"""Random small nests: whatever their loops, masks and indices, the kernel computes what the interpreter does."""

from __future__ import annotations

import random

import numpy as np
import pytest
from kernel_runner import AVX2, HOST, Kernel, block, loop

from polycomp.dtypes import DType
from polycomp.expr import Binary, Cast, CheckedIndex, Expr, Load, Select, Unary, Var, compare, const, maximum, minimum
from polycomp.loops import Alloc, Buffer, If, Let, LoopKind, LoopNest, Scope, Stmt, Store
from polycomp.loops.interpreter import interpret

F32, I64 = DType.FLOAT32, DType.INT64
SIZE = Var("size")
CHUNK = 24  # nests a library is asked for per test


class Generator:
    """Makes one nest. Values are small integers in float32, so that sums are exact in any order."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.x, self.table = Buffer("x", F32, (6, 40)), Buffer("table", DType.INT32, (40,))
        self.ranges: dict[Var, int] = {}
        self.count = 0

    def var(self, extent: int) -> Var:
        self.count += 1
        var = Var(f"v{self.count}")
        self.ranges[var] = extent
        return var

    def index(self, depth: int = 2) -> Expr:
        """Any int64 expression, of small values."""
        pick = self.random.random()
        if depth == 0 or pick < 0.25:
            leaves: list[Expr] = [*self.ranges, const(self.random.randint(-5, 9)), SIZE]
            return self.random.choice(leaves)
        a, b = self.index(depth - 1), self.index(depth - 1)
        match self.random.randrange(9):
            case 0 | 1:
                return a + b
            case 2:
                return a - b
            case 3:
                return a * self.random.randint(-3, 5)
            case 4:
                return a // self.random.choice([2, 3, 4, 7, 16])
            case 5:
                return a % self.random.choice([2, 3, 5, 8, 16])
            case 6:
                return self.random.choice([minimum, maximum])(a, b)
            case 7:
                return Select(self.condition(depth - 1), a, b)
        return Cast(I64, Load(self.table, (a % 40,)))

    def condition(self, depth: int = 1) -> Expr:
        op = self.random.choice(["lt", "le", "gt", "ge", "eq", "ne"])
        simple = compare(op, self.index(depth), self.index(depth))
        if depth and self.random.random() < 0.3:
            return Binary(self.random.choice(["and", "or"]), simple, self.condition(depth - 1))
        return Unary("not", simple) if self.random.random() < 0.1 else simple

    def inside(self, index: Expr, size: int) -> Expr:
        """An index that lies within ``size``, one way or another."""
        match self.random.randrange(3):
            case 0:
                return index % size
            case 1:
                return minimum(maximum(index, const(0)), const(size - 1))
        return CheckedIndex(index % size, const(size))

    def value(self, depth: int = 2) -> Expr:
        if depth == 0 or self.random.random() < 0.3:
            at = self.index()
            row = self.inside(self.index(1), 6)
            if self.random.random() < 0.4:  # guarded instead of limited
                inside = Binary("and", compare("ge", at, 0), compare("lt", at, 40))
                return Select(inside, Load(self.x, (row, at)), const(-7, F32))
            return Load(self.x, (row, self.inside(at, 40)))
        a, b = self.value(depth - 1), self.value(depth - 1)
        match self.random.randrange(5):
            case 0:
                return a + b
            case 1:
                return a - b
            case 2:
                return Binary(self.random.choice(["min", "max"]), a, b)
            case 3:
                return Select(self.condition(), a, b)
        return Cast(F32, self.index())

    def nest(self) -> LoopNest:
        """A few loops around a store of every element of the output, and reductions into it and into scratch memory."""
        rows, columns = self.random.randint(1, 5), self.random.choice([1, 3, 8, 16, 19, 32])
        y, tile = (
            Buffer("y", F32, (rows, columns)),
            Buffer("tile", F32, (columns,), self.random.choice([Scope.WORKSPACE, Scope.REGISTER])),
        )
        i, j = self.var(rows), self.var(columns)
        kind = self.random.choice([LoopKind.VECTOR, LoopKind.VECTOR, LoopKind.UNROLL, LoopKind.SERIAL])
        fill = loop(j, columns, self.assign(tile, (j,)), kind)
        self.ranges = {i: rows}
        updates = self.updates(tile, columns, kind)
        self.ranges = {i: rows, j: columns}
        drain = loop(j, columns, Store(y, (i, j), Load(tile, (j,)) + self.value(1)), kind)
        outer = self.random.choice([LoopKind.PARALLEL, LoopKind.SERIAL, LoopKind.UNROLL])
        body = loop(i, rows, Alloc(tile, block(fill, *updates, drain)), outer)
        return LoopNest("random_nest", (SIZE,), (self.x, self.table), (y,), body)

    def assign(self, buffer: Buffer, at: tuple[Expr, ...]) -> Stmt:
        plain = Store(buffer, at, self.value())
        if self.random.random() < 0.6:
            return plain
        return If(self.condition(), plain, Store(buffer, at, const(3, F32)))

    def updates(self, tile: Buffer, columns: int, kind: LoopKind) -> list[Stmt]:
        """Reducing stores: per lane, into one place, and into places that lanes share."""
        made: list[Stmt] = []
        for _ in range(self.random.randrange(3)):
            outside = dict(self.ranges)
            k, lane, shift = self.var(3), self.var(columns), self.var(20)
            shifted = self.random.random() < 0.3
            if not shifted:
                del self.ranges[shift]
            places = [lane, const(0), lane // 2, self.inside(self.index(1), columns), const(columns - 1) - lane]
            op = self.random.choice(["sum", "max", "min"])
            update: Stmt = Store(tile, (self.random.choice(places),), self.value(1), op)
            if self.random.random() < 0.5:
                update = If(self.condition(), update)
            self.ranges.pop(shift, None)
            if shifted:
                update = Let(shift, self.index(1) % 20, update)
            made.append(loop(k, 3, loop(lane, columns, update, kind)))
            self.ranges = outside
        return made


def check(seed: int) -> None:
    generator = Generator(seed)
    nest = generator.nest()
    numbers = np.random.default_rng(seed)
    x = numbers.integers(-20, 20, (6, 40)).astype(np.float32)
    table = numbers.integers(-10, 50, 40).astype(np.int32)
    size = generator.random.choice([0, 1, 5, 17])
    expected = interpret(nest, [x, table], {"size": size})
    for target in (HOST, AVX2):
        results, status = Kernel(nest, target, threads=2)(x, table, sizes={"size": size})
        assert status == 0
        for result, wanted in zip(results, expected, strict=True):
            np.testing.assert_array_equal(result, wanted, err_msg=f"seed {seed}")


@pytest.mark.parametrize("first", range(0, 96, CHUNK))
def test_random_nests(first: int) -> None:
    for seed in range(first, first + CHUNK):
        check(seed)
