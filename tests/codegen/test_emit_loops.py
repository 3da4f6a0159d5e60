"""Loops, register tiles, scratch memory and parallel regions."""

from __future__ import annotations

import re

import numpy as np
import pytest
from kernel_runner import AVX2, HOST, Kernel, assert_like_interpreter, block, extent, loop

from polycomp.codegen.llvm.emit import emit_kernel
from polycomp.codegen.llvm.machine import assembly
from polycomp.dtypes import DType
from polycomp.errors import CompileError
from polycomp.expr import Expr, Load, Var, compare, const, minimum
from polycomp.loops import Alloc, Buffer, For, If, Let, LoopKind, LoopNest, Scope, Stmt, Store
from polycomp.target import Target, parse_target

AVX512 = parse_target("x86_64-linux-gnu,features=avx512f+avx512bw+avx512cd+avx512dq+avx512vl+avx2+fma+f16c")
F32, I64 = DType.FLOAT32, DType.INT64
AT, J, K, N, M = Var("i"), Var("j"), Var("k"), Var("n"), Var("m")
V, U, P = LoopKind.VECTOR, LoopKind.UNROLL, LoopKind.PARALLEL


def ramp(*shape: int) -> np.ndarray:
    return (np.arange(np.prod(shape), dtype=np.float32) % 97 - 31).reshape(shape)


def gemm(rows: int, columns: int, tiles: int, depth: int, unrolled: int = 1) -> LoopNest:
    """C = A @ B with B in packed panels, one register tile at a time, ``unrolled`` steps of the sum at a time."""
    a = Buffer("a", F32, (tiles * rows, depth))
    b, c = Buffer("b", F32, (tiles, depth, columns)), Buffer("c", F32, (tiles * rows, tiles * columns))
    tile = Buffer("tile", F32, (rows, columns), Scope.REGISTER)
    io, jo, ko, ki = Var("io"), Var("jo"), Var("ko"), Var("ki")

    def each(body: Stmt) -> Stmt:
        return loop(AT, rows, loop(J, columns, body, V), U)

    step = ko * unrolled + ki
    update = each(Store(tile, (AT, J), Load(a, (io * rows + AT, step)) * Load(b, (jo, step, J)), "sum"))
    body = block(
        each(Store(tile, (AT, J), const(0, F32))),
        loop(ko, depth // unrolled, loop(ki, unrolled, update, U)),
        each(Store(c, (io * rows + AT, jo * columns + J), Load(tile, (AT, J)))),
    )
    return LoopNest("gemm", (), (a, b), (c,), loop(io, tiles, loop(jo, tiles, Alloc(tile, body))))


def inner_loop(code: str) -> list[str]:
    """The instructions of the loop that multiplies."""
    loops, current = [], []
    for line in code.splitlines():
        text = line.strip()
        if re.match(r"\.L\w+:", text):
            current = []
        elif text and not text.startswith((".", "#", "//")):
            current.append(text)
            if re.match(r"j\w+|b\.\w+|cbnz", text):
                loops.append(current)
                current = []
    return max(loops, key=lambda block_: sum("fma" in t or "fmla" in t for t in block_))


@pytest.mark.parametrize(("target", "rows", "columns"), [(HOST, 14, 32), (AVX2, 6, 16), (AVX2, 4, 24)])
def test_register_tile_stays_in_registers(target: Target, rows: int, columns: int) -> None:
    nest = gemm(rows, columns, 2, 64)
    a, b = np.random.default_rng(0).normal(size=(2 * rows, 64)), np.random.default_rng(1).normal(size=(2, 64, columns))
    (result,), _ = Kernel(nest, target)(a, b)
    expected = np.concatenate([a @ b[0], a @ b[1]], axis=1)
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)
    if target is HOST and HOST.vector_bytes < 64:
        return
    instructions = inner_loop(assembly(emit_kernel(nest, target).ir, target))
    vectors = rows * columns // target.lanes(4)
    assert sum("vfmadd" in text for text in instructions) == vectors
    assert not [text for text in instructions if "rsp" in text or "rbp" in text]
    assert len(instructions) <= vectors + rows + columns // target.lanes(4) + 5


@pytest.mark.parametrize(("target", "rows", "columns"), [(AVX512, 14, 32), (AVX2, 6, 16)])
def test_unrolled_steps_of_a_register_tile_do_not_spill_it(target: Target, rows: int, columns: int) -> None:
    code = assembly(emit_kernel(gemm(rows, columns, 2, 64, unrolled=4), target).ir, target)
    instructions = inner_loop(code)
    assert sum("vfmadd" in text for text in instructions) == 4 * rows * columns // target.lanes(4)
    assert not [text for text in instructions if re.match(r"vmov\w+\s+%[yz]mm\d+, .*\(", text)], "stores in the loop"


