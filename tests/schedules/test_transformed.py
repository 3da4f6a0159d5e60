"""Schedules of matrix products between transforms: proven, and executed by the interpreter."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from polycomp import te
from polycomp.dtypes import DType
from polycomp.expr import unary
from polycomp.graph.ir import Call, TensorType
from polycomp.loops import lower_kernel
from polycomp.loops.interpreter import interpret
from polycomp.ops import operators
from polycomp.poly.legality import verify_kernel
from polycomp.poly.tree import Loop, LoopKind, walk
from polycomp.schedules.library.choose import build_schedule
from polycomp.schedules.library.transformed import as_transformed
from polycomp.target import Target
from polycomp.te.evaluate import evaluate

SMALL = Target("cpu", "x86_64-unknown-linux-gnu", "x86-64", (), vector_bytes=8, vector_registers=8, l2_bytes=2048)


def convolution(height, width, tile=2, pads=(1, 1, 1, 1), batch=1, epilogue=None, blocks=2):
    """The inputs and the output of a filtered 3x3 convolution of ``blocks`` times 2 channels to 4, with a bias."""
    points = tile + 2
    shapes = [(batch, blocks, height, width, 2), (points, points, 2, blocks, 2, 2), (2, 2)]
    inputs = [te.placeholder(shape, name=name) for shape, name in zip(shapes, "xub", strict=True)]
    attributes = {"block": 2, "tile": tile, "out_channels": 4, "kernel_shape": (3, 3), "pads": pads}
    types = tuple(TensorType(DType.FLOAT32, s) for s in shapes)
    (y,) = operators()["ConvWinograd"].lower(Call("y", "ConvWinograd", types, attributes), inputs)
    return inputs, y if epilogue is None else epilogue(y)


def gated(y):
    """y * sigmoid(y), which reads y twice."""
    gate = te.compute(y.shape, lambda n, k, h, w, c: unary("sigmoid", y[n, k, h, w, c]), "gate")
    return te.compute(y.shape, lambda n, k, h, w, c: y[n, k, h, w, c] * gate[n, k, h, w, c], "z")


def check(definition, target=SMALL):
    inputs, output = definition
    schedule = build_schedule("k", inputs, [output], {}, target)
    assert verify_kernel(schedule.kernel).violation is None
    nest = lower_kernel(schedule.kernel)
    rng = np.random.default_rng(0)
    feeds = [rng.standard_normal(t.shape).astype(np.float32) for t in inputs]
    merged = [f.reshape(b.shape) for f, b in zip(feeds, nest.inputs, strict=True)]
    (got,) = interpret(nest, merged, {})
    (want,) = evaluate([output], dict(zip(inputs, feeds, strict=True)), {})
    np.testing.assert_allclose(got.reshape(want.shape), want, rtol=1e-4, atol=1e-4)
    return schedule


CASES = {
    "whole tiles": lambda: convolution(4, 6),
    "one block of channels": lambda: convolution(4, 6, blocks=1),
    "tiles that hang over": lambda: convolution(5, 7),
    "no padding": lambda: convolution(6, 8, pads=(0, 0, 0, 0)),
    "one-sided padding": lambda: convolution(5, 4, pads=(2, 0, 0, 1)),
    "batch": lambda: convolution(4, 4, batch=2),
    "large tiles": lambda: convolution(5, 6, tile=4),
    "gate": lambda: convolution(5, 4, epilogue=gated),
}


@pytest.mark.parametrize("name", CASES)
def test_results(name):
    check(CASES[name]())


def parallel_loops(schedule):
    return [n for n, _ in walk(schedule.tree) if isinstance(n, Loop) and n.kind is LoopKind.PARALLEL]


def test_blocks_are_shared_out_where_there_are_enough():
    schedule = check(convolution(4, 4, batch=2), dataclasses.replace(SMALL, cores=2))
    assert len(parallel_loops(schedule)) == 1


def test_stages_are_shared_out_where_blocks_are_few():
    schedule = check(convolution(6, 6), dataclasses.replace(SMALL, cores=7))
    assert len(parallel_loops(schedule)) == 3


@pytest.mark.parametrize("cores", [1, 7])
def test_tiles_share_in_asking_for_the_next_weights(cores):
    """Whether blocks are shared out or stages, whose loops are fused."""
    schedule = check(convolution(12, 12), dataclasses.replace(SMALL, cores=cores))
    asks = any(d.value for d in schedule.decided if d.name.endswith("ask_for_next"))
    assert asks and "around=" in str(schedule.trace)


def test_an_ordinary_contraction_is_not_transformed():
    a, b, k = te.placeholder((4, 5), name="a"), te.placeholder((5, 6), name="b"), te.reduce_axis(5, "k")
    c = te.compute((4, 6), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), "c")
    assert as_transformed([c, te.compute((4, 6), lambda i, j: c[i, j] + 1.0, "d")]) is None
