"""What the tests of mistakes share: small computations, models and modules, and the check of a message.

Each ``test_*.py`` here makes one mistake that users make and asserts the class of the error and its exact words.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import polycomp as pc
from polycomp.runtime import ModuleParts, write_module_file
from polycomp.runtime.cuda.plan import DevicePlan
from polycomp.schedules import Schedule


@contextlib.contextmanager
def fails(error: type[Exception], message: str) -> Iterator[None]:
    """The block raises exactly ``error`` with exactly ``message``."""
    with pytest.raises(error) as caught:
        yield
    assert (type(caught.value), str(caught.value)) == (error, message)


@contextlib.contextmanager
def refuses(schedule: Schedule, error: type[Exception], message: str) -> Iterator[None]:
    """The same, and the schedule stays as it was."""
    before = str(schedule), schedule.trace
    with fails(error, message):
        yield
    assert (str(schedule), schedule.trace) == before


def doubled(n: Any = 10) -> Schedule:
    """``y[i] = x[i] * 2``."""
    x = pc.placeholder((n,), name="x")
    return Schedule(pc.compute((n,), lambda i: x[i] * 2.0, "y"))


def neighbours() -> Schedule:
    """``z[i] = y[i] + y[i + 2]`` with ``y[i] = x[i] * 2``."""
    x = pc.placeholder((10,), name="x")
    y = pc.compute((10,), lambda i: x[i] * 2.0, "y")
    return Schedule(pc.compute((8,), lambda i: y[i] + y[i + 2], "z"))


def table(m: Any = 4, n: Any = 6) -> Schedule:
    """``t[i, j] = x[i, j] * 2``."""
    x = pc.placeholder((m, n), name="x")
    return Schedule(pc.compute((m, n), lambda i, j: x[i, j] * 2.0, "t"))


def product(m: Any = 4, n: Any = 6, depth: Any = 3) -> Schedule:
    """The product ``c`` of the matrices ``a`` and ``b``."""
    a, b, k = pc.placeholder((m, depth), name="a"), pc.placeholder((depth, n), name="b"), pc.reduce_axis(depth, "k")
    return Schedule(pc.compute((m, n), lambda i, j: pc.sum(a[i, k] * b[k, j], axis=k), "c"))


def stencil() -> Schedule:
    """Four steps of time; each element is made of its two neighbours a step before."""
    x = pc.placeholder((8,), name="x")

    def step(u: Any, t: Any, i: Any) -> Any:
        inner = u[t - 1, i - 1] + u[t - 1, i + 1]
        return pc.select(t < 1, x[i], pc.select((i >= 1) & (i < 7), inner, u[t - 1, i]))

    return Schedule(pc.recurrence((4, 8), step, name="u"))


def shifted() -> Schedule:
    """``z = y + y`` on matrices, with ``y = x * 2``."""
    x = pc.placeholder((4, 6), name="x")
    y = pc.compute((4, 6), lambda i, j: x[i, j] * 2.0, "y")
    return Schedule(pc.compute((4, 6), lambda i, j: y[i, j] + 1.0, "z"))


def two_readers() -> Schedule:
    """``z = y + 1`` and ``w = y + 2`` with ``y = x * 2``."""
    x = pc.placeholder((10,), name="x")
    y = pc.compute((10,), lambda i: x[i] * 2.0, "y")
    return Schedule([pc.compute((10,), lambda i: y[i] + 1.0, "z"), pc.compute((10,), lambda i: y[i] + 2.0, "w")])


def row_scaled() -> Schedule:
    """Each element of a matrix of ``n`` columns by the running value ``total`` of its column."""
    n = pc.size("n")
    x = pc.placeholder((4, n), name="x")
    total = pc.compute((4, n), lambda i, j: x[i, j] * 2.0, "total")
    return Schedule(pc.compute((4, n), lambda i, j: total[i, j] + 1.0, "scaled"))


def row_sums() -> Schedule:
    """``mean = total / 6`` where ``total`` are the sums of a matrix's rows."""
    x, k = pc.placeholder((4, 6), name="x"), pc.reduce_axis(6, "k")
    total = pc.compute((4,), lambda i: pc.sum(x[i, k], axis=k), "total")
    return Schedule(pc.compute((4,), lambda i: total[i] / 6.0, "mean"))


def normalised() -> Schedule:
    """Each row of a matrix divided by its sum."""
    x, k = pc.placeholder((4, 6), name="x"), pc.reduce_axis(6, "k")
    total = pc.compute((4,), lambda i: pc.sum(x[i, k], axis=k), "total")
    return Schedule(pc.compute((4, 6), lambda i, j: x[i, j] / total[i], "y"))


def backwards() -> Schedule:
    """``z`` is ``y`` from its last element to its first, with ``y = x * 2``."""
    x = pc.placeholder((10,), name="x")
    y = pc.compute((10,), lambda i: x[i] * 2.0, "y")
    return Schedule(pc.compute((10,), lambda i: y[9 - i] + 1.0, "z"))


def last_step() -> Schedule:
    """``last[i]``, the last of four steps of time of ``u``."""
    u = stencil().tensor("u")
    return Schedule(pc.compute((8,), lambda i: u[3, i] * 1.0, "last"))


def leaning() -> Schedule:
    """``last[i]``, the last of four steps of time in which each element is added to its right neighbour."""
    x = pc.placeholder((8,), name="x")

    def step(u: Any, t: Any, i: Any) -> Any:
        return pc.select(t < 1, x[i], pc.select(i >= 1, u[t - 1, i - 1] + u[t - 1, i], u[t - 1, i]))

    u = pc.recurrence((4, 8), step, name="u")
    return Schedule(pc.compute((8,), lambda i: u[3, i] * 1.0, "last"))


def model(*nodes: onnx.NodeProto, rows: int | str = 2) -> onnx.ModelProto:
    """A model of ``nodes`` from ``x`` (rows by 8) to ``y``; without any, ``y = relu(x @ w)``."""
    made = nodes or (
        helper.make_node("MatMul", ["x", "w"], ["product"], "multiply"),
        helper.make_node("Relu", ["product"], ["y"], "rectify"),
    )
    graph = helper.make_graph(
        list(made),
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ones((8, 6), np.float32), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def compiled(rows: int | str = 2) -> Any:
    """The module of that model."""
    return pc.compile(model(rows=rows), threads=1, cache=False)


def module_file(folder: pathlib.Path) -> pathlib.Path:
    """The same in a file."""
    compiled().save(folder / "small.pcm")
    return folder / "small.pcm"


def module_file_for_a_gpu(folder: pathlib.Path) -> pathlib.Path:
    """A module for GPUs from ``x`` to ``y`` in a file; it does nothing."""
    manifest = compiled().manifest
    for_gpu = dataclasses.replace(
        manifest, arch="cuda", features=("sm_80",), steps=(), weight_bytes=0, device=DevicePlan((), ())
    )
    write_module_file(folder / "small.pcm", ModuleParts(for_gpu, b"", ()))
    return folder / "small.pcm"


def array(*shape: int, dtype: str = "float32") -> np.ndarray[Any, Any]:
    return np.zeros(shape, dtype)


class OnGpu:
    """An array of 4 floats in the memory of a GPU, as cupy's and torch's are."""

    __cuda_array_interface__ = {"shape": (4,), "typestr": "<f4", "data": (0, False), "version": 3}


def command(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """Exit status and standard error of the ``polycomp`` command."""
    from polycomp import cli

    with pytest.raises(SystemExit) as exit_:
        cli.main([str(a) for a in arguments])
    return int(exit_.value.code or 0), capsys.readouterr().err
