"""Horizontal reductions of threads in CUDA C, executed on the CPU against numpy and the interpreter."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from cuda_runner import (
    CUDA,
    ORDERS,
    CudaKernels,
    assert_as_interpreted,
    blocks,
    emitted,
    loop,
    needs_harness,
    needs_nvrtc,
    ramp,
    threads,
)
from test_cuda_emit import gather

from polycomp.codegen.cuda.emit import emit_cuda
from polycomp.codegen.cuda.nvrtc import compile_source
from polycomp.codegen.cuda.prelude import PRELUDE
from polycomp.dtypes import DType
from polycomp.expr import (
    Load,
    Var,
    compare,
)
from polycomp.expr import const as constant
from polycomp.loops import Alloc, Barrier, Block, Buffer, If, LoopNest, Scope, Stmt, Store
from polycomp.te import reduce_identity

AT, B, T, J, K, N, M = Var("i"), Var("b"), Var("t"), Var("j"), Var("k"), Var("n"), Var("m")
F16, BF16, F32, F64 = DType.FLOAT16, DType.BFLOAT16, DType.FLOAT32, DType.FLOAT64
I8, I32, I64, BOOL = DType.INT8, DType.INT32, DType.INT64, DType.BOOL


REDUCED = {
    "sum": (F32, F64, F16, I32, I8, DType.UINT8, DType.UINT32, I64),
    "prod": (F32, I32, DType.INT16),
    "max": (F32, F16, F64, I32, I8, DType.UINT64),
    "min": (F32, BF16, I64, DType.UINT16),
    "and": (BOOL, I32, DType.UINT8),
    "or": (BOOL, I64, I8),
}


def reduced(op: str, dtype: DType, threads_: int, scope: Scope, block: int = 0) -> LoopNest:
    """``y[b, t] = op over k of x[b, k]``: a block reduces 100 elements, and all its threads have the total."""
    x, y = Buffer("x", dtype, (3, 100)), Buffer("y", dtype, (3, block or threads_))
    total = Buffer("total", dtype, (), scope)
    at = T + K * threads_
    update = If(compare("lt", at, 100), Store(total, (), Load(x, (B, at)), op, across=threads_))
    body = Block(
        (
            Store(total, (), reduce_identity(op, dtype)),
            Barrier(),
            loop(K, -(-100 // threads_), Block((Barrier(), threads(T, threads_, update)))),
            Barrier(),
            threads(M, block or threads_, Store(y, (B, M), Load(total, ()))),
        )
    )
    name = f"reduced_{op}_{dtype.value}_{threads_}_{scope.value}_{block}"
    return LoopNest(name, (), (x,), (y,), blocks(B, 3, Alloc(total, body)))


def reducible(op: str, dtype: DType, *shape: int) -> np.ndarray:
    random = np.random.default_rng(3)
    if dtype is BOOL:
        return random.integers(0, 8, shape) > (0 if op == "and" else 6)
    if not dtype.is_float:
        return random.integers(0, 100, shape).astype(dtype.numpy) | (60 if op == "and" else 1)
    values = random.normal(size=shape) if op != "prod" else random.uniform(0.9, 1.1, size=shape)
    return values.astype(dtype.numpy)


def expected_reduction(op: str, values: np.ndarray, axis: int) -> np.ndarray:
    functions = {
        "sum": np.add,
        "prod": np.multiply,
        "max": np.maximum,
        "min": np.minimum,
        "and": np.bitwise_and,
        "or": np.bitwise_or,
    }
    if values.dtype in (np.float16, BF16.numpy):
        return functions[op].reduce(values.astype(np.float32), axis=axis).astype(values.dtype)
    return np.asarray(functions[op].reduce(values, axis=axis, dtype=values.dtype if op in ("sum", "prod") else None))


@needs_harness
@pytest.mark.parametrize("op", REDUCED)
def test_blocks_reduce_together(op: str) -> None:
    sizes = ((8, 0), (32, 0), (64, 0), (256, 0), (96, 0), (20, 0), (8, 64), (32, 64), (64, 128), (20, 64))
    scopes = (Scope.REGISTER, Scope.SHARED)
    cases = [(dtype, n, block, scope) for dtype in REDUCED[op] for n, block in sizes for scope in scopes]
    cases = [case for number, case in enumerate(cases) if case[0] is F32 or number % 3 == 0]
    nests = {reduced(op, dtype, n, scope, block): dtype for dtype, n, block, scope in cases}
    kernels = [CudaKernels(list(nests), races=races) for races in (False, True)]
    for nest, dtype in nests.items():
        values = reducible(op, dtype, 3, 100)
        expected = expected_reduction(op, values, 1)
        for compiled, order in itertools.product(kernels, ORDERS):
            (result,), _ = compiled(nest, [values], order=order)
            rtol = {2: 1e-2, 4: 1e-5, 8: 1e-12}.get(dtype.bytes, 0) if dtype.is_float else 0
            wanted = np.broadcast_to(expected[:, None], result.shape).astype(
                np.float64 if dtype.is_float else dtype.numpy
            )
            np.testing.assert_allclose(result.astype(wanted.dtype), wanted, rtol=rtol, atol=rtol, err_msg=nest.name)


@needs_harness
@pytest.mark.parametrize(("rows", "lanes"), [(4, 8), (8, 32), (2, 64), (3, 20), (16, 16), (5, 32)])
@pytest.mark.parametrize("where", ["output", "register", "both"])
def test_groups_of_threads_reduce_rows(rows: int, lanes: int, where: str) -> None:
    """Each row of a block is reduced by some of its threads, which then have the total."""
    x, y = Buffer("x", F32, (7, 50)), Buffer("y", F32, (7,))
    z = Buffer("z", F32, (7, 50))
    row, lane, at = B * rows + T, Var("lane"), Var("lane") + K * lanes
    target = y if where == "output" else Buffer("total", F32, (), Scope.REGISTER)
    indices = (row,) if where == "output" else ()
    update = If(compare("lt", at, 50), Store(target, indices, Load(x, (row, at)), "sum", across=lanes))
    total = threads(lane, lanes, loop(K, -(-50 // lanes), update))
    parts: list[Stmt] = [Store(target, indices, constant(0, F32)), total]
    outputs = (y,)
    if where != "output":
        parts.append(Store(y, (row,), Load(target, ())))
    if where == "both":
        scaled = If(compare("lt", at, 50), Store(z, (row, at), Load(x, (row, at)) / Load(target, ())))
        parts.append(threads(lane, lanes, loop(K, -(-50 // lanes), scaled)))
        outputs = (y, z)  # type: ignore[assignment]
    inside: Stmt = If(compare("lt", row, 7), Block(tuple(parts)))
    if where != "output":
        inside = Alloc(target, inside)
    nest = LoopNest("rows", (), (x,), outputs, blocks(B, -(-7 // rows), threads(T, rows, inside)))
    assert_as_interpreted(nest, np.abs(ramp(7, 50)) + 1, rtol=1e-5)


@needs_harness
def test_partial_sums_are_exchanged_once() -> None:
    source = emitted(reduced("sum", F32, 32, Scope.REGISTER))
    assert source.count("pc_shuffle_xor") == 1
    before, _, after = source.partition("for (int k = 0; k < 4; ++k) {")
    assert "pc_shuffle_xor" not in after.partition("}\n    }")[0] and "float partial = 0.0f;" in before


@needs_harness
def test_columns_are_reduced_in_registers_by_their_own_threads() -> None:
    """A store that reduces without ``across`` is each thread's own, though its indices have no thread."""
    x, y = Buffer("x", F32, (30, 64)), Buffer("y", F32, (64,))
    total = Buffer("total", F32, (1,), Scope.REGISTER)
    zero = (constant(0),)
    body = Block(
        (
            threads(T, 64, Store(total, zero, constant(0, F32))),
            loop(K, 30, threads(T, 64, Store(total, zero, Load(x, (K, T)), "sum"))),
            threads(T, 64, Store(y, (T,), Load(total, zero))),
        )
    )
    nest = LoopNest("nest", (), (x,), (y,), blocks(B, 1, Alloc(total, body)))
    assert "shuffle" not in assert_as_interpreted(nest, ramp(30, 64))


@needs_nvrtc
def test_nvrtc_takes_reductions_and_checks() -> None:
    nests = [
        reduced(op, dtype, n, scope)
        for op, types in REDUCED.items()
        for dtype, n, scope in zip(
            types, (8, 64, 20, 256, 32, 96, 16, 128), [Scope.REGISTER, Scope.SHARED] * 4, strict=False
        )
    ]
    text = ""
    for number, nest in enumerate([*nests, gather()]):
        text += f"namespace n{number} {{\n{emit_cuda(nest, CUDA).source}}}\n"
    assert compile_source(PRELUDE + text, "all", ["sm_80"]).cubins["sm_80"]
