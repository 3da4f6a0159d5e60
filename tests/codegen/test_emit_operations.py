"""Every operation on every element type, in vectors and in scalar tails, against numpy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from kernel_runner import HOST, TARGETS, Kernel, elementwise

from polycomp.dtypes import DType, as_dtype
from polycomp.expr import BINARY_OPS, COMPARE_OPS, UNARY_OPS, Binary, Cast, Compare, Expr, Load, Select, Unary, Var
from polycomp.expr import const as constant
from polycomp.loops import Buffer
from polycomp.te.evaluate import apply

AT = Var("i")
FLOATS = (DType.FLOAT16, DType.FLOAT32, DType.FLOAT64)
INTEGERS = tuple(d for d in DType if d.is_integer)
TRANSCENDENTAL = UNARY_OPS & {
    *("exp", "expm1", "log", "log1p", "log2", "exp2", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh"),
    *("tanh", "asinh", "acosh", "atanh", "erf", "sigmoid", "rsqrt"),
} | {"pow", "atan2"}
LOGICAL = ("and", "or", "xor")
BITWISE = (*LOGICAL, "shl", "shr", "truncdiv", "truncmod")
FLOAT_BINARY = sorted(BINARY_OPS - {*BITWISE, "floordiv"})
INTEGER_BINARY = sorted(BINARY_OPS - {"div", "fmod", "atan2", "pow"})
INTEGER_UNARY = ("neg", "not", "abs", "sign", "floor", "ceil", "round", "trunc", "isnan")


def samples(dtype: DType, count: int, seed: int) -> np.ndarray:
    """Ordinary values with the edges of the type among them."""
    random = np.random.default_rng(seed)
    if dtype is DType.BOOL:
        return random.integers(0, 2, count).astype(np.bool_)
    if dtype.is_float:
        edges = [0.0, -0.0, 1, -1, 0.5, -2.5, 1.5, np.inf, -np.inf, np.nan, 60000, -60000, 1e-7, 6e-8, 2, 3, 7.0, -7.5]
        values = np.concatenate([random.normal(size=count - len(edges)) * 3, edges])
    else:
        info = np.iinfo(dtype.numpy)
        small = random.integers(-9 if dtype.is_signed else 0, 10, count - 7)
        values = np.concatenate(
            [small.astype(dtype.numpy), np.array([info.min, info.max, info.max - 1, 0, 1, 2, 7], dtype.numpy)]
        )
    return random.permutation(values.astype(dtype.numpy))


def run(
    value: Expr, buffers: list[Buffer], arrays: list[np.ndarray], dtype: DType, lanes: int, target: str
) -> np.ndarray:
    output = Buffer("result", dtype, (len(arrays[0]),))
    (result,), status = Kernel(elementwise("operation", buffers, output, value, AT, lanes), TARGETS[target])(*arrays)
    assert status == 0
    return result


def check(result: np.ndarray, expected: np.ndarray, exact: bool) -> None:
    assert result.dtype == expected.dtype
    if result.dtype == DType.BFLOAT16.numpy:  # numpy does not know its NaN
        result, expected = result.astype(np.float32), expected.astype(np.float32)
    if exact or not np.issubdtype(expected.dtype, np.floating):
        np.testing.assert_array_equal(result, expected)
    else:
        tolerance = {2: 2e-3, 4: 6e-7, 8: 1e-14}[expected.dtype.itemsize]
        np.testing.assert_allclose(result, expected, rtol=tolerance, atol=0)


def reference(e: Expr, *arrays: np.ndarray) -> np.ndarray:
    """numpy's result; floats of 16 bits computed in float32 and rounded once."""
    with np.errstate(all="ignore"):
        wide = [a.astype(np.float32) if as_dtype(a.dtype).is_half else a for a in arrays]
        result = apply(e, *wide)
        return result.astype(e.dtype.numpy)


