"""How jit functions are called: arguments, results, specialisation, caches and looking inside."""

from __future__ import annotations

import pathlib
import threading
from collections import namedtuple
from typing import Any

import numpy as np
import pytest
from jit_oracle import Array, numbers

import polycomp as pc
from polycomp.driver import pipeline
from polycomp.functions import JitFunction

N = pc.size("n")
Pair = namedtuple("Pair", ["left", "right"])


def compiled(function: JitFunction) -> int:
    """How many specialisations there are."""
    return len(function._made)


def test_arguments_and_results_may_be_nested() -> None:
    @pc.jit
    def layer(parameters: dict[str, Any], xs: list[Any]) -> dict[str, Any]:
        outputs = [x @ parameters["w"] + parameters["b"] for x in xs]
        return {"outputs": outputs, "pair": Pair(xs[0] * 2, (outputs[0].sum(), None)), "name": "layer"}

    w, b, x = numbers(4, 3), numbers(3, seed=1), numbers(2, 4, seed=2)
    result = layer({"w": w, "b": b}, [x, x + 1])
    np.testing.assert_allclose(result["outputs"][1], (x + 1) @ w + b, rtol=1e-5)
    assert isinstance(result["pair"], Pair) and result["pair"].right[1] is None and result["name"] == "layer"
    np.testing.assert_array_equal(result["pair"].left, x * 2)


def test_one_compilation_per_dtype_and_shape() -> None:
    double = pc.jit(lambda x: x + x)
    for array in (numbers(3), numbers(3, seed=1), numbers(4), numbers(3, dtype="int32")):
        np.testing.assert_array_equal(double(array), array + array)
    assert compiled(double) == 3


def test_floats_are_passed_and_ints_are_compiled_in() -> None:
    scale = pc.jit(lambda x, factor, axis: (x * factor).sum(axis=axis))
    x = numbers(3, 4)
    for factor in (0.5, 2.0):
        result = scale(x, factor, 1)
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, (x * factor).sum(axis=1), rtol=1e-5)
    assert compiled(scale) == 1
    scale(x, 0.5, 0)
    assert compiled(scale) == 2


def test_a_float_named_static_is_known_while_tracing() -> None:
    @pc.jit(static=("slope",))
    def leaky(x: Any, slope: float = 0.1) -> Any:
        return x if slope == 1.0 else np.where(x > 0, x, x * slope)

    x = numbers(5)
    np.testing.assert_array_equal(leaky(x, slope=1.0), x)
    np.testing.assert_allclose(leaky(x), np.where(x > 0, x, x * np.float32(0.1)))
    assert compiled(leaky) == 2


def test_equal_values_of_other_types_are_other_values() -> None:
    f = pc.jit(lambda x, n: x * n if n is True else x + n)
    x = numbers(3)
    np.testing.assert_array_equal(f(x, 1), x + 1)
    np.testing.assert_array_equal(f(x, True), x)


def test_defaults_and_keywords() -> None:
    f = pc.jit(lambda x, y=2.0, *, z: x * y - z)
    x = numbers(3)
    np.testing.assert_allclose(f(x, z=x), x * 2 - x, rtol=1e-6)
    with pytest.raises(TypeError, match="missing a required argument: 'z'"):
        f(x)


def test_nested_jit_functions_are_inlined() -> None:
    inner = pc.jit(np.exp)
    outer = pc.jit(lambda x: inner(x) + 1)
    x = numbers(7)
    np.testing.assert_allclose(outer(x), np.exp(x) + 1, rtol=1e-5)
    assert compiled(inner) == 0 and "1 kernel" in outer.explain()
    inner(x)
    np.testing.assert_allclose(pc.jit(lambda x: inner(x) + 2)(x), np.exp(x) + 2, rtol=1e-5)


def test_closed_over_arrays_become_weights() -> None:
    w = numbers(64, 8)
    f = pc.jit(lambda x: x @ w + w.sum(axis=0))
    x = numbers(3, 64, seed=1)
    np.testing.assert_allclose(f(x), x @ w + w.sum(axis=0), rtol=1e-4, atol=1e-4)


def test_methods_are_functions_of_their_object() -> None:
    class Model:
        def __init__(self) -> None:
            self.w = numbers(4, 4)

        @pc.jit
        def apply(self, x: Any) -> Any:
            return x @ self.w

    model, x = Model(), numbers(2, 4, seed=1)
    np.testing.assert_allclose(model.apply(x), x @ model.w, rtol=1e-5)


def test_constants_and_arguments_are_returned_as_copies() -> None:
    table = numbers(3)
    f = pc.jit(lambda x: (x, table, x))
    x = numbers(2, 2)
    first, constant, second = f(x)
    np.testing.assert_array_equal(constant, table)
    assert not np.shares_memory(constant, table) and not np.shares_memory(first, x)
    assert not np.shares_memory(first, second)
    nothing = pc.jit(lambda x: (None, 3))
    assert nothing(x) == (None, 3)


@pytest.mark.parametrize("make", [lambda a: a[::-1], lambda a: a.T, lambda a: a[:, ::2], np.asfortranarray])
def test_any_strides(make: Any) -> None:
    f = pc.jit(lambda x: x + 1)
    x = make(numbers(6, 8))
    np.testing.assert_array_equal(f(x), x + 1)
    np.testing.assert_array_equal(f(x), x + 1)


