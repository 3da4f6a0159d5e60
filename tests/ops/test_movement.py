"""Data movement and views against numpy."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_harness import data, make_call, run, run_all

from polycomp.dtypes import DType
from polycomp.errors import DTypeError, ExecutionError, ShapeError
from polycomp.expr import Binary, Const, Var, walk
from polycomp.graph import TensorType
from polycomp.ops import operators
from polycomp.ops.views import reshaped_index
from polycomp.te import Axis

equal = np.testing.assert_array_equal
deterministic = settings(derandomize=True, max_examples=40, deadline=None)
dims = st.sampled_from([0, 1, 2, 3, 5, 7])
F = DType.FLOAT32


def infer(op, *types, n_outputs=1, **attributes):
    return operators()[op].infer(make_call(op, types, attributes, n_outputs))


@deterministic
@given(st.lists(dims, min_size=1, max_size=4), dims, st.integers(-3, 2), st.sampled_from(["float16", "int8", "bool"]))
def test_concat_and_split(sizes, other, axis, dtype):
    shape = [other, 2, 3]
    arrays = []
    for seed, n in enumerate(sizes):
        shape[axis] = n
        arrays.append(data(tuple(shape), dtype, seed))
    joined = np.concatenate(arrays, axis)
    equal(run("Concat", *arrays, axis=axis), joined)
    for part, want in zip(run_all("Split", [joined], len(sizes), axis=axis, sizes=tuple(sizes)), arrays, strict=True):
        equal(part, want)


def test_concat_of_symbolic_sizes():
    p, q = Var("p"), Var("q")
    x, y = data((2, 3)), data((2, 4), seed=1)
    types = [TensorType(F, (2, p)), TensorType(F, (2, q))]
    equal(run_all("Concat", [x, y], types=types, bound={p: 3, q: 4}, axis=1)[0], np.concatenate([x, y], 1))


@deterministic
@given(st.tuples(*(st.tuples(st.integers(-9, 9), st.integers(-9, 9), st.sampled_from([-3, -2, -1, 1, 2, 3])),) * 2))
def test_slice(drawn):
    x = data((7, 5))
    slices = [slice(*s) for s in drawn]
    ranges = [range(*s.indices(n)) for s, n in zip(slices, x.shape, strict=True)]
    attributes = {
        "starts": tuple(r.start for r in ranges),
        "steps": tuple(r.step for r in ranges),
        "sizes": tuple(len(r) for r in ranges),
    }
    equal(run("Slice", x, **attributes), x[tuple(slices)])


def test_slice_with_symbolic_start():
    n = Var("n")
    x = data((6, 4))
    options = {"starts": (n - 2, 3), "steps": (1, -1), "sizes": (2, 4)}
    got = run_all("Slice", [x], types=[TensorType(F, (n, 4))], bound={n: 6}, **options)[0]
    equal(got, x[4:, ::-1])


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("index_shape", [(), (3,), (2, 2), (0,)])
@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_gather(axis, index_shape, dtype):
    x = data((4, 5, 6))
    indices = np.random.default_rng(3).integers(-4, 4, index_shape).astype(dtype)
    equal(run("Gather", x, indices, axis=axis), np.take(x, indices, axis=axis))


def test_gather_elements():
    x = data((4, 5))
    for axis, shape in ((0, (3, 5)), (1, (4, 7)), (1, (2, 2))):
        indices = np.random.default_rng(axis).integers(-4, 4, shape)
        trimmed = x[: shape[0]] if axis == 1 else x
        equal(run("GatherElements", x, indices, axis=axis), np.take_along_axis(trimmed, indices, axis))


@pytest.mark.parametrize("bad", [4, -5])
def test_index_outside(bad):
    with pytest.raises(ExecutionError, match="an index lies outside of its tensor"):
        run("Gather", data((4,)), np.array([0, bad]), axis=0)


@pytest.mark.parametrize("perm", list(itertools.permutations(range(3))))
def test_transpose(perm):
    x = data((2, 3, 5), "uint8")
    equal(run("Transpose", x, perm=perm), x.transpose(perm))


@deterministic
@given(st.tuples(*(st.integers(-2, 4) for _ in range(4))), st.sampled_from(["constant", "reflect", "edge", "wrap"]))
def test_pad(pads, mode):
    x = data((4, 7))
    grown = [max(p, 0) for p in pads]
    options = {"constant_values": 2.5} if mode == "constant" else {}
    cropped = x[tuple(slice(max(-b, 0), n - max(-e, 0)) for n, b, e in zip(x.shape, pads[:2], pads[2:], strict=True))]
    if mode != "constant" and pads != tuple(grown):
        pads, cropped = tuple(grown), x
    want = np.pad(cropped, [(grown[0], grown[2]), (grown[1], grown[3])], mode=mode, **options)
    value = [np.float32(2.5)] if mode == "constant" else []
    equal(run("Pad", x, *value, pads=pads, mode=mode), want)


def test_pad_more_than_there_is():
    x = data((3, 1))
    for mode in ("reflect", "wrap", "edge"):
        equal(run("Pad", x, pads=(7, 0, 9, 0), mode=mode), np.pad(x, [(7, 9), (0, 0)], mode=mode))
    n = Var("n")
    got = run_all("Pad", [x], types=[TensorType(F, (n, 1))], bound={n: 3}, pads=(2, 1, 2, 1), mode="reflect")[0]
    equal(got, np.pad(x, [(2, 2), (1, 1)], mode="reflect"))


def test_pad_of_an_empty_tensor():
    equal(run("Pad", np.zeros((0, 2), np.int32), pads=(1, 0, 0, 1)), np.zeros((1, 3), np.int32))


def test_expand_and_tile():
    x = data((3, 1))
    equal(run("Expand", x, shape=(2, 1, 4)), np.broadcast_to(x, (2, 3, 4)))
    equal(run("Expand", x, shape=(1,)), x)
    b = Var("b")
    got = run_all("Expand", [x], bound={b: 2}, shape=(b, 3, 2))[0]
    equal(got, np.broadcast_to(x, (2, 3, 2)))
    for repeats in ((1, 1), (2, 3), (0, 1), (4, 1)):
        equal(run("Tile", x, repeats=repeats), np.tile(x, repeats))


def test_depth_and_space():
    x = data((2, 12, 3, 5))
    dcr = x.reshape(2, 2, 2, 3, 3, 5).transpose(0, 3, 4, 1, 5, 2).reshape(2, 3, 6, 10)
    crd = x.reshape(2, 3, 2, 2, 3, 5).transpose(0, 1, 4, 2, 5, 3).reshape(2, 3, 6, 10)
    equal(run("DepthToSpace", x, blocksize=2, mode="DCR"), dcr)
    equal(run("DepthToSpace", x, blocksize=2, mode="CRD"), crd)
    equal(run("SpaceToDepth", dcr, blocksize=2), x)
    equal(run("SpaceToDepth", crd, blocksize=2, mode="CRD"), x)


@pytest.mark.parametrize("k", [-4, -1, 0, 2, 9])
def test_trilu(k):
    x = data((2, 4, 3), "int64")
    equal(run("Trilu", x, k=k, upper=1), np.triu(x, k))
    equal(run("Trilu", x, k=k, upper=0), np.tril(x, k))


def test_range_and_fill():
    n = Var("n")
    equal(run_all("Range", [], bound={n: 5}, start=2, limit=n + 4, delta=3)[0], np.arange(2, 9, 3))
    equal(run_all("Range", [], bound={n: 5}, start=n, limit=0, delta=-2)[0], np.arange(5, 0, -2))
    equal(run_all("Range", [], bound={n: 5}, start=9, limit=n, delta=1)[0], np.arange(9, 5))
    equal(run("Range", start=1, size=4), np.arange(1, 5))
    got = run("Range", start=0.5, size=3, delta=0.25, dtype="float32")
    equal(got, np.array([0.5, 0.75, 1], np.float32))
    equal(run_all("Fill", [], bound={n: 3}, shape=(n, 2), value=1.5, dtype="float16")[0], np.full((3, 2), 1.5, "f2"))
    equal(run("Fill", shape=(2,), value=1, dtype="bool"), [True, True])


@deterministic
@given(st.lists(st.sampled_from([1, 2, 3, 4, 6]), max_size=4), st.randoms(use_true_random=False))
def test_reshape(shape, random):
    """To a shape made of the same prime factors, dealt out at random."""
    factors = [p for n in shape for p in ((2, 2) if n == 4 else (2, 3) if n == 6 else (n,))]
    random.shuffle(factors)
    target = [1] * random.randint(0 if math.prod(shape) == 1 else 1, 4)
    for f in factors if target else ():
        target[random.randrange(len(target))] *= f
    x = data(tuple(shape), "int32")
    equal(run("Reshape", x, shape=tuple(target)), x.reshape(target))


def test_reshape_of_empty_tensors():
    equal(run("Reshape", np.zeros((0, 3), np.float32), shape=(3, 0, 2)), np.zeros((3, 0, 2), np.float32))


def divisors(source, target):
    """The right operands of all divisions that a reshape needs."""
    index = tuple(Axis(f"i{d}", extent=n) for d, n in enumerate(target))
    places = reshaped_index(source, target, index)
    divisions = [n for p in places for n in walk(p) if isinstance(n, Binary) and n.op in ("floordiv", "floormod")]
    return [int(n.right.value) if isinstance(n.right, Const) else str(n.right) for n in divisions]


def test_reshape_divides_only_what_is_split():
    b, s = Var("b"), Var("s")
    assert divisors((b, s, 768), (b, s, 12, 64)) == []
    assert divisors((b, s, 12, 64), (b, s, 768)) == [64, 64]
    assert divisors((b, s, 1, 768), (b, 1, s, 768)) == []
    assert divisors((b, 8, 7, 7), (b, 392)) == [49, 7, 7, 7]
    assert divisors((b * s, 768), (b, s, 768)) == []
    assert divisors((b, s, 768), (b * s, 768)) == ["s", "s"]
    x = data((2, 3, 8))
    types = [TensorType(F, (b, s, 8))]
    for shape in ((b, s, 2, 4), (b * s, 8), (b, s * 8), (b * s * 8,), (4, 2, b * s)):
        got = run_all("Reshape", [x], types=types, bound={b: 2, s: 3}, shape=shape)[0]
        equal(got, x.reshape(got.shape))


def test_messages():
    x = TensorType(F, (2, 6))
    with pytest.raises(ShapeError, match=r"Reshape 'node': the data cannot be reshaped to \[5, 2\] \(inputs: float32"):
        infer("Reshape", x, shape=(5, 2))
    with pytest.raises(ShapeError, match="may differ in dimension 1 only"):
        infer("Concat", x, TensorType(F, (3, 6)), axis=1)
    with pytest.raises(ShapeError, match=r"dimension 1 cannot be split into 2 parts of sizes \[2, 3\]"):
        infer("Split", x, n_outputs=2, axis=1, sizes=(2, 3))
    with pytest.raises(ShapeError, match="elements 0 to 6 of dimension 1 are outside of its size 6"):
        infer("Slice", x, starts=(0, 0), steps=(1, 1), sizes=(2, 7))
    with pytest.raises(DTypeError, match="element type float32 is not among int32, int64"):
        infer("Gather", x, x, axis=0)
    with pytest.raises(ShapeError, match=r"\[0, 0\] is not a permutation of 2 dimensions"):
        infer("Transpose", x, perm=(0, 0))
    with pytest.raises(ShapeError, match="take away more than there is"):
        infer("Pad", x, pads=(-2, 0, -1, 0))
    with pytest.raises(ShapeError, match="the mode is constant, reflect, edge, wrap, not 'mirror'"):
        infer("Pad", x, pads=(0, 0, 0, 0), mode="mirror")
    with pytest.raises(ShapeError, match="the number of channels 3 is no multiple of 4"):
        infer("DepthToSpace", TensorType(F, (1, 3, 2, 2)), blocksize=2)
