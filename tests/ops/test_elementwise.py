"""Elementwise operators against numpy and the ONNX reference."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from operator_harness import SIZES, assert_close, data, make_call, run, run_all

from polycomp.dtypes import DType
from polycomp.errors import DTypeError, ShapeError
from polycomp.expr import Var
from polycomp.graph import TensorType
from polycomp.ops import operators

_LIKE = {np.dtype("f4"): TensorProto.FLOAT, np.dtype("f2"): TensorProto.FLOAT16, np.dtype("f8"): TensorProto.DOUBLE}


def reference(op, *arrays, opset=22, **attributes):
    names = [f"x{i}" for i in range(len(arrays))]
    infos = [helper.make_tensor_value_info(n, _LIKE[a.dtype], a.shape) for n, a in zip(names, arrays, strict=True)]
    out = helper.make_tensor_value_info("y", _LIKE[arrays[0].dtype], None)
    graph = helper.make_graph([helper.make_node(op, names, ["y"], **attributes)], "g", infos, [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    return np.asarray(ReferenceEvaluator(model).run(None, dict(zip(names, arrays, strict=True)))[0])


NUMPY_UNARY = {
    "Abs": np.abs, "Acos": np.arccos, "Acosh": np.arccosh, "Asin": np.arcsin, "Asinh": np.arcsinh, "Atan": np.arctan,
    "Atanh": np.arctanh, "Ceil": np.ceil, "Cos": np.cos, "Cosh": np.cosh, "Exp": np.exp, "Floor": np.floor,
    "Identity": np.positive, "Log": np.log, "Neg": np.negative, "Reciprocal": np.reciprocal, "Round": np.rint,
    "Sign": np.sign, "Sin": np.sin, "Sinh": np.sinh, "Sqrt": np.sqrt, "Tan": np.tan, "Tanh": np.tanh,
    "IsNaN": np.isnan,
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("op", NUMPY_UNARY)
def test_unary_like_numpy(op, dtype):
    x = np.append(data((37,), dtype, low=-2), [0.5, 1.5, 2.5, np.nan, np.inf, -np.inf, 0]).astype(dtype)
    wide = x.astype("float32") if dtype == "float16" else x
    with np.errstate(all="ignore"):
        want = NUMPY_UNARY[op](wide)
    assert_close(run(op, x), want if op == "IsNaN" else want.astype(dtype))


REFERENCE_UNARY = [
    ("Relu", {}), ("Sigmoid", {}), ("Softplus", {}), ("Softsign", {}), ("HardSwish", {}), ("Mish", {}), ("Erf", {}),
    ("LeakyRelu", {"alpha": 0.2}), ("Elu", {"alpha": 1.5}), ("Selu", {}), ("Selu", {"alpha": 1.2, "gamma": 2.0}),
    ("Celu", {"alpha": 0.7}), ("ThresholdedRelu", {"alpha": 0.6}), ("HardSigmoid", {"alpha": 0.3, "beta": 0.4}),
    ("Shrink", {"lambd": 0.9, "bias": 0.3}), ("Gelu", {}), ("Gelu", {"approximate": "tanh"}),
]  # fmt: skip


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize(("op", "attributes"), REFERENCE_UNARY)
def test_activations_like_the_onnx_reference(op, attributes, dtype):
    x = data((5, 7), dtype)
    want = reference(op, x.astype(np.float32), **attributes).astype(dtype)
    assert_close(run(op, x, **attributes), want)


def test_swish():
    x = data((9,))
    assert_close(run("Swish", x, alpha=1.7), (x / (1 + np.exp(-1.7 * x))).astype(np.float32))


def test_large_values_do_not_overflow():
    x = np.array([-200, 200], np.float32)
    for op in ("Softplus", "Mish"):
        np.testing.assert_allclose(run(op, x), [0, 200], atol=1e-6)
    np.testing.assert_allclose(run("Elu", x), [-1, 200])


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint8"])
def test_unary_on_integers(dtype):
    x = data((20,), dtype)
    np.testing.assert_array_equal(run("Abs", x), np.abs(x))
    np.testing.assert_array_equal(run("Sign", x), np.sign(x))
    np.testing.assert_array_equal(run("Relu", x), np.maximum(x, 0))
    np.testing.assert_array_equal(run("BitwiseNot", x), ~x)
    np.testing.assert_array_equal(run("Clip", x, min=2, max=5), np.clip(x, 2, 5))


def test_logical_not_and_infinities():
    b = data((9,), "bool")
    np.testing.assert_array_equal(run("Not", b), ~b)
    x = np.array([1, np.inf, -np.inf, np.nan], np.float32)
    assert run("IsInf", x).tolist() == [False, True, True, False]
    assert run("IsInf", x, detect_negative=0).tolist() == [False, True, False, False]
    assert run("IsInf", x, detect_positive=0).tolist() == [False, False, True, False]
    assert not run("IsInf", x, detect_positive=0, detect_negative=0).any()


def test_clip():
    x = np.array([-4, np.nan, 4, 0.5], np.float32)
    np.testing.assert_array_equal(run("Clip", x, min=-1.0, max=2.0), np.array([-1, np.nan, 2, 0.5], np.float32))
    np.testing.assert_array_equal(run("Clip", x, min=None, max=2.0), np.array([-4, np.nan, 2, 0.5], np.float32))
    np.testing.assert_array_equal(run("Clip", x, min=3.0, max=1.0), np.array([1, np.nan, 1, 1], np.float32))
    low, high = np.array(-1, np.float32), np.array([2], np.float32)
    np.testing.assert_array_equal(run("ClipTensor", x, low, high), run("Clip", x, min=-1.0, max=2.0))
    np.testing.assert_array_equal(run("ClipTensor", x, None, high), run("Clip", x, min=None, max=2.0))
    np.testing.assert_array_equal(run("ClipTensor", x, low), run("Clip", x, min=-1.0, max=None))


@pytest.mark.parametrize("source", ["float32", "float16", "int32", "uint8", "bool"])
@pytest.mark.parametrize("to", [DType.FLOAT16, DType.FLOAT64, DType.INT8, DType.INT64, DType.BOOL])
def test_cast(source, to):
    x = data((30,), source)
    np.testing.assert_array_equal(run("Cast", x, to=to), x.astype(to.numpy))


def test_cast_truncates_towards_zero():
    assert run("Cast", np.array([-1.9, 1.9, 0.4], np.float32), to="int32").tolist() == [-1, 1, 0]


shapes = st.tuples(*(st.tuples(st.sampled_from(SIZES), st.sampled_from("abx")) for _ in range(3)), st.integers(0, 3))


def broadcastable(drawn):
    """Two shapes of rank 3 (the first possibly less) that broadcast to each other."""
    *dims, rank = drawn
    a = [1 if one == "a" else n for n, one in dims]
    b = [1 if one == "b" else n for n, one in dims]
    return tuple(a[3 - rank :]), tuple(b)


ARITHMETIC = {
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Max": np.maximum, "Min": np.minimum, "Equal": np.equal,
    "Less": np.less, "LessOrEqual": np.less_equal, "Greater": np.greater, "GreaterOrEqual": np.greater_equal,
}  # fmt: skip


@settings(derandomize=True, max_examples=40, deadline=None)
@given(shapes, st.sampled_from(sorted(ARITHMETIC)), st.sampled_from(["float32", "float16", "int64", "uint8"]))
def test_broadcasting_like_numpy(drawn, op, dtype):
    a, b = broadcastable(drawn)
    x, y = data(a, dtype, 1), data(b, dtype, 2)
    for left, right in ((x, y), (y, x)):
        assert_close(run(op, left, right), ARITHMETIC[op](left, right))


@pytest.mark.parametrize("op", ["And", "Or", "Xor"])
def test_logical_and_bitwise(op):
    a, b = data((4, 1), "bool", 1), data((5,), "bool", 2)
    np.testing.assert_array_equal(run(op, a, b), getattr(np, f"logical_{op.lower()}")(a, b))
    x, y = data((4, 1), "int32", 1), data((5,), "int32", 2)
    np.testing.assert_array_equal(run(f"Bitwise{op}", x, y), getattr(np, f"bitwise_{op.lower()}")(x, y))


def test_shifts_by_all_bits_or_more():
    x, y = np.array([1, 255, 255, 3], np.uint8), np.array([1, 1, 8, 200], np.uint8)
    assert run("BitShift", x, y, direction="LEFT").tolist() == [2, 254, 0, 0]
    assert run("BitShift", x, y, direction="RIGHT").tolist() == [0, 127, 0, 0]
    x, y = np.array([-8, 4, -1, -8], np.int8), np.array([8, -9, 127, 1], np.int8)
    assert run("BitShift", x, y, direction="LEFT").tolist() == [0, 0, 0, -16]
    assert run("BitShift", x, y, direction="RIGHT").tolist() == [-1, 0, -1, -4]


def test_remainders_of_extremes():
    x = np.array([-1, 1, -1, 5, 5, np.inf, 0, 1e30], np.float32)
    y = np.array([np.inf, np.inf, -np.inf, -np.inf, 0, 2, -2, 7], np.float32)
    with np.errstate(all="ignore"):
        for fmod, function in ((0, np.mod), (1, np.fmod)):
            np.testing.assert_array_equal(run("Mod", x, y, fmod=fmod), function(x, y))


def test_division_and_remainders():
    x, y = np.array([7, -7, 7, -7], np.int32), np.array([2, 2, -2, -2], np.int32)
    assert run("Div", x, y).tolist() == [3, -3, -3, 3]
    assert run("Mod", x, y).tolist() == [1, 1, -1, -1]
    assert run("Mod", x, y, fmod=1).tolist() == [1, -1, 1, -1]
    u, v = x / np.float32(2), y.astype(np.float32)
    assert_close(run("Mod", u.astype(np.float32), v, fmod=1), np.fmod(u, v).astype(np.float32))
    assert_close(run("Mod", u.astype(np.float32), v), np.mod(u, v).astype(np.float32))
    assert_close(run("Div", u.astype(np.float32), v), (u / v).astype(np.float32))


_POWERS = [
    ("float32", "float32"),
    ("float32", "int64"),
    ("int32", "float32"),
    ("int64", "int32"),
    ("float16", "float16"),
]


@pytest.mark.parametrize(("base", "exponent"), _POWERS)
def test_power_has_the_type_of_its_base(base, exponent):
    x = np.abs(data((4, 1), base, 1)) + np.ones((), base)
    y = np.abs(data((3,), exponent, 2)) // 2
    want = np.power(x.astype(np.float64), y.astype(np.float64))
    assert_close(run("Pow", x, y), want.astype(base))


def test_negative_integer_power():
    assert run("Pow", np.array([2, 1, -1], np.int32), np.array([-1, -2, -3], np.int32)).tolist() == [0, 1, -1]


def test_variadic_and_ternary():
    x, y, z = (data(s, seed=i) for i, s in enumerate([(2, 1, 3), (4, 1), ()]))
    assert_close(run("Sum", x, y, z), x + y + z)
    assert_close(run("Mean", x, y, z), (x + y + z) / np.float32(3))
    assert_close(run("Max", x, y, z), np.maximum(np.maximum(x, y), z))
    assert_close(run("Min", x), x)
    c = data((4, 1), "bool")
    np.testing.assert_array_equal(run("Where", c, x, z), np.where(c, x, z))
    b = data((3,), "bool", 5)
    np.testing.assert_array_equal(run("Where", c, b, ~b), np.where(c, b, ~b))
    slope = data((3,), seed=9)
    assert_close(run("PRelu", x, slope), np.where(x < 0, x * slope, x))


def test_max_of_nan():
    assert math.isnan(run("Max", np.float32("nan"), np.float32(1)))
    assert math.isnan(run("Min", np.float32(1), np.float32("nan")))


def test_symbolic_shapes():
    b, s = Var("b"), Var("s")
    types = [TensorType(DType.FLOAT32, (b, 1, s + 1)), TensorType(DType.FLOAT32, (3, 1 + s))]
    x, y = data((2, 1, 5)), data((3, 5))
    got = run_all("Add", [x, y], types=types, bound={b: 2, s: 4})[0]
    assert_close(got, x + y)


def infer(op, *types, **attributes):
    return operators()[op].infer(make_call(op, types, attributes))


def test_messages():
    f, n = DType.FLOAT32, Var("n")
    with pytest.raises(ShapeError, match=r"Add 'node': the shapes cannot be broadcast: dimension 1 is 3 and 4 \("):
        infer("Add", TensorType(f, (2, 3)), TensorType(f, (4,)))
    with pytest.raises(ShapeError, match="dimension 0 is n and 3"):
        infer("Add", TensorType(f, (n,)), TensorType(f, (3,)))
    with pytest.raises(DTypeError, match="one element type, not float32 and int64"):
        infer("Mul", TensorType(f, ()), TensorType(DType.INT64, ()))
    with pytest.raises(
        DTypeError, match="Exp 'node': element type int8 is not among float16, bfloat16, float32, float64"
    ):
        infer("Exp", TensorType(DType.INT8, ()))
    with pytest.raises(ShapeError, match="slope cannot be broadcast"):
        infer("PRelu", TensorType(f, (3,)), TensorType(f, (2, 3)))
    with pytest.raises(ShapeError, match="limits must have one element"):
        infer("ClipTensor", TensorType(f, (3,)), TensorType(f, (3,)))
