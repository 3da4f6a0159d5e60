"""The interpreter of loop nests: what it computes, and every misuse that it catches."""

from __future__ import annotations

import numpy as np
import pytest

from polycomp.dtypes import DType
from polycomp.errors import ExecutionError
from polycomp.expr import CheckedIndex, Load, Select, Unary, Var, compare, const, wrap
from polycomp.loops import Alloc, Block, Buffer, For, If, Let, LoopKind, LoopNest, Prefetch, Scope, Stmt, Store
from polycomp.loops.interpreter import interpret

F32, I64 = DType.FLOAT32, DType.INT64
AT, J, N = Var("i"), Var("j"), Var("n")
ZERO = const(0)


def loop(var: Var, extent: object, body: Stmt, kind: LoopKind = LoopKind.SERIAL) -> For:
    return For(var, ZERO, wrap(extent), kind, body)  # type: ignore[arg-type]


def nest(body: Stmt, inputs: tuple[Buffer, ...] = (), outputs: tuple[Buffer, ...] = ()) -> LoopNest:
    return LoopNest("nest", (N,), inputs, outputs, body)


def test_matrix_product_with_an_accumulator() -> None:
    a, b, c = Buffer("a", F32, (N, 3)), Buffer("b", F32, (3, N)), Buffer("c", F32, (N, N))
    total, k = Buffer("total", F32, (1,), Scope.REGISTER), Var("k")
    inner = Block((
        Store(total, (ZERO,), const(0, F32)),
        loop(k, 3, Store(total, (ZERO,), Load(a, (AT, k)) * Load(b, (k, J)), "sum")),
        Store(c, (AT, J), Load(total, (ZERO,))),
    ))  # fmt: skip
    x, y = np.arange(12, dtype=np.float32).reshape(4, 3), np.ones((3, 4), np.float32)
    (result,) = interpret(nest(loop(AT, N, loop(J, N, Alloc(total, inner))), (a, b), (c,)), [x, y], {"n": 4})
    np.testing.assert_array_equal(result, x @ y)


def test_branches_lets_and_prefetches() -> None:
    x, y, double = Buffer("x", F32, (N,)), Buffer("y", F32, (N,)), Var("double", F32)
    store = Let(double, Load(x, (AT,)) * const(2, F32), Store(y, (AT,), double))
    body = Block((Prefetch(x, (AT + 100,)), If(compare("lt", AT, 2), store, Store(y, (AT,), const(-1, F32)))))
    (result,) = interpret(nest(loop(AT, N, body), (x,), (y,)), [np.arange(4)], {"n": 4})
    np.testing.assert_array_equal(result, np.array([0, 2, -1, -1], np.float32))


def test_select_evaluates_only_the_side_that_is_taken() -> None:
    x, y = Buffer("x", F32, (2,)), Buffer("y", F32, (4,))
    value = Select(compare("lt", AT, 2), Load(x, (AT,)), const(9, F32))
    (result,) = interpret(nest(loop(AT, 4, Store(y, (AT,), value)), (x,), (y,)), [np.arange(2)], {"n": 0})
    np.testing.assert_array_equal(result, np.array([0, 1, 9, 9], np.float32))


@pytest.mark.parametrize(("op", "expected"), [("sum", 6), ("prod", 6), ("max", 3), ("min", 1)])
def test_reducing_stores(op: str, expected: int) -> None:
    x, y = Buffer("x", I64, (3,)), Buffer("y", I64, ())
    body = Block(
        (Store(y, (), Load(x, (ZERO,))), For(AT, const(1), const(3), LoopKind.SERIAL, Store(y, (), Load(x, (AT,)), op)))
    )
    (result,) = interpret(nest(body, (x,), (y,)), [np.array([1, 2, 3])], {"n": 0})
    assert int(result) == expected


def test_int64_wraps_around() -> None:
    x, y = Buffer("x", I64, (1,)), Buffer("y", I64, (1,))
    body = Store(y, (ZERO,), Load(x, (ZERO,)) * 4 + 1)
    (result,) = interpret(nest(body, (x,), (y,)), [np.array([2**62 + 3])], {"n": 0})
    assert int(result[0]) == 13


def check(message: str, body: Stmt, inputs: tuple[Buffer, ...] = (), outputs: tuple[Buffer, ...] = ()) -> None:
    arrays = [np.zeros(tuple(int(d) for d in b.shape), b.dtype.numpy) for b in inputs]  # type: ignore[arg-type]
    with pytest.raises(ExecutionError) as caught:
        interpret(nest(body, inputs, outputs), arrays, {"n": 4})
    assert str(caught.value) == message


Y = Buffer("y", F32, (4,))
X = Buffer("x", F32, (4,))


def test_access_outside_of_a_buffer() -> None:
    check("y[4] lies outside of [4]", loop(AT, 5, Store(Y, (AT,), const(0, F32))), (), (Y,))
    check("x[-1] lies outside of [4]", Store(Y, (ZERO,), Load(X, (const(-1),))), (X,), (Y,))


def test_read_before_write() -> None:
    check("y[0] is read before it is written", Store(Y, (ZERO,), const(1, F32), "sum"), (), (Y,))


def test_allocations_begin_undefined_each_time() -> None:
    total = Buffer("total", F32, (1,), Scope.WORKSPACE)
    first = If(compare("eq", AT, 0), Store(total, (ZERO,), const(1, F32)))
    body = loop(AT, 4, Alloc(total, Block((first, Store(Y, (AT,), Load(total, (ZERO,)))))))
    check("total[0] is read before it is written", body, (), (Y,))


def test_parallel_loops_show_dependences_between_iterations() -> None:
    start = Store(Y, (ZERO,), const(1, F32))
    body = Block((start, For(AT, const(1), const(4), LoopKind.PARALLEL, Store(Y, (AT,), Load(Y, (AT - 1,))))))
    check("y[2] is read before it is written", body, (), (Y,))


def test_incomplete_output() -> None:
    check("the output y[3] is never written", loop(AT, 3, Store(Y, (AT,), const(0, F32))), (), (Y,))


def test_input_written() -> None:
    check("the input x is written to", Store(X, (ZERO,), const(0, F32)), (X,))


def test_checked_index_out_of_range() -> None:
    value = Load(X, (CheckedIndex(const(7), const(4)),))
    check("index 7 lies outside of a dimension of size 4", Store(Y, (ZERO,), value), (X,), (Y,))


def test_buffer_outside_of_its_allocation() -> None:
    loose = Buffer("loose", F32, (1,), Scope.WORKSPACE)
    check("buffer 'loose' is used outside of its allocation", Store(loose, (ZERO,), const(0, F32)))


def test_variable_outside_of_its_loop() -> None:
    check("variable 'j' is used outside of its loop", Store(Y, (J,), const(0, F32)), (), (Y,))


def test_math_in_the_operands_dtype() -> None:
    (result,) = interpret(nest(loop(AT, 4, Store(Y, (AT,), Unary("exp", const(1, F32)))), (), (Y,)), [], {"n": 0})
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, np.full(4, np.exp(np.float32(1)), np.float32))
