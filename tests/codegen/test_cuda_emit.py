"""CUDA C of loop nests, executed on the CPU against the interpreter; NVRTC compiles it where it is."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from cuda_runner import (
    CUDA,
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
from kernel_runner import extent
from test_emit_operations import (
    samples,
)

from polycomp.codegen.cuda.emit import emit_cuda, full_source
from polycomp.codegen.cuda.nvrtc import compile_source
from polycomp.dtypes import DType
from polycomp.errors import CompileError
from polycomp.expr import (
    Binary,
    Cast,
    CheckedIndex,
    Expr,
    Load,
    Select,
    Unary,
    Var,
    compare,
    maximum,
    minimum,
    wrap,
)
from polycomp.expr import const as constant
from polycomp.loops import Alloc, Barrier, Block, Buffer, For, If, Let, LoopKind, LoopNest, Scope, Stmt, Store
from polycomp.loops.interpreter import interpret

AT, B, T, J, K, N, M = Var("i"), Var("b"), Var("t"), Var("j"), Var("k"), Var("n"), Var("m")
F16, BF16, F32, F64 = DType.FLOAT16, DType.BFLOAT16, DType.FLOAT32, DType.FLOAT64
I8, I32, I64, BOOL = DType.INT8, DType.INT32, DType.INT64, DType.BOOL


# ---- launches, loops and indices


def over(variables: Iterable[Var], shape: tuple[int, ...], body: Stmt, kind: LoopKind = LoopKind.SERIAL) -> Stmt:
    """Nested loops."""
    for var, n in reversed(list(zip(variables, shape, strict=True))):
        body = loop(var, n, body, kind)
    return body


def rows_of_threads(count: int | Expr, store: Stmt, size: int = 32) -> For:
    """``store`` for ``AT`` below ``count``, in blocks of ``size`` threads."""
    at = B * size + T
    inside = If(compare("lt", at, count), Let(AT, at, store))
    return blocks(B, (wrap(count) + (size - 1)) // size, threads(T, size, inside))


READABLE = """\
/*
 * Gemm_7
 * Relu_8
 */
