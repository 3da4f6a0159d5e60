"""Addressing: strides, gathers, masks and guarded loads, on memory that ends at a page which may not be touched."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_runner import AVX2, HOST, Kernel, assert_like_interpreter, block, loop

from polycomp.codegen.llvm.emit import emit_kernel
from polycomp.dtypes import DType
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
    const,
    eq,
    maximum,
    minimum,
)
from polycomp.loops import Alloc, Buffer, If, Let, LoopKind, LoopNest, Prefetch, Scope, Store

F32, I64 = DType.FLOAT32, DType.INT64
AT, J, K, N = Var("i"), Var("j"), Var("k"), Var("n")
V, U = LoopKind.VECTOR, LoopKind.UNROLL


def ramp(*shape: int) -> np.ndarray:
    return (np.arange(np.prod(shape), dtype=np.float32) % 97 - 31).reshape(shape)


def vector_nest(source: Buffer, result: Buffer, value: Expr, lanes: int) -> LoopNest:
    """``result[j] = value`` for all j as one vector loop."""
    return LoopNest("nest", (), (source,), (result,), loop(J, lanes, Store(result, (J,), value), V))


@pytest.mark.parametrize("dtype", [F32, DType.FLOAT16, DType.INT8, DType.FLOAT64, DType.BOOL])
@pytest.mark.parametrize("stride", [0, 1, -1, 2, 3, 4, 5, 17, -3])
def test_strided_loads(stride: int, dtype: DType) -> None:
    for lanes in (2, 4, 16, 13):
        size = abs(stride) * (lanes - 1) + 1
        x, y = Buffer("x", dtype, (size,)), Buffer("y", dtype, (lanes,))
        index = J * stride if stride >= 0 else const(size - 1) + J * stride
        assert_like_interpreter(vector_nest(x, y, Load(x, (index,)), lanes), ramp(size).astype(dtype.numpy))


@pytest.mark.parametrize("dtype", [F32, DType.INT8, DType.BOOL])
@pytest.mark.parametrize("stride", [1, -1, 2, 5])
@pytest.mark.parametrize("masked", [False, True])
def test_strided_stores(stride: int, masked: bool, dtype: DType) -> None:
    lanes = 16
    size = abs(stride) * (lanes - 1) + 1
    x, y = Buffer("x", dtype, (lanes,)), Buffer("y", dtype, (size,))
    index = J * stride if stride >= 0 else const(size - 1) + J * stride
    store = Store(y, (index,), Load(x, (J,)))
    clear = loop(AT, size, Store(y, (AT,), const(0, dtype)))
    body = If(compare("lt", J % 3, 2), store) if masked else store
    nest = LoopNest("nest", (), (x,), (y,), block(clear, loop(J, lanes, body, V)))
    assert_like_interpreter(nest, ramp(lanes).astype(dtype.numpy))


def test_buffers_that_share_a_tuple_of_indices() -> None:
    same = (J,)
    x, y = Buffer("x", F32, (4,)), Buffer("y", F32, (4,))
    one, two = Buffer("one", F32, ()), Buffer("two", F32, ())
    body = block(
        Store(one, (), const(1.0, F32)),
        Store(two, (), const(2.0, F32)),
        loop(J, 4, Store(y, same, Load(x, same) + Load(one, ()) * Load(two, ()))),
    )
    assert_like_interpreter(LoopNest("nest", (), (x,), (y, one, two), body), ramp(4))


def test_symbolic_stride() -> None:
    x, y = Buffer("x", F32, (16, N)), Buffer("y", F32, (N, 16))
    nest = LoopNest("nest", (N,), (x,), (y,), loop(AT, N, loop(J, 16, Store(y, (AT, J), Load(x, (J, AT))), V)))
    for n in (0, 1, 5):
        assert_like_interpreter(nest, ramp(16, n), sizes={"n": n})


def test_symbolic_stride_store() -> None:
    x, y = Buffer("x", F32, (N, 16)), Buffer("y", F32, (16, N))
    nest = LoopNest("nest", (N,), (x,), (y,), loop(AT, N, loop(J, 16, Store(y, (J, AT), Load(x, (AT, J))), V)))
    assert_like_interpreter(nest, ramp(7, 16), sizes={"n": 7})


@pytest.mark.parametrize("divisor", [2, 3, 8, 7])
@pytest.mark.parametrize("offset", [-9, 0, 5])
def test_divided_lane_indices(divisor: int, offset: int) -> None:
    x, y = Buffer("x", F32, (40,)), Buffer("y", F32, (3, 24))
    position = AT * 5 + J + offset
    index = position // divisor + 12 + position % divisor
    nest = LoopNest("nest", (), (x,), (y,), loop(AT, 3, loop(J, 24, Store(y, (AT, J), Load(x, (index % 40,))), V)))
    assert_like_interpreter(nest, ramp(40))


def test_scalar_floor_division_of_negatives() -> None:
    y = Buffer("y", I64, (41, 6))
    stores = [
        Store(y, (AT, const(p)), e)
        for p, e in enumerate([(AT - 20) // 7, (AT - 20) % 7, (AT - 20) // 8, (AT - 20) % 8])
    ]
    stores += [Store(y, (AT, const(4)), (AT - 20) // N), Store(y, (AT, const(5)), (AT - 20) % N)]
    assert_like_interpreter(LoopNest("nest", (N,), (), (y,), loop(AT, 41, block(*stores))), sizes={"n": 6})


def test_clamped_indices() -> None:
    x, y = Buffer("x", F32, (10,)), Buffer("y", F32, (16,))
    index = minimum(maximum(J - 3, const(0)), const(9))
    assert_like_interpreter(vector_nest(x, y, Load(x, (index,)), 16), ramp(10))


@pytest.mark.parametrize("lanes", [7, 16])
def test_padding_never_loads_outside(lanes: int) -> None:
    x, y = Buffer("x", F32, (4, lanes)), Buffer("y", F32, (6, lanes + 2))
    row, column = AT - 1, J - 1
    inside = Binary("and", Binary("and", compare("ge", row, 0), compare("lt", row, 4)),
                    Binary("and", compare("ge", column, 0), compare("lt", column, lanes)))  # fmt: skip
    value = Select(inside, Load(x, (row, column)), const(-1, F32))
    for kind in (V, LoopKind.SERIAL):
        nest = LoopNest("nest", (), (x,), (y,), loop(AT, 6, loop(J, lanes + 2, Store(y, (AT, J), value), kind)))
        assert_like_interpreter(nest, ramp(4, lanes))


def test_select_of_a_uniform_load_under_a_lane_condition() -> None:
    x, y = Buffer("x", F32, (3,)), Buffer("y", F32, (5, 16))
    value = Select(compare("lt", J + AT * 4, 12), Load(x, (AT,)), const(0, F32))
    nest = LoopNest("nest", (), (x,), (y,), loop(AT, 5, loop(J, 16, Store(y, (AT, J), value), V)))
    assert_like_interpreter(nest, ramp(3))


@pytest.mark.parametrize("op", ["lt", "le", "gt", "ge", "eq", "ne"])
@pytest.mark.parametrize("stride", [1, -1, 3, -2])
def test_lane_comparisons(op: str, stride: int) -> None:
    y = Buffer("y", DType.BOOL, (30, 16))
    condition = compare(op, J * stride + 2, AT - 12)
    nest = LoopNest("nest", (), (), (y,), loop(AT, 30, loop(J, 16, Store(y, (AT, J), condition), V)))
    assert_like_interpreter(nest)


@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 48, 50])
def test_tail_by_mask(n: int) -> None:
    x, y = Buffer("x", F32, (N,)), Buffer("y", F32, (N,))
    at = AT * 16 + J
    body = If(compare("lt", at, N), Store(y, (at,), Load(x, (at,)) + const(1, F32)))
    nest = LoopNest("nest", (N,), (x,), (y,), loop(AT, (N + 15) // 16, loop(J, 16, body, V)))
    assert_like_interpreter(nest, ramp(n), sizes={"n": n})


def test_if_else_on_lanes_and_scalars() -> None:
    x, y = Buffer("x", F32, (4, 16)), Buffer("y", F32, (4, 16))
    here = Load(x, (AT, J))
    lanes = If(compare("gt", here, const(0, F32)), Store(y, (AT, J), here), Store(y, (AT, J), Unary("neg", here)))
    rows = If(compare("lt", AT, 2), loop(J, 16, lanes, V), loop(J, 16, Store(y, (AT, J), const(5, F32)), V))
    assert_like_interpreter(LoopNest("nest", (), (x,), (y,), loop(AT, 4, rows)), ramp(4, 16))


@pytest.mark.parametrize("dtype", [I64, DType.INT32, DType.UINT8])
def test_gathered_rows(dtype: DType) -> None:
    indices, table = Buffer("indices", dtype, (24,)), Buffer("table", F32, (50, 3))
    y = Buffer("y", F32, (3, 24))
    at = Load(indices, (J,))
    value = Load(table, (at if dtype is I64 else Cast(I64, at), AT))
    nest = LoopNest("nest", (), (indices, table), (y,), loop(AT, 3, loop(J, 24, Store(y, (AT, J), value), V)))
    assert_like_interpreter(nest, (np.arange(24) * 7 % 50).astype(dtype.numpy), ramp(50, 3))


def test_a_row_that_is_looked_up_is_copied() -> None:
    indices, table, y = Buffer("indices", I64, (N,)), Buffer("table", F32, (50, 16)), Buffer("y", F32, (N, 16))
    given = Load(indices, (AT,))  # not known to lie inside: the sides of the select are branches
    at = CheckedIndex(Select(compare("lt", given, 0), given + 50, given), const(50))
    value = Load(table, (at, J))
    nest = LoopNest("nest", (N,), (indices, table), (y,), loop(AT, N, loop(J, 16, Store(y, (AT, J), value), V)))
    assert "masked.gather" not in emit_kernel(nest, HOST).ir
    numbers = np.array([3, -1, 49, -50])
    (result,), status = Kernel(nest)(numbers, ramp(50, 16), sizes={"n": 4})
    assert status == 0
    np.testing.assert_array_equal(result, ramp(50, 16)[numbers])


@pytest.mark.parametrize("kind", [V, LoopKind.SERIAL])
@pytest.mark.parametrize("wrong", [None, -1, 50, 2**40])
def test_checked_indices(kind: LoopKind, wrong: int | None) -> None:
    indices, table, y = Buffer("indices", I64, (24,)), Buffer("table", F32, (50,)), Buffer("y", F32, (24,))
    value = Load(table, (CheckedIndex(Load(indices, (J,)), const(50)),))
    nest = LoopNest("nest", (), (indices, table), (y,), loop(J, 24, Store(y, (J,), value), kind))
    at = np.arange(24) * 2
    if wrong is not None:
        at[5] = wrong
    for target in (HOST, AVX2):
        (result,), status = Kernel(nest, target)(at, ramp(50))
        assert status == int(wrong is not None)
        np.testing.assert_array_equal(result, ramp(50)[np.where((at >= 0) & (at < 50), at, 0)])


def test_checked_index_in_a_lane_that_is_off_is_not_reported() -> None:
    indices, table, y = Buffer("indices", I64, (16,)), Buffer("table", F32, (50,)), Buffer("y", F32, (16,))
    at = Load(indices, (J,))
    value = Select(compare("lt", at, 50), Load(table, (CheckedIndex(at, const(50)),)), const(0, F32))
    nest = LoopNest("nest", (), (indices, table), (y,), loop(J, 16, Store(y, (J,), value), V))
    assert_like_interpreter(nest, np.where(np.arange(16) % 3 == 0, 1000, 4), ramp(50))


@pytest.mark.parametrize("masked", [False, True])
def test_scatter_with_repeated_places_accumulates(masked: bool) -> None:
    x, y = Buffer("x", F32, (16,)), Buffer("y", F32, (4,))
    add = Store(y, (J // 4,), Load(x, (J,)), "sum")
    body = If(eq(J % 2, 0), add) if masked else add
    clear = loop(AT, 4, Store(y, (AT,), const(0, F32)))
    assert_like_interpreter(LoopNest("nest", (), (x,), (y,), block(clear, loop(J, 16, body, V))), ramp(16))


def test_one_place_for_all_lanes_keeps_the_last() -> None:
    x, y = Buffer("x", F32, (16,)), Buffer("y", F32, (2,))
    both = block(Store(y, (const(0),), Load(x, (J,))), If(compare("lt", J, 5), Store(y, (const(1),), Load(x, (J,)))))
    assert_like_interpreter(LoopNest("nest", (), (x,), (y,), loop(J, 16, both, V)), ramp(16))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    ("op", "dtype"),
    [("sum", F32), ("prod", F32), ("max", F32), ("min", F32), ("max", DType.FLOAT16), ("sum", DType.INT32),
     ("max", DType.INT8), ("min", DType.UINT16), ("and", DType.BOOL), ("or", DType.BOOL), ("and", DType.INT64),
     ("or", DType.UINT8), ("sum", DType.FLOAT64)],
)  # fmt: skip
def test_horizontal_reductions(op: str, dtype: DType, masked: bool) -> None:
    x, y = Buffer("x", dtype, (3, 16)), Buffer("y", dtype, (3,))
    update = Store(y, (AT,), Load(x, (AT, J)), op)
    body = If(compare("lt", J + AT * 5, 16), update) if masked else update
    start = Store(y, (AT,), const(1, dtype))
    nest = LoopNest("nest", (), (x,), (y,), loop(AT, 3, block(start, loop(J, 16, body, V))))
    values = (np.random.default_rng(0).normal(size=(3, 16)) * 2 + 1).astype(dtype.numpy)
    assert_like_interpreter(nest, values, rtol=1e-5)


@pytest.mark.parametrize("op", ["max", "min"])
def test_extrema_propagate_nan_from_any_lane(op: str) -> None:
    x, y = Buffer("x", F32, (16, 16)), Buffer("y", F32, (16,))
    start = Store(y, (AT,), const(-np.inf if op == "max" else np.inf, F32))
    update = loop(J, 16, Store(y, (AT,), Load(x, (AT, J)), op), V)
    nest = LoopNest("nest", (), (x,), (y,), loop(AT, 16, block(start, update)))
    values = ramp(16, 16)
    values[np.arange(16), np.arange(16)] = np.nan
    (result,), _ = Kernel(nest)(values)
    assert np.isnan(result).all()


def test_lets_prefetch_and_loops_inside_of_a_vector_loop() -> None:
    x, y = Buffer("x", F32, (8, 16)), Buffer("y", F32, (16,))
    twice = Var("twice", F32)
    add = Let(twice, Load(x, (K, J)) * const(2, F32), Store(y, (J,), Var("twice", F32), "sum"))
    inner = block(Store(y, (J,), const(0, F32)), loop(K, 8, block(Prefetch(x, (K + 1, J)), add)))
    assert_like_interpreter(LoopNest("nest", (), (x,), (y,), loop(J, 16, inner, V)), ramp(8, 16))


def test_what_cannot_be_a_vector_loop_runs_serially() -> None:
    x, y = Buffer("x", F32, (8, 8)), Buffer("y", F32, (8,))
    total = Buffer("total", F32, (1,), Scope.REGISTER)
    zero = const(0)
    triangle = loop(K, J + 1, Store(total, (zero,), Load(x, (J, K)), "sum"), LoopKind.SERIAL)
    body = Alloc(total, block(Store(total, (zero,), const(0, F32)), triangle, Store(y, (J,), Load(total, (zero,)))))
    assert_like_interpreter(LoopNest("nest", (), (x,), (y,), loop(J, 8, body, V)), ramp(8, 8))


def test_nested_vector_loops() -> None:
    x, y = Buffer("x", F32, (4, 16)), Buffer("y", F32, (4, 16))
    nest = LoopNest("nest", (), (x,), (y,), loop(AT, 4, loop(J, 16, Store(y, (AT, J), Load(x, (AT, J))), V), V))
    assert_like_interpreter(nest, ramp(4, 16))