def test_read_only_unaligned_empty_and_foreign_byte_order() -> None:
    f = pc.jit(lambda x: x * 2)
    x = numbers(5)
    x.flags.writeable = False
    np.testing.assert_array_equal(f(x), x * 2)
    unaligned = np.frombuffer(b"\0" + x.tobytes(), np.float32, offset=1)
    np.testing.assert_array_equal(f(unaligned), x * 2)
    np.testing.assert_array_equal(f(x[:0]), x[:0])
    np.testing.assert_array_equal(f(x.astype(">f4")), x * 2)


def test_scalars_of_numpy_have_their_own_dtype() -> None:
    f = pc.jit(lambda x, s: x + s)
    assert f(numbers(3), np.float64(1)).dtype == np.float64
    assert f(numbers(3), np.float32(1)).dtype == np.float32
    np.testing.assert_array_equal(f(numbers(3), np.asarray(2, np.float32)), numbers(3) + 2)
    np.testing.assert_array_equal(f(numbers(3), np.float32(2)), numbers(3) + 2)


class Exporter:
    """Shares an array through DLPack, as torch's tensors do."""

    def __init__(self, array: Array) -> None:
        self.array = array
        self.exports = 0

    def __dlpack__(self, **arguments: Any) -> Any:
        self.exports += 1
        return self.array.__dlpack__(**arguments)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


def test_dlpack() -> None:
    x = Exporter(numbers(4))
    f = pc.jit(lambda a, b: a + b)
    np.testing.assert_array_equal(f(x, numbers(4)), x.array * 2)
    assert x.exports == 1


def test_open_sizes_are_compiled_once() -> None:
    @pc.jit
    def norm(x: pc.Tensor[N, 8], y: pc.Tensor[N, None]) -> Any:
        return (x / np.sqrt((x * x).sum(axis=1, keepdims=True))).mean(axis=0), y[::-1], x.shape[0] * y

    for n in (1, 2, 17, 100):
        x, y = numbers(n, 8), numbers(n, 3, seed=1)
        mean, backwards, scaled = norm(x, y)
        want = (x / np.sqrt((x * x).sum(axis=1, keepdims=True))).mean(axis=0)
        np.testing.assert_allclose(mean, want, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(backwards, y[::-1])
        np.testing.assert_array_equal(scaled, n * y)
    assert compiled(norm) == 1


def test_open_sizes_by_option() -> None:
    f = pc.jit(dynamic={"x": ("n", "m")})(lambda x: (x.reshape(-1), pc.softmax(x)))
    for shape in ((2, 3), (5, 4)):
        flat, _ = f(numbers(*shape))
        np.testing.assert_array_equal(flat, numbers(*shape).reshape(-1))
    assert compiled(f) == 1


def test_sizes_below_what_the_code_needs_are_compiled_on_their_own() -> None:
    @pc.jit
    def smooth(x: pc.Tensor[N]) -> Any:
        return x[2:] + x[1:-1] + x[:-2]

    for n in (50, 3, 2, 1, 0):
        x = numbers(n)
        np.testing.assert_allclose(smooth(x), x[2:] + x[1:-1] + x[:-2], rtol=1e-6)
    assert "n >= 2" in smooth.explain() and compiled(smooth) == 3


def test_python_decides_on_shapes() -> None:
    @pc.jit
    def total(x: Any) -> Any:
        return x.sum() if len(x) > 3 else sum(x[i] for i in range(x.shape[0]))

    for n in (2, 3, 4):
        np.testing.assert_allclose(total(numbers(n)), numbers(n).sum(), rtol=1e-5)


def test_every_level_can_be_read() -> None:
    f = pc.jit(lambda x, w: np.maximum(x @ w, 0))
    lowered = f.lower(numbers(4, 8), numbers(8, 16))
    assert "MatMul(x, w)" in lowered.graph
    assert "group" in lowered.optimised
    assert "kernel mat_mul_max" in lowered.kernels and "test_jit_calls.py" in lowered.kernels
    assert "for " in lowered.loops
    assert "define" in lowered.llvm
    assert "vfmadd" in lowered.assembly or "fmla" in lowered.assembly
    assert repr(lowered) == "<lowered <lambda>: .graph .optimised .kernels .loops .llvm .assembly>"


def test_explain_lists_what_was_compiled() -> None:
    f = pc.jit(lambda x, flag: x + 1 if flag else x)
    f(numbers(2, 3), True)
    assert f.explain() == "<jit <lambda>(x, flag): 1 compiled>\n  float32[2, 3], True: 1 kernel"


def test_modules_are_kept_on_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    x = numbers(9)

    def fresh() -> JitFunction:
        return pc.jit(lambda a: a * 3 + 1)

    want = fresh()(x)
    monkeypatch.setattr(pipeline, "lower_model", lambda *a: pytest.fail("compiled again"))
    np.testing.assert_array_equal(fresh()(x), want)


def test_the_cache_can_be_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    pc.jit(cache=False)(lambda a: a - 1)(numbers(3))
    assert not list(tmp_path.iterdir())


def test_calls_from_several_threads() -> None:
    f = pc.jit(lambda x: x * x + 1)
    wrong: list[int] = []

    def work(seed: int) -> None:
        x = numbers(20 + seed % 2, dtype="int32", seed=seed)
        wrong.extend(seed for _ in range(50) if not np.array_equal(f(x), x * x + 1))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and compiled(f) == 2


def test_functions_run_on_plain_arrays() -> None:
    np.testing.assert_array_equal(pc.relu(np.array([-1.0, 2.0])), [0.0, 2.0])
    np.testing.assert_allclose(pc.softmax(np.zeros((2, 4))), 0.25)
    np.testing.assert_allclose(pc.einsum("ij,kj->ik", np.eye(2), np.ones((3, 2))), np.ones((2, 3)))
