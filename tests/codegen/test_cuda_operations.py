"""Every operation on every element type in CUDA C, executed on the CPU against numpy; NVRTC compiles them too."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable

import numpy as np
import pytest
from cuda_runner import (
    CUDA,
    CudaKernels,
    emitted,
    needs_harness,
    needs_nvrtc,
    threads,
)
from test_emit_operations import (
    FLOAT_BINARY,
    FLOATS,
    INTEGER_BINARY,
    INTEGER_UNARY,
    INTEGERS,
    LOGICAL,
    TRANSCENDENTAL,
    check,
    reference,
    samples,
)

from polycomp.codegen.cuda.emit import emit_cuda, full_source
from polycomp.codegen.cuda.nvrtc import compile_source
from polycomp.dtypes import DType
from polycomp.expr import (
    COMPARE_OPS,
    UNARY_OPS,
    Binary,
    Cast,
    Compare,
    Const,
    Expr,
    Load,
    Select,
    Unary,
    Var,
)
from polycomp.expr import const as constant
from polycomp.loops import Block, Buffer, LoopNest, Store
from polycomp.te.evaluate import apply

AT, B, T, J, K, N, M = Var("i"), Var("b"), Var("t"), Var("j"), Var("k"), Var("n"), Var("m")
F16, BF16, F32, F64 = DType.FLOAT16, DType.BFLOAT16, DType.FLOAT32, DType.FLOAT64
I8, I32, I64, BOOL = DType.INT8, DType.INT32, DType.INT64, DType.BOOL


def elementwise(name: str, inputs: Iterable[Buffer], value: Expr, count: int) -> LoopNest:
    """``result[AT] = value`` for all elements, a thread each."""
    output = Buffer("result", value.dtype, (count,))
    store = Store(output, (AT,), value)
    return LoopNest(name, (), tuple(inputs), (output,), threads(AT, count, store))


def results(values: dict[str, Expr], buffers: list[Buffer], arrays: list[np.ndarray]) -> dict[str, np.ndarray]:
    """The values of expressions over ``AT``, by name, all compiled at once."""
    nests = {name: elementwise(f"op{n}", buffers, e, len(arrays[0])) for n, (name, e) in enumerate(values.items())}
    kernels = CudaKernels(list(nests.values()))
    found = {}
    for name, nest in nests.items():
        (found[name],), status = kernels(nest, arrays)
        assert not status.any()
    return found


@needs_harness
@pytest.mark.parametrize("dtype", [*FLOATS, BF16])
def test_float_unary(dtype: DType) -> None:
    x, values = Buffer("x", dtype, (75,)), samples(dtype, 75, 1)
    operations = {op: Unary(op, Load(x, (AT,))) for op in sorted(UNARY_OPS - {"not"})}
    for op, result in results(dict(operations), [x], [values]).items():
        e = operations[op]
        if op == "erf" or (op == "sigmoid" and dtype is F16):
            with np.errstate(all="ignore"):
                expected = apply(e, values.astype(np.float64)).astype(e.dtype.numpy)
        else:
            expected = reference(e, values)
        close(result, expected, op not in TRANSCENDENTAL)


def close(result: np.ndarray, expected: np.ndarray, exact: bool) -> None:
    """As ``check``, with the tolerance of bfloat16."""
    if result.dtype == BF16.numpy and not exact:
        assert result.dtype == expected.dtype
        np.testing.assert_allclose(result.astype(np.float32), expected.astype(np.float32), rtol=8e-3, atol=0)
    else:
        check(result, expected, exact)


@needs_harness
@pytest.mark.parametrize("dtype", [*FLOATS, BF16])
def test_float_binary(dtype: DType) -> None:
    x, y = Buffer("x", dtype, (75 * 12,)), Buffer("y", dtype, (75 * 12,))
    a, b = np.tile(samples(dtype, 75, 2), 12), np.repeat(samples(dtype, 75, 3)[-12:], 75)
    operations = {op: Binary(op, Load(x, (AT,)), Load(y, (AT,))) for op in FLOAT_BINARY}
    for op, result in results(dict(operations), [x, y], [a, b]).items():
        close(result, reference(operations[op], a, b), op not in TRANSCENDENTAL)


@needs_harness
@pytest.mark.parametrize("dtype", [*INTEGERS, BOOL])
def test_integer_unary(dtype: DType) -> None:
    x, values = Buffer("x", dtype, (75,)), samples(dtype, 75, 4)
    operations = {op: Unary(op, Load(x, (AT,))) for op in (INTEGER_UNARY if dtype is not BOOL else ("not", "isnan"))}
    for op, result in results(dict(operations), [x], [values]).items():
        rounds = op in ("floor", "ceil", "round", "trunc")  # numpy goes through float64 for these
        check(result, values if rounds else reference(operations[op], values), True)


@needs_harness
@pytest.mark.parametrize("dtype", [*INTEGERS, BOOL])
def test_integer_binary(dtype: DType) -> None:
    x, y = Buffer("x", dtype, (75 * 9,)), Buffer("y", dtype, (75 * 9,))
    a, b = np.tile(samples(dtype, 75, 5), 9), np.repeat(samples(dtype, 75, 6)[-9:], 75)
    shifts = ("shl", "shr")
    operations = {
        op: Binary(op, Load(x, (AT,)), Load(y, (AT,))) for op in (INTEGER_BINARY if dtype is not BOOL else LOGICAL)
    }
    for op, result in results({k: e for k, e in operations.items() if k not in shifts}, [x, y], [a, b]).items():
        check(result, reference(operations[op], a, b), True)
    if dtype is not BOOL:
        b = np.abs(b.astype(np.int64) % (dtype.bits + 3)).astype(dtype.numpy)
        for op, result in results({k: operations[k] for k in shifts}, [x, y], [a, b]).items():
            check(result, reference(operations[op], a, b), True)


@needs_harness
@pytest.mark.parametrize("dtype", INTEGERS)
def test_integer_power(dtype: DType) -> None:
    bases = np.array([0, 1, 2, 3, 5, 10, 7] + ([-1, -2, -3] if dtype.is_signed else []), dtype.numpy)
    powers = np.arange(0, 12).astype(dtype.numpy)
    pairs = np.array(list(itertools.product(bases, powers)), dtype.numpy)
    a, b = np.ascontiguousarray(pairs[:, 0]), np.ascontiguousarray(pairs[:, 1])
    x, y = Buffer("x", dtype, a.shape), Buffer("y", dtype, b.shape)
    found = results({"pow": Binary("pow", Load(x, (AT,)), Load(y, (AT,)))}, [x, y], [a, b])
    np.testing.assert_array_equal(found["pow"], np.power(a, b))


@needs_harness
@pytest.mark.parametrize("dtype", DType)
def test_compare_and_select(dtype: DType) -> None:
    x, y = Buffer("x", dtype, (300,)), Buffer("y", dtype, (300,))
    a, b = np.tile(samples(dtype, 75, 7), 4), np.repeat(samples(dtype, 75, 8), 4)
    operations = {op: Compare(op, Load(x, (AT,)), Load(y, (AT,))) for op in sorted(COMPARE_OPS)}
    chosen = {op: Select(e, Load(x, (AT,)), Load(y, (AT,))) for op, e in operations.items()}
    for op, result in results(dict(operations), [x, y], [a, b]).items():
        check(result, reference(operations[op], a, b), True)
    for op, result in results(dict(chosen), [x, y], [a, b]).items():
        check(result, np.where(reference(operations[op], a, b), a, b), True)


@needs_harness
@pytest.mark.parametrize("source", DType)
def test_casts(source: DType) -> None:
    x, values = Buffer("x", source, (75,)), samples(source, 75, 9)
    if source.is_float:  # what lies beyond an integer type's range gives any integer
        limited = np.nan_to_num(np.clip(values.astype(np.float64), -100, 100), nan=3.0).astype(source.numpy)
    for targets, array in ((INTEGERS, limited if source.is_float else values), ([*FLOATS, BF16, BOOL], values)):
        casts = {to.value: Cast(to, Load(x, (AT,))) for to in targets if to is not source}
        for name, result in results(dict(casts), [x], [array]).items():
            to = DType(name)
            with np.errstate(all="ignore"):
                if to.is_integer and source.is_float:
                    expected = array.astype(np.int64).astype(to.numpy)
                elif to is BOOL:
                    expected = array.astype(np.float64) != 0
                else:
                    expected = array.astype(to.numpy)
            check(result, expected, True)


@needs_harness
@pytest.mark.parametrize("exponent", [1.0, 2.0, 3.0, -1.0, 0.5])
@pytest.mark.parametrize("dtype", [F32, F16])
def test_constant_powers(exponent: float, dtype: DType) -> None:
    x, values = Buffer("x", dtype, (75,)), samples(dtype, 75, 9)
    e = Binary("pow", Load(x, (AT,)), constant(exponent, dtype))
    with np.errstate(all="ignore"):
        expected = np.power(values.astype(np.float64), np.full(75, exponent)).astype(dtype.numpy)
    check(results({"pow": e}, [x], [values])["pow"], expected, False)


@needs_harness
@pytest.mark.parametrize("dtype", DType)
def test_literals(dtype: DType) -> None:
    if dtype is BOOL:
        values: list[float] = [False, True]
    elif dtype.is_float:
        values = [0.0, -0.0, 0.1, -1 / 3, 1e-7, 6e4, np.inf, -np.inf, np.nan, 2**-24, 16777217.0, 1e38, 123456789.0]
    else:
        values = [int(dtype.minimum), int(dtype.maximum), 1, int(dtype.maximum) // 3]
    x = Buffer("x", dtype, (2,))
    found = results(
        {str(v): Select(Compare("lt", AT, Const(1, I64)), constant(v, dtype), Load(x, (AT,))) for v in values},
        [x],
        [np.ones(2, dtype.numpy)],
    )
    with np.errstate(over="ignore"):
        for value, result in zip(values, found.values(), strict=True):
            expected = np.asarray(value).astype(dtype.numpy)
            np.testing.assert_array_equal(result[:1].view(np.uint8), expected.reshape(1).view(np.uint8))


def all_operations(dtype: DType) -> LoopNest:
    """Every operation on a type, each into an output of its own."""
    x, y = Buffer("x", dtype, (64,)), Buffer("y", dtype, (64,))
    a, b = Load(x, (T,)), Load(y, (T,))
    values: list[Expr] = [Compare(op, a, b) for op in sorted(COMPARE_OPS)] + [
        Cast(to, a) for to in DType if to is not dtype
    ]
    if dtype.is_float:
        values += [Unary(op, a) for op in sorted(UNARY_OPS - {"not"})] + [Binary(op, a, b) for op in FLOAT_BINARY]
    elif dtype is BOOL:
        values += [Unary("not", a), *(Binary(op, a, b) for op in LOGICAL)]
    else:
        values += [Unary(op, a) for op in sorted(UNARY_OPS)] + [Binary(op, a, b) for op in [*INTEGER_BINARY, "pow"]]
    outputs = [Buffer(f"out{n}", e.dtype, (64,)) for n, e in enumerate(values)]
    stores = tuple(Store(out, (T,), e) for out, e in zip(outputs, values, strict=True))
    return LoopNest("all", (), (x, y), tuple(outputs), threads(T, 64, Block(stores)))


@needs_nvrtc
@pytest.mark.parametrize("dtype", DType)
def test_nvrtc_takes_every_operation(dtype: DType) -> None:
    code = compile_source(full_source(emit_cuda(all_operations(dtype), CUDA)), "all", ["sm_80"])
    assert "all_0" in code.resources["sm_80"]


def test_nothing_of_float_is_double() -> None:
    x = Buffer("x", F32, (64,))
    a = Load(x, (T,))
    values = [Unary(op, a) for op in sorted(UNARY_OPS - {"not"})]
    values += [Binary(op, a, constant(0.1, F32)) for op in FLOAT_BINARY]  # type: ignore[misc]
    output = Buffer("y", F32, (len(values), 64))
    stores = tuple(Store(output, (constant(n), T), e) for n, e in enumerate(values) if e.dtype is F32)
    source = emitted(LoopNest("all", (), (x,), (output,), threads(T, 64, Block(stores))))
    body = source[source.index('extern "C"') :]
    assert "double" not in body
    assert not re.search(r"\d\.\d+(?![\df])|\b(exp|log|pow|floor|rint|fmod|sqrt)\(", body)
