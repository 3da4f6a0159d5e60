"""Scheduled kernels and random nests as CUDA C, executed on the CPU."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest
from cuda_runner import CUDA, ORDERS, CudaKernels, assert_as_interpreted, needs_harness, needs_nvrtc
from test_emit_random import Generator

from polycomp import te
from polycomp.codegen.cuda.emit import emit_cuda, full_source
from polycomp.codegen.cuda.nvrtc import compile_source
from polycomp.expr import Expr, Load, transform
from polycomp.loops import (
    Alloc,
    Block,
    Buffer,
    For,
    If,
    Let,
    LoopKind,
    LoopNest,
    Scope,
    Stmt,
    Store,
    lower_kernel,
)
from polycomp.loops.interpreter import interpret
from polycomp.loops.visit import map_expressions, walk
from polycomp.schedules.schedule import Schedule

SEEDS = 60
"""Nests per run of g++."""


def matrix_product(m: int, n: int, depth: int) -> LoopNest:
    """Tiles of 32 by 32 in registers of 8 by 8 threads, whose operands go through shared memory."""
    a, b = te.placeholder((m, depth), "float32", "a"), te.placeholder((depth, n), "float32", "b")
    k = te.reduce_axis(depth, "k")
    c = te.compute((m, n), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), "c")
    s = Schedule(c)
    sums = s.cache_write(c)
    (io, jo), (ii, ji) = s.tile((s[c].loops[0], 32), (s[c].loops[1], 32))
    rows, columns = s.split(ii, 4), s.split(ji, 4)
    s.reorder(rows[0], columns[0], rows[1], columns[1])
    for loop, to in ((io, "block"), (jo, "block"), (rows[0], "thread"), (columns[0], "thread")):
        s.bind(loop, to)
    s.unroll(rows[1])
    s.vectorize(columns[1])
    i, j, step = s.compute_at(sums, jo, "register")
    outer, within = s.split(step, 8)
    (it, ir), (jt, jr) = s.split(i, 4), s.split(j, 4)
    s.reorder(outer, it, jt, within, ir, jr)
    s.bind(it, "thread")
    s.bind(jt, "thread")
    s.unroll(ir)
    s.vectorize(jr)
    for operand in (a, b):
        fused = s.fuse(*s.compute_at(s.cache_read(operand, sums), outer, "shared"))
        rounds, rest = s.split(fused, 256)
        thread, lane = s.split(rest, 4)
        s.reorder(thread, rounds, lane)
        s.bind(thread, "thread")
        s.vectorize(lane)
    return lower_kernel(s.kernel)


@needs_harness
@pytest.mark.parametrize("shape", [(64, 32, 24), (40, 33, 20)])
def test_scheduled_matrix_product(shape: tuple[int, int, int]) -> None:
    m, n, depth = shape
    random_ = np.random.default_rng(0)
    a, b = random_.random((m, depth), np.float32), random_.random((depth, n), np.float32)
    nest = matrix_product(m, n, depth)
    assert_as_interpreted(nest, a, b, rtol=1e-5)
    (result,), _ = CudaKernels([nest])(nest, [a, b])
    np.testing.assert_allclose(result, a @ b, rtol=1e-5)


def pipelined(exchanged: str) -> LoopNest:
    """A product whose right operand is copied two steps ahead: through each thread's registers, or to be scaled by all
    threads once it is there."""
    a, b = te.placeholder((8, 12), "float32", "a"), te.placeholder((12, 64), "float32", "b")
    k = te.reduce_axis(12, "k")
    scaled = te.compute((12, 64), lambda i, j: b[i, j] * 2.0, "scaled")
    c = te.compute((8, 64), lambda i, j: te.sum(a[i, k] * scaled[k, j], axis=k), "c")
    s = Schedule(c)
    sums = s.cache_write(c)
    row, column = s[c].loops
    block, within = s.split(row, 4)
    s.bind(block, "block")
    s.reorder(column, within)
    s.bind(column, "thread")
    i, j, step = s.compute_at(sums, block, "register")
    s.reorder(step, j, i)
    s.bind(j, "thread")
    if exchanged == "registers":
        own = s.cache_write(scaled)
        _, j = s.compute_at(scaled, step, "shared")
        thread, _ = s.split(j, 4)
        s.bind(thread, "thread")
        s.compute_at(own, thread, "register")
    else:
        _, j = s.compute_at(scaled, step, "shared")
        s.bind(s.split(j, 4)[0], "thread")
        _, j = s.compute_at(s.cache_read(b, scaled), step, "shared")
        thread, lanes = s.split(j, 4)
        s.bind(thread, "thread")
        s.vectorize(lanes)
    s.pipeline(step, 3)
    return lower_kernel(s.kernel)


@needs_harness
@pytest.mark.parametrize("exchanged", ["registers", "shared"])
def test_copies_ahead(exchanged: str) -> None:
    """They may go through registers. Where threads exchange more than what they copied, all wait for each other as
    anywhere else."""
    random_ = np.random.default_rng(0)
    a, b = random_.random((8, 12), np.float32), random_.random((12, 64), np.float32)
    nest = pipelined(exchanged)
    source = assert_as_interpreted(nest, a, b, rtol=1e-5)
    assert ("pc_await_copies" in source) == (exchanged == "registers")
    (result,), _ = CudaKernels([nest])(nest, [a, b])
    np.testing.assert_allclose(result, a @ (2 * b), rtol=1e-5)


@needs_nvrtc
def test_sums_of_a_scheduled_product_stay_in_registers() -> None:
    emitted = emit_cuda(matrix_product(64, 64, 64), CUDA)
    code = compile_source(full_source(emitted), "product", ["sm_80"])
    (found,) = code.resources["sm_80"].values()
    assert found.stack_bytes == 0
    assert emitted.source.count("op_copy16(") >= 4


@needs_harness
@pytest.mark.parametrize(("rows", "columns"), [(3, 100), (5, 31), (2, 1000)])
@pytest.mark.parametrize("threads", [32, 128])
def test_scheduled_softmax(rows: int, columns: int, threads: int) -> None:
    """Each row is a block's; the maximum and the sum are reduced by its threads and stay in their registers."""
    x = te.placeholder((rows, columns), "float32", "x")
    k, r = te.reduce_axis(columns, "k"), te.reduce_axis(columns, "r")
    largest = te.compute((rows,), lambda i: te.max(x[i, k], axis=k), "largest")
    total = te.compute((rows,), lambda i: te.sum(exp(x[i, r] - largest[i]), axis=r), "total")
    y = te.compute((rows, columns), lambda i, j: exp(x[i, j] - largest[i]) / total[i], "y")
    s = Schedule(y)
    row, column = s[y].loops
    s.bind(row, "block")
    s.bind(s.split(column, threads)[1], "thread")
    for stage in (total, largest):
        partial = s.rfactor(stage, 0, threads)
        s.bind(s.compute_at(stage, row, "register")[-1], "thread")
        s.bind(s.compute_at(partial, row, "register")[-2], "thread")
    nest = lower_kernel(s.kernel)
    data = np.random.default_rng(1).normal(size=(rows, columns)).astype(np.float32)
    source = assert_as_interpreted(nest, data, rtol=1e-5)
    assert source.count("partial = pc_max(pc_shuffle_xor(partial, step), partial)") == 1  # once, whatever the columns
    (result,), _ = CudaKernels([nest])(nest, [data])
    powers = np.exp(data - data.max(1, keepdims=True))
    np.testing.assert_allclose(result, powers / powers.sum(1, keepdims=True), rtol=1e-5, atol=1e-7)