@pytest.mark.parametrize("target", ["host", "sse2"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_float_unary(dtype: DType, target: str) -> None:
    x = Buffer("x", dtype, (75,))
    values = samples(dtype, 75, 1)
    for op in sorted(UNARY_OPS - {"not"}):
        e = Unary(op, Load(x, (AT,)))
        result = run(e, [x], [values], e.dtype, 16, target)
        if op == "erf" or (op == "sigmoid" and dtype is DType.FLOAT16):
            with np.errstate(all="ignore"):
                expected = apply(e, values.astype(np.float64)).astype(e.dtype.numpy)
        else:
            expected = reference(e, values)
        check(result, expected, op not in TRANSCENDENTAL)


@pytest.mark.parametrize("dtype", FLOATS)
def test_float_binary(dtype: DType) -> None:
    x, y = Buffer("x", dtype, (75 * 12,)), Buffer("y", dtype, (75 * 12,))
    a, b = np.tile(samples(dtype, 75, 2), 12), np.repeat(samples(dtype, 75, 3)[-12:], 75)
    for op in FLOAT_BINARY:
        e = Binary(op, Load(x, (AT,)), Load(y, (AT,)))
        check(run(e, [x, y], [a, b], dtype, 16, "host"), reference(e, a, b), op not in TRANSCENDENTAL)


@pytest.mark.parametrize("dtype", [*INTEGERS, DType.BOOL])
def test_integer_unary(dtype: DType) -> None:
    x, values = Buffer("x", dtype, (75,)), samples(dtype, 75, 4)
    for op in INTEGER_UNARY if dtype is not DType.BOOL else ("not", "isnan"):
        e = Unary(op, Load(x, (AT,)))
        rounds = op in ("floor", "ceil", "round", "trunc")  # numpy goes through float64 for these
        check(run(e, [x], [values], e.dtype, 16, "host"), values if rounds else reference(e, values), True)


@pytest.mark.parametrize("dtype", [*INTEGERS, DType.BOOL])
def test_integer_binary(dtype: DType) -> None:
    x, y = Buffer("x", dtype, (75 * 9,)), Buffer("y", dtype, (75 * 9,))
    a, b = np.tile(samples(dtype, 75, 5), 9), np.repeat(samples(dtype, 75, 6)[-9:], 75)
    for op in INTEGER_BINARY if dtype is not DType.BOOL else LOGICAL:
        e = Binary(op, Load(x, (AT,)), Load(y, (AT,)))
        if op in ("shl", "shr"):
            b = np.abs(b.astype(np.int64) % (dtype.bits + 3)).astype(dtype.numpy)
        check(run(e, [x, y], [a, b], dtype, 16, "host"), reference(e, a, b), True)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integer_power(dtype: DType) -> None:
    bases = np.array([0, 1, 2, 3, 5, 10, 7] + ([-1, -2, -3] if dtype.is_signed else []), dtype.numpy)
    powers = np.arange(0, 12).astype(dtype.numpy)
    pairs = np.array(list(itertools.product(bases, powers)), dtype.numpy)
    a, b = np.ascontiguousarray(pairs[:, 0]), np.ascontiguousarray(pairs[:, 1])
    x, y = Buffer("x", dtype, a.shape), Buffer("y", dtype, b.shape)
    e = Binary("pow", Load(x, (AT,)), Load(y, (AT,)))
    np.testing.assert_array_equal(run(e, [x, y], [a, b], dtype, 8, "host"), np.power(a, b))


@pytest.mark.parametrize("dtype", list(DType))
def test_comparisons(dtype: DType) -> None:
    x, y = Buffer("x", dtype, (75 * 6,)), Buffer("y", dtype, (75 * 6,))
    a, b = np.tile(samples(dtype, 75, 7), 6), np.repeat(samples(dtype, 75, 7)[-6:], 75)
    for op in sorted(COMPARE_OPS):
        e = Compare(op, Load(x, (AT,)), Load(y, (AT,)))
        check(run(e, [x, y], [a, b], DType.BOOL, 16, "host"), reference(e, a, b), True)


@pytest.mark.parametrize("target", sorted(TARGETS))
@pytest.mark.parametrize("source", list(DType))
def test_casts(source: DType, target: str) -> None:
    x, values = Buffer("x", source, (75,)), samples(source, 75, 8)
    for to in DType:
        if source.is_float and not to.is_float and to is not DType.BOOL:
            values = np.nan_to_num(values, posinf=3, neginf=2).clip(0 if not to.is_signed else -100, 100)
        e = Cast(to, Load(x, (AT,)))
        with np.errstate(all="ignore"):
            expected = values.astype(to.numpy)
        check(run(e, [x], [values], to, 16, target), expected, True)


def test_float_to_integer_out_of_range_is_defined() -> None:
    x, values = Buffer("x", DType.FLOAT32, (32,)), np.tile(np.array([np.nan, 1e30, -1e30, np.inf], np.float32), 8)
    for to in INTEGERS:
        first, second = (run(Cast(to, Load(x, (AT,))), [x], [values], to, 16, "host") for _ in range(2))
        np.testing.assert_array_equal(first, second)


def test_double_to_half_rounds_once() -> None:
    # Just above the middle of two float16 numbers by less than a float32 can tell.
    values = np.array(
        [1 + 2**-11 + 2**-40, 1 + 2**-11, 1 + 3 * 2**-11, 1 + 3 * 2**-11 - 2**-40, 2**-25 + 2**-60], np.float64
    )
    values = np.resize(np.concatenate([values, -values, [65519.99, 65520, 1e300, np.inf, np.nan, 0.0]]), 48)
    x = Buffer("x", DType.FLOAT64, (48,))
    with np.errstate(over="ignore"):
        expected = values.astype(np.float16)
    for target in TARGETS:
        result = run(Cast(DType.FLOAT16, Load(x, (AT,))), [x], [values], DType.FLOAT16, 8, target)
        np.testing.assert_array_equal(result.view(np.uint16), expected.view(np.uint16))


def test_every_half_survives_without_instructions() -> None:
    values = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16).view(np.float16)
    x, y = Buffer("x", DType.FLOAT16, values.shape), Buffer("y", DType.FLOAT32, values.shape)
    wide = run(Cast(DType.FLOAT32, Load(x, (AT,))), [x], [values], DType.FLOAT32, 8, "sse2")
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(wide, values.astype(np.float32))
        moved = wide * np.float32(1.0003)
        back = run(Cast(DType.FLOAT16, Load(y, (AT,))), [y], [moved], DType.FLOAT16, 8, "sse2")
        np.testing.assert_array_equal(back, moved.astype(np.float16))


@pytest.mark.parametrize("exponent", [1.0, 2.0, 3.0, -1.0, 0.5])
def test_constant_powers(exponent: float) -> None:
    x, values = Buffer("x", DType.FLOAT32, (75,)), samples(DType.FLOAT32, 75, 9)
    e = Binary("pow", Load(x, (AT,)), constant(exponent, DType.FLOAT32))
    with np.errstate(all="ignore"):
        expected = np.power(values.astype(np.float64), np.full(75, exponent)).astype(np.float32)
    check(run(e, [x], [values], DType.FLOAT32, 16, "host"), expected, False)


@pytest.mark.parametrize("lanes", [1, 2, 3, 7, 8, 24, 33, 64, 100, 1000])
def test_any_number_of_lanes(lanes: int) -> None:
    count = max(150, lanes + 5)
    x, values = Buffer("x", DType.FLOAT32, (count,)), np.arange(count, dtype=np.float32)
    e = Select(Compare("gt", Load(x, (AT,)), constant(70, DType.FLOAT32)), Load(x, (AT,)), Unary("neg", Load(x, (AT,))))
    result = run(e, [x], [values], DType.FLOAT32, lanes, "host")
    np.testing.assert_array_equal(result, np.where(values > 70, values, -values))


def test_kernels_call_no_library() -> None:
    from polycomp.codegen.llvm.emit import emit_kernel
    from polycomp.codegen.llvm.machine import assembly
    from polycomp.target import parse_target

    x = Buffer("x", DType.FLOAT32, (64,))
    for text in ("x86_64-linux-gnu,features=sse2", "aarch64-linux-gnu"):
        for op in sorted(UNARY_OPS - {"not"}):
            e = Unary(op, Load(x, (AT,)))
            nest = elementwise("operation", [x], Buffer("y", e.dtype, (64,)), e, AT, 8)
            code = assembly(emit_kernel(nest, parse_target(text)).ir, parse_target(text))
            calls = {line.split()[1] for line in code.splitlines() if line.split()[:1] in (["bl"], ["callq"])}
            assert all(name.startswith("polycomp.") for name in calls), (op, calls)


def test_host_uses_the_widest_vectors() -> None:
    if HOST.vector_bytes < 64:
        pytest.skip("this machine has no AVX-512")
    from polycomp.codegen.llvm.emit import emit_kernel
    from polycomp.codegen.llvm.machine import assembly

    x, y = Buffer("x", DType.FLOAT32, (64,)), Buffer("y", DType.FLOAT32, (64,))
    nest = elementwise("operation", [x], y, Load(x, (AT,)) * Load(x, (AT,)), AT, 16)
    assert "zmm" in assembly(emit_kernel(nest, HOST).ir, HOST)
