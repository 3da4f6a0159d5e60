"""Functions for a GPU: lowered where there is none, and run on one that executes their CUDA C on the CPU."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from gpu_machine import Machine, machine, needs_harness, needs_nvrtc, no_gpu
from jit_oracle import numbers

import polycomp as pc
from polycomp.errors import ArgumentError, InputError, TargetError

__all__ = ["machine", "no_gpu"]

Array = np.ndarray[Any, Any]
N = pc.size("n")


def layer(x: Any, w: Any, b: Any) -> Any:
    return pc.relu(x @ w + b)


def arguments() -> tuple[Array, Array, Array]:
    return numbers(5, 8), numbers(8, 3, seed=1), numbers(3, seed=2)


class Described:
    """An array of which only the description can be looked at. ``dtype`` is the library's own name."""

    def __init__(self, shape: tuple[int, ...], typestr: str, dtype: Any = None) -> None:
        self.dtype = np.dtype(typestr) if dtype is None else dtype
        self.__cuda_array_interface__ = {"shape": shape, "typestr": typestr, "data": (0, False), "version": 3}


class OnlyDlpack:
    """One that says through DLPack where it is."""

    dtype = "torch.float32"
    shape = (5, 8)

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    def __dlpack__(self, **_: Any) -> Any:
        raise AssertionError("nothing is copied or shared while it is lowered")


# Lowered, without a GPU


def test_every_level_is_there() -> None:
    lowered = pc.jit(target="cuda")(layer).lower(*arguments())
    assert repr(lowered) == "<lowered layer: .graph .optimised .kernels .loops .cuda .assembly>"
    assert "MatMul" in lowered.graph and "kernel" in lowered.kernels and "for " in lowered.loops
    assert lowered.cuda.count('extern "C" __global__ void') >= 1
    assert "pc_shuffle_xor(T" not in lowered.cuda  # the prelude


@needs_nvrtc
def test_assembly_is_ptx() -> None:
    assert ".target sm_80" in pc.jit(target="cuda,arch=sm_80")(layer).lower(*arguments()).assembly


@pytest.mark.parametrize(
    ("x", "kind"),
    [
        (Described((5, 8), "<f4"), "float32"),
        (Described((5, 8), "<f2", "torch.float16"), "float16"),
        (Described((5, 8), "<V2", "torch.bfloat16"), "bfloat16"),
        (Described((5, 8), "<V2", np.dtype(ml_dtypes.bfloat16)), "bfloat16"),
        (OnlyDlpack(), "float32"),
    ],
)
def test_arrays_on_a_gpu_are_only_described(x: Any, kind: str) -> None:
    assert f"x: {kind}[5, 8]" in pc.jit(target="cuda")(lambda x: x * 2).lower(x).graph


def test_a_dtype_that_is_not_there_is_named() -> None:
    with pytest.raises(ArgumentError, match="argument 'x': element type 'complex64' is not supported"):
        pc.jit(target="cuda")(lambda x: x * 2).lower(Described((5, 8), "<c8"))


def test_annotations_hold_for_arrays_on_a_gpu() -> None:
    @pc.jit(target="cuda")
    def double(x: pc.Tensor[N, 8]) -> Any:
        return x * 2

    assert "x: float32[n, 8]" in double.lower(Described((5, 8), "<f4")).graph
    with pytest.raises(InputError, match="argument 'x' of 'double' has the size 7 in dimension 1"):
        double.lower(Described((5, 7), "<f4"))


def test_a_call_says_that_there_is_no_gpu(no_gpu: None) -> None:
    traced: list[int] = []

    @pc.jit(target="cuda")
    def double(x: Any) -> Any:
        traced.append(1)
        return x * 2

    for _ in range(2):
        with pytest.raises(TargetError, match="cupy, which is not installed"):
            double(numbers(4))


# Run


@needs_nvrtc
@needs_harness
class TestRuns:
    def test_numpy_in_numpy_out(self, machine: Machine) -> None:
        result = pc.jit(target="cuda")(layer)(*arguments())
        assert type(result) is np.ndarray
        np.testing.assert_allclose(result, layer_of_numpy(*arguments()), rtol=1e-5, atol=1e-5)

    def test_gpu_in_gpu_out(self, machine: Machine) -> None:
        compiled = pc.jit(target="cuda")(layer)
        compiled(*arguments())
        for _ in range(3):
            result = compiled(*map(machine.array, arguments()))
            assert type(result).__name__ == "HarnessArray" and result.shape == (5, 3)
            np.testing.assert_allclose(result.numpy(), layer_of_numpy(*arguments()), rtol=1e-5, atol=1e-5)

    def test_it_is_traced_once_for_both_kinds_of_arrays(self, machine: Machine) -> None:
        traced: list[int] = []

        @pc.jit(target="cuda")
        def double(x: Any) -> Any:
            traced.append(1)
            return x * 2

        x = numbers(7)
        for _ in range(3):
            np.testing.assert_array_equal(double(x), 2 * x)
            np.testing.assert_array_equal(double(machine.array(x)).numpy(), 2 * x)
        assert traced == [1]

    def test_some_arrays_on_the_gpu_others_not(self, machine: Machine) -> None:
        x, w, b = arguments()
        compiled = pc.jit(target="cuda")(layer)
        compiled(x, w, b)
        result = compiled(machine.array(x), w, machine.array(b))
        np.testing.assert_allclose(result.numpy(), layer_of_numpy(x, w, b), rtol=1e-5, atol=1e-5)

    def test_trees_numbers_and_constants(self, machine: Machine) -> None:
        @pc.jit(target="cuda")
        def step(parameters: Any, rate: float) -> Any:
            return {"w": parameters["w"] - rate * parameters["g"], "same": None, "two": (2, parameters["g"] + 1)}

        w, g = numbers(6), numbers(6, seed=1)
        result = step({"w": w, "g": g}, 0.5)
        assert list(result) == ["w", "same", "two"] and result["same"] is None and result["two"][0] == 2
        np.testing.assert_allclose(result["w"], w - 0.5 * g, rtol=1e-6)
        np.testing.assert_allclose(result["two"][1], g + 1, rtol=1e-6)

    def test_open_sizes(self, machine: Machine) -> None:
        compiled = pc.jit(target="cuda", dynamic={"x": ("n", 3)})(lambda x: x.sum(axis=1) / x.shape[0])
        for n in (1, 2, 31, 64, 200):
            x = numbers(n, 3)
            np.testing.assert_allclose(compiled(x), x.sum(axis=1) / n, rtol=1e-4, atol=1e-6)
        assert "1 compiled" in repr(compiled)

    def test_a_schedule_of_ones_own(self, machine: Machine) -> None:
        a, b, k = pc.placeholder((4, 3), name="a"), pc.placeholder((3, 6), name="b"), pc.reduce_axis(3, "k")
        schedule = pc.Schedule(pc.compute((4, 6), lambda i, j: pc.sum(a[i, k] * b[k, j], axis=k), "c"))
        schedule.bind("i", "block")
        schedule.bind("j", "thread")
        product = pc.build(schedule, target="cuda")
        assert "blockIdx.x" in product.cuda and ".target sm_80" in product.assembly
        x, y = numbers(4, 3), numbers(3, 6, seed=1)
        np.testing.assert_allclose(product(x, y), x @ y, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(product(machine.array(x), b=y).numpy(), x @ y, rtol=1e-5, atol=1e-6)


def layer_of_numpy(x: Array, w: Array, b: Array) -> Array:
    return np.maximum(x @ w + b, 0)