extern "C" __global__ void __launch_bounds__(64) add_1_0(
    const float* __restrict__ x,
    float* __restrict__ y,
    long long n_size,
    unsigned char* __restrict__ workspace,
    long long* __restrict__ status) {
    const int n = (int)n_size;
    const int b = blockIdx.x;
    const int t = threadIdx.x;
    if (b * 64 + t < n) {
        const int i = b * 64 + t;
        // relu
        y[i] = pc_max(x[i * 3 + 1] + 0.5f, 0.0f);
    }
}
"""


def test_readable() -> None:
    x, y = Buffer("x", F32, (N, 3)), Buffer("y", F32, (N,))
    value = maximum(Load(x, (AT, constant(1))) + 0.5, constant(0, F32))
    body = rows_of_threads(N, Store(y, (AT,), value, source="relu"), 64)
    nest = LoopNest("add.1", (N,), (x,), (y,), body, ("Gemm_7", "Relu_8"))
    found = emit_cuda(nest, CUDA, {N: (1, 10_000)})
    assert found.source == READABLE
    (launch,) = found.launches
    assert (launch.function, launch.block, launch.shared_bytes) == ("add_1_0", 64, 0)
    assert str(launch.grid) == "((n + 63) // 64)"


@needs_harness
def test_symbolic_sizes_and_no_blocks() -> None:
    x, y = Buffer("x", F32, (N, M)), Buffer("y", F32, (M, N))
    inside = If(compare("lt", T, N), Store(y, (AT, T), Load(x, (T, AT)) * constant(2, F32)))
    nest = LoopNest("nest", (N, M), (x,), (y,), blocks(AT, M, threads(T, 32, inside)))
    for n, m in ((5, 7), (32, 1), (0, 4), (3, 0)):
        assert_as_interpreted(nest, ramp(n, m), sizes=[{"n": n, "m": m}])
        assert_as_interpreted(nest, ramp(n, m), sizes=[{"n": n, "m": m}], ranges={N: (0, 32), M: (0, 100)})


@needs_harness
def test_nested_blocks_and_threads_count_row_by_row() -> None:
    x, y = Buffer("x", F32, (N, 3, M, 2, 5)), Buffer("y", F32, (N, 3, M, 2, 5))
    p, q, r, s, t = (Var(name) for name in "pqrst")
    store = Store(y, (p, q, r, s, t), Load(x, (p, 2 - q, r, 1 - s, t)))
    body = over((p, q, r), (N, 3, M), over((s, t), (2, 5), store, LoopKind.THREAD), LoopKind.BLOCK)  # type: ignore[arg-type]
    nest = LoopNest("nest", (N, M), (x,), (y,), body)
    assert_as_interpreted(nest, ramp(2, 3, 4, 2, 5), sizes=[{"n": 2, "m": 4}])
    (launch,) = emit_cuda(nest, CUDA).launches
    assert (extent(launch.grid, {N: constant(2), M: constant(4)}), launch.block) == (24, 10)


@needs_harness
def test_launches_run_in_order_and_share_scratch_memory() -> None:
    x, y = Buffer("x", F32, (N, 20)), Buffer("y", F32, (N, 20))
    first, second = Buffer("first", F32, (N, 20), Scope.WORKSPACE), Buffer("second", F32, (20,), Scope.WORKSPACE)
    doubled = blocks(B, N, threads(T, 20, Store(first, (B, T), Load(x, (B, T)) * constant(2, F32))))
    alone = loop(AT, 20, Store(second, (AT,), AT_AS_FLOAT))
    total = blocks(B, N, threads(T, 20, Store(y, (B, T), Load(first, (N - 1 - B, 19 - T)) + Load(second, (T,)))))
    body = Alloc(first, Block((doubled, Alloc(second, Block((alone, total))))))
    nest = LoopNest("nest", (N,), (x,), (y,), body)
    assert_as_interpreted(nest, ramp(3, 20), sizes=[{"n": 3}])
    launches = emit_cuda(nest, CUDA).launches
    assert [launch.function for launch in launches] == ["nest_0", "nest_1", "nest_2"]
    assert [(launch.block, launch.grid == 1) for launch in launches] == [(20, False), (1, True), (20, False)]


AT_AS_FLOAT = Cast(F32, AT)


@needs_harness
def test_conditions_and_names_around_blocks() -> None:
    x, y = Buffer("x", F32, (N,)), Buffer("y", F32, (N,))
    yes = blocks(B, K, threads(T, 4, Store(y, (B * 4 + T,), Load(x, (B * 4 + T,)))))
    no = loop(AT, N, Store(y, (AT,), constant(7, F32)))
    body = Let(K, N // 4, If(compare("eq", N % 4, 0), yes, no))
    for n in (0, 4, 5, 12):
        assert_as_interpreted(LoopNest("nest", (N,), (x,), (y,), body), ramp(n), sizes=[{"n": n}])


@needs_harness
def test_blocks_and_threads_that_begin_later() -> None:
    x, y = Buffer("x", F32, (50,)), Buffer("y", F32, (50,))
    clear = loop(AT, 50, Store(y, (AT,), constant(0, F32)))
    inside = For(T, constant(2), constant(6), LoopKind.THREAD, Store(y, (B * 10 + T,), Load(x, (B * 10 + T,))))
    body = Block((clear, For(B, N, wrap(5), LoopKind.BLOCK, inside)))
    nest = LoopNest("nest", (N,), (x,), (y,), body)
    assert_as_interpreted(nest, ramp(50), sizes=[{"n": 1}, {"n": 5}, {"n": 7}])


@needs_harness
def test_quotients_and_extrema_of_indices() -> None:
    y = Buffer("y", I64, (41, 8))
    e = AT - 20
    values = [e // 7, e % 7, e // N, e % N, (AT + 3) // 8, AT % 6, minimum(e, N), maximum(AT * 3, N)]
    body = loop(AT, 41, Block(tuple(Store(y, (AT, constant(p)), v) for p, v in enumerate(values))))
    nest = LoopNest("nest", (N,), (), (y,), body)
    assert_as_interpreted(nest, sizes=[{"n": 6}])
    assert "i % 6;" in emitted(nest) and "(int)((i + 3) / 8u)" in emitted(nest)


@needs_harness
def test_int64_data_wraps_around() -> None:
    x, y = Buffer("x", I64, (8,)), Buffer("y", I64, (8, 6))
    here = Load(x, (AT,))
    doubled = Var("doubled")
    values = [here * here + here, (here + AT) * (here - 3), here * 3 - here, Unary("neg", here), Unary("abs", here)]
    stores: list[Stmt] = [Store(y, (AT, constant(p)), v) for p, v in enumerate(values)]
    stores.append(Let(doubled, here * 2, Store(y, (AT, constant(5)), doubled * doubled + AT)))
    data = np.array([2**62, -(2**63), 2**63 - 1, 5, -7, 0, 2**40 + 1, 3])
    nest = LoopNest("nest", (), (x,), (y,), threads(AT, 8, Block(tuple(stores))))
    (result,), _ = CudaKernels([nest])(nest, [data])
    with np.errstate(over="ignore"):
        i = np.arange(8)
        expected = [data * data + data, (data + i) * (data - 3), data * 3 - data, -data, np.abs(data)]
        np.testing.assert_array_equal(result, np.stack([*expected, data * 2 * (data * 2) + i], 1))


def test_indices_take_64_bits_only_where_32_may_not_do() -> None:
    x, y = Buffer("x", I8, (N, 70_000)), Buffer("y", I8, (N, 70_000))
    nest = LoopNest("nest", (N,), (x,), (y,), blocks(B, N, threads(T, 32, Store(y, (B, T), Load(x, (B, T))))))
    assert "x[b * 70000 + t]" in emitted(nest, {N: (0, 30_000)})
    assert "x[(long long)b * 70000 + t]" in emitted(nest, {N: (0, 40_000)})
    assert "x[(long long)b * 70000 + t]" in emitted(nest)


@needs_harness
def test_guarded_loads_and_padding() -> None:
    x, y = Buffer("x", F32, (4, 5)), Buffer("y", F32, (6, 7))
    inside = Binary("and", compare("ge", AT, 1), compare("le", AT, 4))
    inside = Binary("and", inside, Binary("and", compare("ge", T, 1), compare("le", T, 5)))
    value = Select(inside, Load(x, (AT - 1, T - 1)), constant(-1, F32))
    nest = LoopNest("nest", (), (x,), (y,), blocks(AT, 6, threads(T, 7, Store(y, (AT, T), value))))
    assert_as_interpreted(nest, ramp(4, 5))


def gather(negative: bool = False) -> LoopNest:
    table, at, y = Buffer("table", F32, (N, 4)), Buffer("at", I32, (40,)), Buffer("y", F32, (40, 4))
    index: Expr = Cast(I64, Load(at, (AT,)))
    if negative:
        index = Select(compare("lt", index, 0), index + N, index)
    store = Store(y, (AT, J), Load(table, (CheckedIndex(index, N), J)))
    return LoopNest("gather", (N,), (table, at), (y,), rows_of_threads(40, loop(J, 4, store, LoopKind.VECTOR)))


@needs_harness
@pytest.mark.parametrize("negative", [False, True])
def test_checked_indices(negative: bool) -> None:
    nest, at = gather(negative), np.arange(40, dtype=np.int32) * 7 % 10
    if negative:
        at[::3] -= 10
    assert_as_interpreted(nest, ramp(10, 4), at, sizes=[{"n": 10}])
    kernels = CudaKernels([nest])
    for wrong in (10, -11, 2**31 - 1):
        at[17] = wrong
        (result,), status = kernels(nest, [ramp(10, 4), at], {"n": 10})
        assert status.tolist() == [1, wrong, 10]
        np.testing.assert_array_equal(result[17], ramp(10, 4)[0])


@needs_harness
def test_names_that_c_reserves() -> None:
    names = ["int", "x.1", "threadIdx", "2x", "op_copy16", "expf", "", "x-1"]
    buffers = [Buffer(name, F32, (4,)) for name in names]
    variables, output = [Var("for"), Var("i.0")], Buffer("y", F32, (4,))
    i = variables[0]
    total: Expr = constant(0, F32)
    for buffer in buffers:
        total = total + Unary("exp", Load(buffer, (i,)))
    body = loop(i, 4, Let(variables[1], i * 2, Store(output, (i,), total + Cast(F32, variables[1]))))
    nest = LoopNest("a.b", (), tuple(buffers), (output,), body)
    assert_as_interpreted(nest, *(ramp(4) / 50 for _ in names))


def test_comments_cannot_be_left() -> None:
    y = Buffer("y", F32, (4,))
    store = Store(y, (AT,), constant(1, F32), source="line\nbreak \\ naïve \\")
    source = emitted(LoopNest("nest", (), (), (y,), loop(AT, 4, store), ("a*/b\n#error", "x\\")))
    assert source.startswith("/*\n * a* /b #error\n * x\n */\n")
    assert "// line break \\ na\\xefve\n" in source


# ---- threads, registers and shared memory


def product(rows: int, columns: int, depth: int, step: int = 8) -> LoopNest:
    """A product of 16 by 16 threads with 4 by 4 sums each; tiles of the operands are in shared memory."""
    a, b = Buffer("a", F32, (rows, depth)), Buffer("b", F32, (depth, columns))
    c = Buffer("c", F32, (rows, columns))
    left, right = Buffer("left", F32, (step, 64), Scope.SHARED), Buffer("right", F32, (step, 64), Scope.SHARED)
    sums = Buffer("sums", F32, (4, 4), Scope.REGISTER)
    bi, bj, ti, tj, ko, k, v, w = (Var(name) for name in ("bi", "bj", "ti", "tj", "ko", "k", "v", "w"))

    def tile(body: Stmt) -> Stmt:
        return threads(ti, 16, threads(tj, 16, body))

    def each(body: Stmt) -> Stmt:
        return loop(v, 4, loop(w, 4, body, LoopKind.VECTOR), LoopKind.UNROLL)

    fill = threads(
        T,
        16 * step,
        Block(
            (
                loop(
                    w,
                    4,
                    Store(left, (T // 16, T % 16 * 4 + w), Load(a, (bi * 64 + T % 16 * 4 + w, ko * step + T // 16))),
                    LoopKind.VECTOR,
                ),
                loop(
                    w,
                    4,
                    Store(right, (T // 16, T % 16 * 4 + w), Load(b, (ko * step + T // 16, bj * 64 + T % 16 * 4 + w))),
                    LoopKind.VECTOR,
                ),
            )
        ),
    )
    update = Store(sums, (v, w), Load(left, (k, ti * 4 + v)) * Load(right, (k, tj * 4 + w)), "sum")
    steps = Block((Barrier(), fill, Barrier(), tile(loop(k, step, each(update)))))
    body = Block(
        (
            tile(each(Store(sums, (v, w), constant(0, F32)))),
            loop(ko, depth // step, steps),
            tile(each(Store(c, (bi * 64 + ti * 4 + v, bj * 64 + tj * 4 + w), Load(sums, (v, w))))),
        )
    )
    allocated = Alloc(left, Alloc(right, Alloc(sums, body)))
    return LoopNest("product", (), (a, b), (c,), blocks(bi, rows // 64, blocks(bj, columns // 64, allocated)))


@needs_harness
def test_product_through_shared_memory_and_registers() -> None:
    a, b = np.random.default_rng(0).normal(size=(128, 24)), np.random.default_rng(1).normal(size=(24, 64))
    nest = product(128, 64, 24)
    kernels = CudaKernels([nest], races=True)
    (result,), _ = kernels(nest, [a, b])
    np.testing.assert_allclose(result, a @ b, rtol=1e-4, atol=1e-4)
    source = emitted(nest)
    assert "if (threadIdx.x < 128) {" in source  # the tiles are filled by half of the threads
    assert "op_copy16(right + t * 4, b + (" in source and "left[k * 64 + ti * 4 + v] * right_lanes[w]" in source


@needs_harness
@pytest.mark.parametrize("kilobytes", [40, 60])
def test_much_shared_memory_is_asked_for_at_the_launch(kilobytes: int) -> None:
    count = kilobytes * 256
    x, y = Buffer("x", F32, (count,)), Buffer("y", F32, (count,))
    big, small = Buffer("big", F32, (count - 64,), Scope.SHARED), Buffer("small", F32, (64,), Scope.SHARED)
    rounds = (count - 64) // 64
    body = Block(
        (
            threads(T, 64, loop(AT, rounds, Store(big, (AT * 64 + T,), Load(x, (AT * 64 + T,))))),
            threads(T, 64, Store(small, (T,), Load(x, (count - 64 + T,)))),
            Barrier(),
            threads(T, 64, loop(AT, rounds, Store(y, (AT * 64 + T,), Load(big, (count - 65 - AT * 64 - T,))))),
            threads(T, 64, Store(y, (count - 64 + T,), Load(small, (63 - T,)))),
        )
    )
    nest = LoopNest("nest", (), (x,), (y,), blocks(B, 1, Alloc(big, Alloc(small, body))))
    assert_as_interpreted(nest, ramp(count))
    (launch,) = emit_cuda(nest, CUDA).launches
    assert launch.shared_bytes == (0 if kilobytes == 40 else count * 4)


def test_arrays_in_registers_are_indexed_by_unrolled_loops() -> None:
    x, y = Buffer("x", F32, (8,)), Buffer("y", F32, (8,))
    tile, one = Buffer("tile", F32, (2, 4), Scope.REGISTER), Buffer("one", F32, (1, 1), Scope.REGISTER)
    fill = over((AT, J), (2, 4), Store(tile, (AT, J), Load(x, (AT * 4 + J,))))
    zero = constant(0)
    drain = loop(
        K, 8, Block((Store(one, (zero, zero), Load(tile, (K // 4, K % 4))), Store(y, (K,), Load(one, (zero, zero)))))
    )
    other = loop(M, 8, Store(y, (M,), constant(1, F32), "sum"))
    source = emitted(LoopNest("nest", (), (x,), (y,), Alloc(tile, Alloc(one, Block((fill, drain, other))))))
    assert source.count("#pragma unroll") == 3
    assert "float tile[8];" in source and "float one;" in source and "one = tile[k];" in source


def test_long_loops_over_a_few_registers_are_unrolled_in_part() -> None:
    x, y = Buffer("x", F32, (4096,)), Buffer("y", F32, (4096,))
    ring = Buffer("ring", F32, (3,), Scope.REGISTER)
    body = Block((Store(ring, (AT % 3,), Load(x, (AT,))), Store(y, (AT,), Load(ring, (AT % 3,)))))
    source = emitted(LoopNest("nest", (), (x,), (y,), Alloc(ring, loop(AT, 4096, body))))
    assert source.count("#pragma unroll 3\n") == 1


@needs_harness
def test_what_no_loop_over_threads_encloses_is_stored_once() -> None:
    y, z = Buffer("y", F32, (3,)), Buffer("z", F32, (3, 8))
    factor, sums = Buffer("factor", F32, (), Scope.REGISTER), Buffer("sums", F32, (2,), Scope.SHARED)
    body = Block(
        (
            Store(factor, (), Cast(F32, B) + 1.0),
            loop(AT, 2, Store(sums, (AT,), Cast(F32, AT) * Load(factor, ()))),
            Store(sums, (constant(0),), constant(2, F32), "sum"),
            Store(y, (B,), constant(1, F32)),
            loop(K, 4, Store(y, (B,), Cast(F32, K), "sum")),
            Barrier(),
            threads(T, 8, Store(z, (B, T), Load(sums, (T % 2,)) * Load(factor, ()))),
        )
    )
    nest = LoopNest("nest", (), (), (y, z), blocks(B, 3, Alloc(factor, Alloc(sums, body))))
    assert_as_interpreted(nest)


@needs_harness
def test_dot_products_of_bytes() -> None:
    a, b, y = Buffer("a", I8, (3, 16)), Buffer("b", DType.UINT8, (4, 32, 4)), Buffer("y", I32, (3, 32))
    sums, word, byte = Buffer("sums", I32, (4,), Scope.REGISTER), Var("word"), Var("byte")
    value = Cast(I32, Load(a, (B, word * 4 + byte))) * Cast(I32, Load(b, (word, T * 4 + J, byte)))
    lanes = loop(J, 4, loop(byte, 4, Store(sums, (J,), value, "sum"), LoopKind.DOT), LoopKind.VECTOR)
    clear = loop(J, 4, Store(sums, (J,), constant(0, I32)), LoopKind.VECTOR)
    drain = loop(J, 4, Store(y, (B, T * 4 + J), Load(sums, (J,))), LoopKind.VECTOR)
    body = blocks(B, 3, threads(T, 8, Alloc(sums, Block((clear, loop(word, 4, lanes), drain)))))
    numbers = np.random.default_rng(0)
    data = numbers.integers(-128, 128, (3, 16)), numbers.integers(0, 256, (4, 32, 4))
    source = assert_as_interpreted(LoopNest("nest", (), (a, b), (y,), body), *data)
    assert "(unsigned)((int)a[" in source  # a sum may leave its type, a product of bytes may not


# ---- wide accesses


def vector_nest(x: Buffer, y: Buffer, store: Stmt, lanes: int, rounds: int = 8) -> LoopNest:
    return LoopNest("nest", (), (x,), (y,), threads(T, rounds, loop(J, lanes, store, LoopKind.VECTOR)))


@needs_harness
@pytest.mark.parametrize("dtype", [F32, F16, BF16, I8, F64, BOOL])
@pytest.mark.parametrize("lanes", [2, 4, 8, 16, 6])
def test_wide_accesses(dtype: DType, lanes: int) -> None:
    x, y = Buffer("x", dtype, (8 * lanes,)), Buffer("y", dtype, (8 * lanes,))
    place = (T * lanes + J,)
    computed = Unary("not", Load(x, place)) if dtype is BOOL else Load(x, place) * constant(2, dtype)
    values = samples(dtype, max(8 * lanes, 75), 3)[: 8 * lanes]
    values = np.where(values != values, np.zeros_like(values), values)
    width = min(lanes & -lanes, 16 // dtype.bytes) * dtype.bytes
    for value in (computed, Load(x, place)):
        nest = vector_nest(x, y, Store(y, place, value), lanes)
        source = emitted(nest)
        assert (f"op_copy{width}(" in source) == (width > dtype.bytes)
        (result,), _ = CudaKernels([nest], races=True)(nest, [values])
        expected = interpret(nest, [values], {})[0]
        np.testing.assert_array_equal(result, expected)


@needs_harness
def test_accesses_that_are_not_wide() -> None:
    x, y = Buffer("x", F32, (200,)), Buffer("y", F32, (200,))
    clear = threads(T, 200, Store(y, (T,), constant(0, F32)))
    for index in (T * 4 + J + 1, T * 5 + J, T * 4 + 3 - J, T * 4 + J * 2, T + J * 8, (T * 4 + J) % 7):
        store = Store(y, (T * 4 + J,), Load(x, (index,)))
        nest = LoopNest("nest", (), (x,), (y,), Block((clear, threads(T, 8, loop(J, 4, store, LoopKind.VECTOR)))))
        assert emitted(nest).count("op_copy16(") == 2  # the definition and the store
        assert_as_interpreted(nest, ramp(200))
    assert "op_copy8" in emitted(vector_nest(x, y, Store(y, (T * 6 + J + 2,), constant(1, F32)), 4))
    symbolic = Buffer("z", F32, (8, N))
    nest = LoopNest(
        "nest",
        (N,),
        (),
        (symbolic,),
        threads(T, 8, loop(J, 4, Store(symbolic, (T, J), constant(1, F32)), LoopKind.VECTOR)),
    )
    assert "op_copy" not in emitted(nest)


@needs_harness
def test_wide_accesses_under_conditions() -> None:
    x, y = Buffer("x", F32, (6, 32)), Buffer("y", F32, (8, 32))
    inside = Binary("and", compare("ge", B, 1), compare("lt", B, 7))
    padded = Select(inside, Load(x, (B - 1, T * 4 + J)), constant(5, F32))
    nest = LoopNest(
        "nest",
        (),
        (x,),
        (y,),
        blocks(B, 8, threads(T, 8, loop(J, 4, Store(y, (B, T * 4 + J), padded), LoopKind.VECTOR))),
    )
    assert "if (b >= 1 && b < 7) {" in emitted(nest)
    assert_as_interpreted(nest, ramp(6, 32))
    x, y = Buffer("x", F32, (N,)), Buffer("y", F32, (N,))
    place = B * 32 + T * 4 + J
    masked = If(compare("lt", place, N), Store(y, (place,), Load(x, (place,)) + 1.0))
    nest = LoopNest(
        "nest", (N,), (x,), (y,), blocks(B, (N + 31) // 32, threads(T, 8, loop(J, 4, masked, LoopKind.VECTOR)))
    )
    assert "op_copy16(y + " in emitted(nest)
    for n in (1, 30, 32, 75):
        assert_as_interpreted(nest, ramp(n), sizes=[{"n": n}])


@needs_harness
def test_wide_updates_and_loops_around_lanes() -> None:
    x, y = Buffer("x", F32, (10, 32)), Buffer("y", F32, (32,))
    place = T * 4 + J
    start = loop(J, 4, Store(y, (place,), Load(x, (constant(0), place))), LoopKind.VECTOR)
    update = Store(y, (place,), Load(x, (K, place)), "sum")
    named = Let(M, K * 1, Store(y, (place,), Load(x, (M, place)) * constant(3, F32), "max"))
    both = loop(J, 4, For(K, constant(1), constant(10), LoopKind.SERIAL, Block((update, named))), LoopKind.VECTOR)
    nest = LoopNest("nest", (), (x,), (y,), threads(T, 8, Block((start, both))))
    assert_as_interpreted(nest, ramp(10, 32))
    across = Buffer("across", F32, (8,))
    total = Block(
        (
            Store(across, (T,), constant(0, F32)),
            loop(J, 8, Store(across, (T,), Load(x, (constant(2), place)), "sum"), LoopKind.VECTOR),
        )
    )
    nest = LoopNest("nest", (), (x,), (across,), threads(T, 7, total))
    assert "op_copy16" in emitted(nest)


@needs_nvrtc
def test_nvrtc_keeps_sums_in_registers_and_loads_wide() -> None:
    code = compile_source(full_source(emit_cuda(product(128, 128, 64), CUDA)), "product", ["sm_80", "sm_90a"])
    for found in code.resources.values():
        assert found["product_0"].stack_bytes == 0 and found["product_0"].spill_store_bytes == 0
    text = code.ptx.decode()
    assert "ld.shared.v4" in text and "st.shared.v4" in text and "st.global.v4" in text


# ---- what is refused


def refused(body: Stmt, message: str, sizes: tuple[Var, ...] = (N,)) -> None:
    with pytest.raises(CompileError, match=message):
        emit_cuda(LoopNest("nest", sizes, (), (OUT,), body), CUDA)


OUT = Buffer("out", F32, (4096,))
HERE = Store(OUT, (T,), constant(0, F32))


def test_what_a_gpu_cannot_do_is_refused() -> None:
    refused(
        loop(T, N, HERE, LoopKind.THREAD), r"kernel 'nest' has a loop over threads 't' from 0 to n, which must be known"
    )
    refused(threads(T, 2048, HERE), r"kernel 'nest' has blocks of 2048 threads; 1024 are the most")
    refused(loop(K, 3, blocks(B, 4, HERE)), r"kernel 'nest' has blocks inside of the serial loop 'k'")
    refused(blocks(B, 4, Block((HERE, blocks(K, 4, HERE)))), r"kernel 'nest' has statements beside a loop over blocks")
    refused(blocks(B, 4, blocks(K, B + 1, HERE)), r"kernel 'nest' has .* blocks, which b decides: only sizes may")
    shared, many = Buffer("s", F32, (N,), Scope.SHARED), Buffer("s", F32, (50_000,), Scope.SHARED)
    refused(blocks(B, 4, Alloc(shared, HERE)), r"buffer 's' of kernel 'nest' must have a constant shape")
    refused(
        blocks(B, 4, Alloc(many, threads(T, 4, HERE))),
        r"needs 200000 bytes of shared memory; a block may have 166912 on sm_80, sm_90a",
    )
    refused(threads(T, 4, Alloc(many, HERE)), r"allocates shared memory 's' inside of a loop over threads")
    refused(
        Alloc(many, blocks(B, 4, HERE)),
        r"has the shared buffer 's' around loops over blocks, of which each has its own",
    )
    scratch = Buffer("w", F32, (8,), Scope.WORKSPACE)
    refused(blocks(B, 4, Alloc(scratch, HERE)), r"allocates the workspace buffer 'w' inside of a block")
    refused(Store(OUT, (K,), constant(0, F32)), r"kernel 'nest' uses variable 'k' outside of its loop")
    lane = Var("lane")
    total = threads(
        T,
        4,
        Block(
            (
                threads(lane, 8, Store(OUT, (T,), constant(1, F32), "sum", across=8)),
                threads(lane, 8, Store(OUT, (T * 8 + lane,), Load(OUT, (T,)))),
            )
        ),
    )
    refused(total, r"passes 'out' from thread to thread within one nest of loops over threads, where none waits")
    uneven = loop(K, T + 1, Store(OUT, (K,), constant(0, F32), "sum", across=4))
    refused(
        threads(T, 4, uneven), r"has threads wait for each other in the loop 'k', which each of them runs differently"
    )
