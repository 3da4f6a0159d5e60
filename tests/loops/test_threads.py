"""What threads of a block have of their own, and where barriers stand."""

from __future__ import annotations

import numpy as np
import pytest

from polycomp import te
from polycomp.errors import CompileError, FactorError, NestingError, PlacementError
from polycomp.loops import Barrier, For, LoopKind, LoopNest, Scope, lower_kernel
from polycomp.loops.interpreter import interpret
from polycomp.loops.ir import Alloc, Block, Stmt
from polycomp.loops.visit import inner, walk
from polycomp.schedules.schedule import Schedule
from polycomp.te import Tensor


def registers(nest: LoopNest) -> dict[str, tuple[object, ...]]:
    found = [s.buffer for s in walk(nest.body) if isinstance(s, Alloc) and s.buffer.scope is Scope.REGISTER]
    return {b.name: b.shape for b in found}


def phases(stmt: Stmt) -> list[str]:
    """The outermost loops over threads and the barriers between them, in order, loops of blocks opened."""
    if isinstance(stmt, Barrier):
        return ["barrier"]
    if isinstance(stmt, For) and stmt.kind is LoopKind.THREAD:
        return [stmt.var.name]
    return [p for s in (stmt.stmts if isinstance(stmt, Block) else inner(stmt)) for p in phases(s)]


def ran(nest: LoopNest, *arrays: np.ndarray) -> np.ndarray:
    (result,) = interpret(nest, list(arrays), {})
    return result


def normalised(rows: int, columns: int) -> tuple[Tensor, Tensor, Tensor]:
    x = te.placeholder((rows, columns), "float32", "x")
    k = te.reduce_axis(columns, "k")
    total = te.compute((rows,), lambda i: te.sum(x[i, k], axis=k), "total")
    return x, total, te.compute((rows, columns), lambda i, j: x[i, j] / total[i], "y")


def test_partial_sums_of_threads_are_registers_and_need_no_barrier() -> None:
    _, total, y = normalised(3, 100)
    s = Schedule(y)
    row, column = s[y].loops
    _, thread = s.split(column, 32)
    s.bind(row, "block")
    s.bind(thread, "thread")
    partial = s.rfactor(total, 0, 32)
    s.bind(s.compute_at(total, row, "register")[-1], "thread")
    s.bind(s.compute_at(partial, row, "register")[-2], "thread")
    nest = lower_kernel(s.kernel)
    assert registers(nest) == {"total.rf": (1, 1), "total": (1,)}
    assert not any(isinstance(p, Barrier) for p in walk(nest.body))
    data = np.random.default_rng(0).random((3, 100), np.float32)
    np.testing.assert_allclose(ran(nest, data), data / data.sum(1, keepdims=True), rtol=1e-5)


def scaled_and_reversed(scope: str) -> Schedule:
    x = te.placeholder((2, 64), "float32", "x")
    double = te.compute((2, 64), lambda i, j: x[i, j] * 2.0, "double")
    y = te.compute((2, 64), lambda i, j: double[i, 63 - j] + 1.0, "y")
    s = Schedule(y)
    row, column = s[y].loops
    s.bind(row, "block")
    s.bind(column, "thread")
    s.bind(s.compute_at(double, row, scope)[-1], "thread")
    return s


def test_a_barrier_stands_between_threads_that_write_and_others_that_read() -> None:
    nest = lower_kernel(scaled_and_reversed("shared").kernel)
    assert len([p for p in phases(nest.body) if p == "barrier"]) == 1 and phases(nest.body)[1] == "barrier"
    data = np.arange(128, dtype=np.float32).reshape(2, 64)
    np.testing.assert_array_equal(ran(nest, data), data[:, ::-1] * 2 + 1)


def test_registers_that_another_thread_reads_are_refused() -> None:
    with pytest.raises(CompileError, match=r"registers 'double' of kernel 'kernel' cannot be shared out to threads: .*"
                       r"of dimension 1 is not the thread's own; store it in shared memory"):  # fmt: skip
        lower_kernel(scaled_and_reversed("register").kernel)