def test_gemm_on_arm_multiplies_by_element_or_vector() -> None:
    arm = parse_target("aarch64-linux-gnu")
    instructions = inner_loop(assembly(emit_kernel(gemm(8, 12, 2, 64), arm).ir, arm))
    assert sum("fmla" in text for text in instructions) == 24
    assert not [text for text in instructions if "[sp" in text]


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (17, 33)])
def test_symbolic_sizes(shape: tuple[int, int]) -> None:
    x, y = Buffer("x", F32, (M, N)), Buffer("y", F32, (N, M))
    body = loop(AT, M, loop(J, N, Store(y, (J, AT), Load(x, (AT, J)) * const(2, F32))))
    assert_like_interpreter(
        LoopNest("nest", (M, N), (x,), (y,), body), ramp(*shape), sizes={"m": shape[0], "n": shape[1]}
    )


def test_loop_bounds_of_outer_variables_and_minima() -> None:
    x, y = Buffer("x", F32, (N,)), Buffer("y", F32, (N,))
    stop = minimum((AT + 1) * 8, N)
    inner = For(J, AT * 8, stop, LoopKind.SERIAL, Store(y, (J,), Load(x, (J,)) + const(1, F32)))
    nest = LoopNest("nest", (N,), (x,), (y,), loop(AT, (N + 7) // 8, inner))
    for n in (0, 1, 8, 21):
        assert_like_interpreter(nest, ramp(n), sizes={"n": n})


def test_unrolled_loops_fold_their_conditions() -> None:
    x, y = Buffer("x", F32, (4,)), Buffer("y", F32, (4,))
    body = If(compare("lt", AT, 3), Store(y, (AT,), Load(x, (AT + 1,))), Store(y, (AT,), const(9, F32)))
    nest = LoopNest("nest", (), (x,), (y,), loop(AT, 4, body, U))
    assert_like_interpreter(nest, ramp(4))
    assert "br i1" not in emit_kernel(nest, HOST).ir


def scratch_nest(kind: LoopKind) -> LoopNest:
    """Rows go through scratch memory that is allocated inside and outside of the (parallel) loop over them."""
    x, y = Buffer("x", F32, (N, M)), Buffer("y", F32, (N, M))
    doubled, row = Buffer("doubled", F32, (N, M), Scope.WORKSPACE), Buffer("row", F32, (M,), Scope.WORKSPACE)
    other = Buffer("other", F32, (M,), Scope.WORKSPACE)

    def over(body: Stmt) -> Stmt:
        return loop(J, M, body)

    first = loop(AT, N, over(Store(doubled, (AT, J), Load(x, (AT, J)) * const(2, F32))), kind)
    fill = over(Store(row, (J,), Load(doubled, (AT, M - 1 - J))))
    drain = over(Store(y, (AT, J), Load(row, (J,)) + const(1, F32)))
    add = block(over(Store(other, (J,), Load(x, (AT, J)))), over(Store(y, (AT, J), Load(other, (J,)), "sum")))
    second = loop(AT, N, block(Alloc(row, block(fill, drain)), Alloc(other, add)), kind)
    return LoopNest("scratch", (M, N), (x,), (y,), Alloc(doubled, block(first, second)))


@pytest.mark.parametrize("threads", [0, 1, 2, 3])
@pytest.mark.parametrize(("m", "n"), [(5, 1), (3, 40), (17, 7), (4, 0)])
def test_parallel_loops_and_workspace(threads: int, m: int, n: int) -> None:
    assert_like_interpreter(scratch_nest(P), ramp(n, m), sizes={"m": m, "n": n}, threads=threads)


def test_workspace_of_siblings_is_shared_and_aligned() -> None:
    workspace = emit_kernel(scratch_nest(P), HOST).workspace
    known = {M: const(5), N: const(7)}
    assert extent(workspace.shared, known) == 192
    assert extent(workspace.per_thread, known) == 128
    serial = emit_kernel(scratch_nest(LoopKind.SERIAL), HOST).workspace
    assert extent(serial.shared, known) == 256
    assert extent(serial.per_thread, known) == 0


def test_parallel_loop_captures_what_surrounds_it() -> None:
    x, y = Buffer("x", F32, (3, 20)), Buffer("y", F32, (3, 20))
    factor, shift = Var("factor", F32), Var("shift")
    store = Store(y, (K, AT), Load(x, (K, (AT + shift) % 20)) * factor)
    body = Let(factor, Load(x, (K, const(0))), Let(shift, K * 2 + 1, For(AT, const(0), 19 + N, P, store)))
    nest = LoopNest("nest", (N,), (x,), (y,), loop(K, 3, body))
    assert_like_interpreter(nest, ramp(3, 20), sizes={"n": 1}, threads=2)


def test_nested_parallel_loops_run_serially_inside() -> None:
    x, y = Buffer("x", F32, (5, 9)), Buffer("y", F32, (5, 9))
    body = loop(AT, 5, loop(J, 9, Store(y, (AT, J), Load(x, (AT, J))), P), P)
    nest = LoopNest("nest", (), (x,), (y,), body)
    assert_like_interpreter(nest, ramp(5, 9), threads=2)
    assert emit_kernel(nest, HOST).ir.count("call void @polycomp_parallel_for") == 1


def test_parallel_register_tiles() -> None:
    nest = gemm(4, 16, 3, 20)
    outer = nest.body
    assert isinstance(outer, For)
    parallel = LoopNest(
        nest.name, (), nest.inputs, nest.outputs, For(outer.var, outer.start, outer.stop, P, outer.body)
    )
    a, b = ramp(12, 20), ramp(3, 20, 16)
    assert_like_interpreter(parallel, a, b, threads=2, rtol=1e-4)


def test_inputs_and_outputs_in_order_of_the_signature() -> None:
    a, b = Buffer("a", F32, (2,)), Buffer("b", I64, (2,))
    c, d = Buffer("c", F32, (2,)), Buffer("d", I64, (2,))
    body = loop(AT, 2, block(Store(c, (AT,), Load(a, (AT,))), Store(d, (AT,), Load(b, (AT,)) * N + M)))
    nest = LoopNest("nest", (N, M), (a, b), (c, d), body)
    assert_like_interpreter(nest, ramp(2), np.array([2**40, -3]), sizes={"n": 3, "m": 10})


def test_int64_data_wraps_around() -> None:
    x, y = Buffer("x", I64, (8,)), Buffer("y", I64, (8, 3))
    here = Load(x, (J,))
    stores = [
        Store(y, (J, const(p)), e) for p, e in enumerate([here * here + here, (here + J) * (here - 3), here * 3 - here])
    ]
    values = np.array([2**62, -(2**63), 2**63 - 1, 5, -7, 0, 2**40 + 1, 3])
    for kind in (V, LoopKind.SERIAL):
        nest = LoopNest("nest", (), (x,), (y,), loop(J, 8, block(*stores), kind))
        (result,), _ = Kernel(nest)(values)
        with np.errstate(over="ignore"):
            expected = np.stack(
                [values * values + values, (values + np.arange(8)) * (values - 3), values * 3 - values], 1
            )
        np.testing.assert_array_equal(result, expected)


def deep_product(terms: int) -> Expr:
    x = Buffer("x", I64, (terms, 2))
    result: Expr = const(1)
    for t in range(terms):
        result = result * (Load(x, (const(t), const(0))) + Load(x, (const(t), const(1))))
    return result


def test_products_of_sums_are_not_multiplied_out() -> None:
    e = deep_product(20)
    x = next(n for n in _sources(e))
    y = Buffer("y", I64, (1,))
    ir = emit_kernel(LoopNest("nest", (), (x,), (y,), Store(y, (const(0),), e)), HOST).ir
    assert ir.count("\n") < 500


def _sources(e: Expr) -> list[Buffer]:
    from polycomp.expr import loads

    # One buffer was made per call, so all loads share it.
    return [load.source for load in loads(e)]


def test_a_variable_outside_of_its_loop_is_reported() -> None:
    y = Buffer("y", F32, (4,))
    with pytest.raises(CompileError, match="kernel 'nest' uses variable 'k' outside of its loop"):
        emit_kernel(LoopNest("nest", (), (), (y,), Store(y, (K,), const(0, F32))), HOST)


def test_register_arrays_have_a_constant_shape() -> None:
    tile = Buffer("tile", F32, (N,), Scope.REGISTER)
    nest = LoopNest("nest", (N,), (), (), Alloc(tile, Store(tile, (const(0),), const(0, F32))))
    with pytest.raises(CompileError, match="buffer 'tile' of kernel 'nest' must have a constant shape"):
        emit_kernel(nest, HOST)