def exp(e: Expr) -> Expr:
    result: Expr = np.exp(e)  # type: ignore[call-overload]
    return result


# ---- random nests


def in_scope(stmt: Stmt, old: Buffer, new: Buffer) -> Stmt:
    """``stmt`` with ``new`` in the place of ``old``."""

    def moved(e: Expr) -> Expr:
        return transform(e, lambda p: Load(new, p.indices) if isinstance(p, Load) and p.source is old else None)

    def each(s: Stmt) -> Stmt:
        match s:
            case Store() if s.buffer is old:
                return dataclasses.replace(s, buffer=new)
            case Alloc():
                return Alloc(new if s.buffer is old else s.buffer, each(s.body))
            case Block():
                return Block(tuple(map(each, s.stmts)))
            case If():
                return If(s.condition, each(s.body), None if s.orelse is None else each(s.orelse))
            case For() | Let():
                return dataclasses.replace(s, body=each(s.body))
        return s

    return each(map_expressions(stmt, moved))


def random_nest(seed: int) -> LoopNest:
    """A nest whose rows are blocks or threads, and whose tile is in registers or shared memory."""
    generated, chosen = Generator(seed).nest(), random.Random(seed)
    tile = next(s.buffer for s in walk(generated.body) if isinstance(s, Alloc))
    kind = chosen.choice([LoopKind.BLOCK, LoopKind.THREAD])
    scope = Scope.REGISTER if kind is LoopKind.THREAD else chosen.choice([Scope.REGISTER, Scope.SHARED])
    body = in_scope(generated.body, tile, dataclasses.replace(tile, scope=scope))
    assert isinstance(body, For)
    return dataclasses.replace(generated, name=f"random_{seed}", body=dataclasses.replace(body, kind=kind))


@needs_harness
@pytest.mark.parametrize("first", range(0, 2 * SEEDS, SEEDS))
def test_random_nests(first: int) -> None:
    nests = [random_nest(seed) for seed in range(first, first + SEEDS)]
    kernels = CudaKernels(nests)
    for seed, nest in enumerate(nests, first):
        numbers = np.random.default_rng(seed)
        inputs = [numbers.integers(-20, 20, (6, 40)).astype(np.float32), numbers.integers(-10, 50, 40).astype(np.int32)]
        sizes = {"size": int(numbers.choice([0, 1, 5, 17]))}
        (expected,) = interpret(nest, inputs, sizes)
        for order in ORDERS:
            (result,), status = kernels(nest, inputs, sizes, order)
            assert not status.any()
            np.testing.assert_array_equal(result, expected, err_msg=f"seed {seed}")
