"""What users do wrong, and what they are told: one class per cause, with the line."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from jit_oracle import numbers

import polycomp as pc
from polycomp import errors

X = numbers(4, 6)
N = pc.size("n")


def branch(x: Any) -> Any:
    if x.sum() > 0:
        return x
    return -x


def loop(x: Any) -> Any:
    for _ in range(x[0, 0].astype(int)):
        x = x + 1
    return x


def assignment(x: Any) -> Any:
    x[0] = 1
    return x


def in_place(x: Any) -> Any:
    return np.add(x, 1, out=x)


def mask(x: Any) -> Any:
    return x[x > 0]


def wrong_shapes(x: Any) -> Any:
    return x @ x


def wrong_broadcast(x: Any) -> Any:
    return x + x[:, :3]


def outside(x: Any) -> Any:
    return x[4]


def no_axis(x: Any) -> Any:
    return x.sum(axis=2)


def unknown_function(x: Any) -> Any:
    return np.linalg.svd(x)


def unknown_ufunc(x: Any) -> Any:
    return np.spacing(x)


def unknown_argument(x: Any) -> Any:
    return np.sum(x, where=x > 0)


def too_large(x: Any) -> Any:
    return x.astype(np.uint8) + 300


def complex_numbers(x: Any) -> Any:
    return x + 1j


def wrong_result(x: Any) -> Any:
    return {x.shape}


def as_float(x: Any) -> Any:
    return float(x[0, 0])


def as_array(x: Any) -> Any:
    return np.asarray(x)


def filled(x: Any) -> Any:
    y = np.zeros((4, 6))
    y[:2] = x[:2]
    return y


def sorting(x: Any) -> Any:
    return np.sort(x)


def positions(x: Any) -> Any:
    return np.where(x > 0)


def distinct(x: Any) -> Any:
    return np.unique(x)


def inserting(x: Any) -> Any:
    return np.insert(x, 0, 1)


def open_histogram(x: Any) -> Any:
    return np.histogram(x, 5)


def reinterpreted(x: Any) -> Any:
    return x.view(np.int32)


def misspelt(x: Any) -> Any:
    return x.reshap(-1)


def long_window(x: Any) -> Any:
    return np.lib.stride_tricks.sliding_window_view(x, 9, axis=0)


def wrong_reshape(x: Any) -> Any:
    return x.reshape(5, -1)


def wrong_einsum(x: Any) -> Any:
    return np.einsum("ij,jk", x)


def empty_extreme(x: Any) -> Any:
    return x[:0].max()


MISTAKES: list[tuple[Callable[..., Any], type[Exception], str]] = [
    (
        branch,
        errors.ValueNeededError,
        "a condition (if, while, and, or, not, assert) needs the value of a tensor (bool[]), which is not known",
    ),
    (
        loop,
        errors.ValueNeededError,
        "while the function is traced; pass it as an int argument of its own, which is known while tracing",
    ),
    (
        assignment,
        errors.MutationError,
        "tensors are not changed in place; build a new one with where(mask, value, x), concatenate or pad",
    ),
    (in_place, errors.MutationError, "out= of numpy.add would change an array; use the result"),
    (
        mask,
        errors.ValueNeededError,
        "how many elements a mask selects is known only from its values; use where(mask, x, other)",
    ),
    (wrong_shapes, errors.ShapeError, "shapes [4, 6] and [4, 6] cannot be multiplied"),
    (wrong_broadcast, errors.ShapeError, "the shapes cannot be broadcast: dimension 1 is 6 and 3"),
    (outside, errors.IndexingError, "index 4 is outside of dimension 0 of size 4"),
    (no_axis, errors.IndexingError, "axis 2 does not exist in a tensor of 2 dimensions"),
    (unknown_function, errors.UnsupportedFunctionError, "numpy.linalg.svd cannot be traced"),
    (unknown_ufunc, errors.UnsupportedFunctionError, "numpy.spacing cannot be traced"),
    (
        unknown_argument,
        errors.UnsupportedFunctionError,
        "numpy.sum cannot be traced so: got an unexpected keyword argument 'where'",
    ),
    (too_large, errors.DTypeError, "300 cannot be a uint8: Python integer 300 out of bounds for uint8"),
    (complex_numbers, errors.DTypeError, "numpy.add of float32 and complex128 cannot be compiled"),
    (
        wrong_result,
        errors.ArgumentError,
        "the result of 'wrong_result' is a set; a jit function returns tensors",
    ),
    (as_float, errors.ValueNeededError, "float() needs the value of a tensor (float32[])"),
    (
        as_array,
        errors.ValueNeededError,
        "making a numpy array, or assigning into one, needs the value of a tensor (float32[4, 6])",
    ),
    (filled, errors.ValueNeededError, "join tensors with stack or concatenate; they need no asarray"),
    (sorting, errors.UnsupportedFunctionError, "numpy.sort cannot be traced; call it outside of the function and pass"),
    (positions, errors.UnsupportedFunctionError, "numpy.where of a condition alone cannot be traced; how large"),
    (distinct, errors.UnsupportedFunctionError, "numpy.unique cannot be traced; how large its result is depends on"),
    (inserting, errors.UnsupportedFunctionError, "numpy.insert cannot be traced; use concatenate"),
    (open_histogram, errors.ValueNeededError, "give range=(low, high), or edges as bins"),
    (
        reinterpreted,
        errors.UnsupportedAttributeError,
        "traced tensors have no 'view'; numpy arrays have it, but it cannot be traced",
    ),
    (misspelt, errors.UnsupportedAttributeError, "have no 'reshap'; neither have arrays: did you mean 'reshape'?"),
    (long_window, errors.ShapeError, "a window of 9 does not fit dimension 0 of float32[4, 6]"),
    (wrong_reshape, errors.ShapeError, "24 elements cannot be reshaped to rows of 5"),
    (wrong_einsum, errors.ShapeError, "einsum 'ij,jk' names 2 operands, but 1 were given"),
    (empty_extreme, errors.ShapeError, "an empty dimension has no extreme"),
]


@pytest.mark.parametrize(("function", "kind", "message"), MISTAKES, ids=lambda v: getattr(v, "__name__", ""))
def test_mistakes_in_functions(function: Callable[..., Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=re.escape(message)) as caught:
        pc.jit(function)(X)
    if function is not wrong_result:  # only a return has no line of its own
        line = function.__code__.co_firstlineno
        found = re.search(r"test_jit_errors\.py:(\d+)", str(caught.value))
        assert found is not None and line < int(found[1]) <= line + 3
    assert isinstance(caught.value, pc.PolycompError)


def test_a_size_is_not_a_number_yet() -> None:
    @pc.jit
    def f(x: pc.Tensor[N]) -> Any:
        return x if x.shape[0] > 10 else -x

    with pytest.raises(errors.SizeNeededError, match=r"whether \(n > 10\) holds is not known before the call"):
        f(numbers(4))


def test_a_loop_over_an_open_size() -> None:
    @pc.jit
    def f(x: pc.Tensor[N]) -> Any:
        return [x[i] for i in range(x.shape[0])]

    with pytest.raises(errors.SizeNeededError, match="a Python int needs the value of the size n, which is open"):
        f(numbers(4))


def test_tensors_do_not_outlive_their_call() -> None:
    kept: list[Any] = []
    pc.jit(lambda x: kept.append(x) or x)(X)
    with pytest.raises(errors.LeakedTensorError, match="a tensor traced in '<lambda>' is used outside of that call"):
        kept[0] + 1


def test_unknown_size() -> None:
    with pytest.raises(errors.SignatureError, match="dynamic= names the size 'n', but the sizes named in annotations"):
        pc.jit(dynamic=("n",))(lambda x: x)


def test_unknown_parameter() -> None:
    with pytest.raises(errors.SignatureError, match="static= names 'y', but the parameters of '<lambda>' are: x"):
        pc.jit(static="y")(lambda x: x)


def test_annotations_that_lost_their_quotes() -> None:
    def f(x: Any) -> Any:
        return x

    f.__annotations__["x"] = "pc.Tensor[rows, 8]"
    with pytest.raises(errors.SignatureError, match=r"name 'rows' is not defined; names of open sizes are written in"):
        pc.jit(f)


def test_wrong_annotation() -> None:
    with pytest.raises(errors.SignatureError, match=r"takes sizes, names of open sizes and None, not 1\.5"):
        pc.Tensor["n", 1.5]


def test_an_argument_that_does_not_fit_its_annotation() -> None:
    @pc.jit
    def f(x: pc.Tensor[np.float32, N, 8]) -> Any:
        return x

    with pytest.raises(errors.InputError, match=r"argument 'x' of 'f' has the size 6 in dimension 1; it is annotated"):
        f(X)
    with pytest.raises(errors.InputError, match="argument 'x' of 'f' has the dtype float64"):
        f(np.zeros((2, 8)))
    with pytest.raises(errors.InputError, match="argument 'x' of 'f' has 1 dimensions"):
        f(numbers(8))


def test_sizes_that_contradict_each_other() -> None:
    f = pc.jit(dynamic={"x": ("n",), "y": ("n",)})(lambda x, y: x + y)
    with pytest.raises(errors.InputError, match="the size n of '<lambda>' is 3 by dimension 0 of 'x', but 4 by dim"):
        f(numbers(3), numbers(4))


@pytest.mark.parametrize("argument", [{1, 2}, bytearray(b"x")])
def test_arguments_that_are_no_arrays(argument: Any) -> None:
    with pytest.raises(errors.ArgumentError, match=r"argument 'x' is a .* neither an array nor a value"):
        pc.jit(lambda x: x)(argument)


def test_dtypes_that_there_are_not() -> None:
    with pytest.raises(errors.ArgumentError, match="argument 'x': element type 'complex128' is not supported"):
        pc.jit(lambda x: x)(np.zeros(2, complex))


def test_an_index_out_of_range_fails_the_run() -> None:
    f = pc.jit(lambda x, i: x[i])
    np.testing.assert_array_equal(f(X, np.array([0, -1])), X[[0, -1]])
    for wrong in (4, -5):
        told = rf"the index {wrong} is outside of a dimension of size 4 of 'x', in '.*test_jit_errors.py:\d+"
        with pytest.raises(errors.ExecutionError, match=told):
            f(X, np.array([0, wrong]))
    pairs = pc.jit(lambda x, i, j: x[i, j])
    with pytest.raises(errors.ExecutionError):
        pairs(X, np.array([0, 1]), np.array([0, 6]))


def test_an_error_leaves_the_function_usable() -> None:
    f = pc.jit(lambda x, n: x.reshape(n, -1))
    with pytest.raises(errors.ShapeError):
        f(X, 5)
    np.testing.assert_array_equal(f(X, 2), X.reshape(2, -1))
