"""Products of 8-bit integers against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from operator_oracle import make_call, ours

from polycomp.dtypes import DType
from polycomp.errors import DTypeError, ShapeError
from polycomp.graph.ir import TensorType
from polycomp.ops import operators
from polycomp.passes.fold import interleave, interleave_weights


def bytes_of(dtype: str, *shape: int, seed: int = 0) -> np.ndarray:
    limits = np.iinfo(dtype)
    return np.random.default_rng([seed, *shape]).integers(limits.min, limits.max + 1, shape).astype(dtype)


@pytest.mark.parametrize("types", [("uint8", "int8"), ("int8", "int8"), ("uint8", "uint8")])
@pytest.mark.parametrize("shapes", [((3, 5), (5, 4)), ((7,), (7, 2)), ((2, 1, 3, 4), (5, 4, 3)), ((1, 1), (1, 1))])
def test_matmul_integer(types: tuple[str, str], shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    a, b = (bytes_of(t, *s, seed=i) for i, (t, s) in enumerate(zip(types, shapes, strict=True)))
    expected = np.matmul(a.astype(np.int32), b.astype(np.int32))
    np.testing.assert_array_equal(ours("MatMulInteger", a, b), expected)


@pytest.mark.parametrize(
    ("m", "k", "n", "words"),
    [
        (3, 8, 8, {"nr": 4}), (1, 7, 5, {"nr": 8}), (2, 1, 9, {"nr": 4}), (5, 6, 3, {"nr": 2}),
        (5, 35, 3, {"nr": 1, "word": 16}), (2, 6, 9, {"nr": 4, "word": 2}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("biased", [False, True])
def test_interleaved(m: int, k: int, n: int, words: dict[str, int], biased: bool) -> None:
    a, b = bytes_of("uint8", 2, m, k), bytes_of("int8", k, n)
    bias = np.arange(n, dtype=np.int32) if biased else None
    packed = ours("PackInterleaved", b, **words)
    np.testing.assert_array_equal(packed, interleave(b, words))
    expected = np.matmul(a.astype(np.int32), b.astype(np.int32)) + (0 if bias is None else bias)
    np.testing.assert_array_equal(ours("MatMulInterleaved", a, packed, bias, n=n, **words), expected)


@pytest.mark.parametrize(
    ("channels", "outputs", "block", "input_block", "word"),
    [(6, 5, 4, 4, 4), (3, 8, 8, 4, 4), (9, 4, 2, 8, 4), (9, 4, 2, 8, 8)],
)
def test_convolution_of_words(channels: int, outputs: int, block: int, input_block: int, word: int) -> None:
    x, w = bytes_of("uint8", 2, channels, 5, 6), bytes_of("int8", outputs, channels, 3, 2)
    sizes = {"strides": (2, 1), "dilations": (1, 2), "pads": (1, 0, 1, 2)}
    packing = {"block": block, "input_block": input_block, "word": word}
    packed = ours("PackConvInterleaved", w, **packing)
    np.testing.assert_array_equal(packed, interleave_weights(w, packing))
    blocked = ours("ToBlocked", x, block=input_block)
    blocked[:, -1, :, :, (channels - 1) % input_block + 1 :] = 99  # unspecified
    got = ours("ConvIntegerBlocked", blocked, packed, fill=7, kernel_shape=(3, 2), **packing, **sizes)
    wanted = ours("ConvInteger", x, w, group=1, fill=7, **sizes)
    np.testing.assert_array_equal(ours("FromBlocked", got, block=block, channels=outputs), wanted)


def test_depthwise_convolution_of_bytes() -> None:
    x, w = bytes_of("uint8", 1, 8, 5, 6), bytes_of("int8", 8, 1, 3, 3)
    sizes = {"strides": (1, 1), "dilations": (1, 1), "pads": (1, 1, 1, 1), "group": 8, "fill": 200}
    packed = ours("PackConvWeights", w, block=4, depthwise=True)
    more = {"block": 4, "input_block": 4, "in_channels": 8, "out_channels": 8, "kernel_shape": (3, 3)}
    got = ours("ConvBlocked", ours("ToBlocked", x, block=4), packed, **sizes, **more)
    np.testing.assert_array_equal(ours("FromBlocked", got, block=4, channels=8), ours("ConvInteger", x, w, **sizes))


def test_wrong_operands_are_named() -> None:
    wide = [TensorType(DType.INT32, (2, 2)), TensorType(DType.INT8, (2, 2))]
    with pytest.raises(DTypeError, match="operands must be int8 or uint8, not int32"):
        operators()["MatMulInteger"].infer(make_call("MatMulInteger", wide))
    short = [TensorType(DType.INT8, (2, 9)), TensorType(DType.UINT8, (1, 2, 8, 4))]
    with pytest.raises(ShapeError, match="does not fit"):
        operators()["MatMulInterleaved"].infer(make_call("MatMulInterleaved", short, n=8, nr=8))