def test_barriers_around_a_step_of_a_tiled_product() -> None:
    a, b = te.placeholder((32, 24), "float32", "a"), te.placeholder((24, 32), "float32", "b")
    k = te.reduce_axis(24, "k")
    c = te.compute((32, 32), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), "c")
    s = Schedule(c)
    acc = s.cache_write(c)
    (io, jo), (ii, ji) = s.tile((s[c].loops[0], 16), (s[c].loops[1], 16))
    rows, columns = s.split(ii, 2), s.split(ji, 2)
    s.reorder(rows[0], columns[0], rows[1], columns[1])
    for loop, to in ((io, "block"), (jo, "block"), (rows[0], "thread"), (columns[0], "thread")):
        s.bind(loop, to)
    i, j, step = s.compute_at(acc, jo, "register")
    outer, within = s.split(step, 8)
    (it, ir), (jt, jr) = s.split(i, 2), s.split(j, 2)
    s.reorder(outer, it, jt, within, ir, jr)
    s.bind(it, "thread")
    s.bind(jt, "thread")
    for operand in (a, b):
        fused = s.fuse(*s.compute_at(s.cache_read(operand, acc), outer, "shared"))
        rounds, thread = s.split(fused, 64)
        s.reorder(thread, rounds)
        s.bind(thread, "thread")
    nest = lower_kernel(s.kernel)
    assert registers(nest) == {"c.acc": (2, 2)}
    barriers = [i for i, phase in enumerate(phases(nest.body)) if phase == "barrier"]
    assert barriers == [1, 4]  # behind the zeros: before a step's copies are overwritten, and before they are read
    rng = np.random.default_rng(1)
    x, y = rng.random((32, 24), np.float32), rng.random((24, 32), np.float32)
    np.testing.assert_allclose(ran(nest, x, y), x @ y, rtol=1e-5)


def test_threads_in_two_shapes_share_one_numbering() -> None:
    """An element of a row of 64 belongs to thread 16*r + c of four by sixteen as well."""
    x = te.placeholder((64,), "float32", "x")
    double = te.compute((64,), lambda i: x[i] * 2.0, "double")
    y = te.compute((64,), lambda i: double[i] + 1.0, "y")
    s = Schedule(y)
    block, within = s.split(s[y].loops[0], 64)
    r, c = s.split(within, 16)
    s.bind(block, "block")
    s.bind(r, "thread")
    s.bind(c, "thread")
    s.bind(s.compute_at(double, block, "register")[-1], "thread")
    nest = lower_kernel(s.kernel)
    assert registers(nest) == {"double": (1,)}
    data = np.arange(64, dtype=np.float32)
    np.testing.assert_array_equal(ran(nest, data), data * 2 + 1)


def test_binding_is_checked() -> None:
    x = te.placeholder((4, 6), "float32", "x")
    n = te.size("n")
    y = te.compute((4, 6), lambda i, j: x[i, j] * 2.0, "y")
    s = Schedule(y)
    with pytest.raises(FactorError, match="bind of loop 'i': it can be bound to 'block' or 'thread', not to 'warp'"):
        s.bind("i", "warp")
    s.bind("i", "thread")
    with pytest.raises(NestingError, match="bind of loop 'j' to blocks: it is inside of the threads of 'i'"):
        s.bind("j", "block")
    w = te.placeholder((n, 6), "float32", "w")
    double = te.compute((n, 6), lambda i, j: w[i, j] * 2.0, "double")
    s = Schedule(te.compute((n, 6), lambda i, j: double[i, j] + 1.0, "z"))
    with pytest.raises(PlacementError, match=r"set_scope of 'double' to shared memory: its size \[n, 6\] is not"):
        s.set_scope(double, "shared")


def test_padded_rows_change_nothing_but_the_memory() -> None:
    s = scaled_and_reversed("shared")
    s.pad_storage("double", 1, 4)
    nest = lower_kernel(s.kernel)
    shapes = [p.buffer.shape for p in walk(nest.body) if isinstance(p, Alloc)]
    assert shapes == [(1, 68)]
    data = np.arange(128, dtype=np.float32).reshape(2, 64)
    np.testing.assert_array_equal(ran(nest, data), data[:, ::-1] * 2 + 1)
