"""Single operators, and a few together, at sizes at which their kernels have many blocks, tiles and remainders.

Element types are open: the same layers are tried with each. Open dimensions have two sizes each.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from device_models import Trial
from onnx import numpy_helper, parser

Array = np.ndarray[Any, Any]
Dims = tuple[int | str, ...]

SIZES: Mapping[str, tuple[int, int]] = MappingProxyType({"N": (3, 1), "S": (17, 50)})
"""Of open dimensions."""

NUMPY: Mapping[str, Any] = MappingProxyType(
    {"float": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "double": np.float64}
)
"""By the names that ONNX's text has for the element types of floats."""

_CODES = MappingProxyType({"float": 1, "float16": 10, "bfloat16": 16, "double": 11})
_OPSET = 21


@dataclasses.dataclass(frozen=True)
class Layer:
    """``nodes`` in ONNX's text, of ``inputs`` and ``weights`` (both floats) and of constant ``integers``; ``y`` is the
    output. ``indices`` are inputs of int64 below a limit."""

    nodes: str
    inputs: Mapping[str, Dims]
    weights: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    integers: Mapping[str, list[int]] = dataclasses.field(default_factory=dict)
    indices: Mapping[str, tuple[Dims, int]] = dataclasses.field(default_factory=dict)

    def model(self, dtype: str = "float") -> onnx.ModelProto:
        names = [_declared(dtype, name, dims) for name, dims in self.inputs.items()]
        names += [_declared("int64", name, dims) for name, (dims, _) in self.indices.items()]
        nodes = self.nodes.replace("TYPE", str(_CODES[dtype]))
        text = f'<ir_version: 10, opset_import: ["" : {_OPSET}]> layer ({", ".join(names)}) => ({dtype} y) {{{nodes}}}'
        model = parser.parse_model(text)
        random = _random(self.nodes, 0)
        for name, shape in self.weights.items():
            values = random.standard_normal(shape) / np.sqrt(max(1, np.prod(shape[1:])))
            model.graph.initializer.append(numpy_helper.from_array(values.astype(NUMPY[dtype]), name))
        for name, numbers in self.integers.items():
            model.graph.initializer.append(numpy_helper.from_array(np.array(numbers, np.int64), name))
        return model

    def feeds(self, dtype: str = "float") -> Iterator[dict[str, Array]]:
        """Random inputs, for each combination of sizes."""
        named = {d for dims in self.inputs.values() for d in dims if isinstance(d, str)}
        for case in range(2 if named else 1):
            random = _random(self.nodes, 1 + case)
            made = {n: random.standard_normal(_shape(d, case)).astype(NUMPY[dtype]) for n, d in self.inputs.items()}
            yield made | {n: random.integers(0, limit, _shape(d, case)) for n, (d, limit) in self.indices.items()}


def _declared(dtype: str, name: str, dims: Dims) -> str:
    return f"{dtype}[{','.join(map(str, dims))}] {name}"


def _shape(dims: Dims, case: int) -> tuple[int, ...]:
    return tuple(d if isinstance(d, int) else SIZES[d][case] for d in dims)


def _random(text: str, number: int) -> np.random.Generator:
    return np.random.default_rng([zlib.crc32(text.encode()), number])


def _conv(x: Dims, w: tuple[int, ...], attributes: str = "", after: str = "") -> Layer:
    given = f"<{attributes}>" if attributes else ""
    return Layer(f"c = Conv {given} (x, w, b) {after or 'y = Relu (c)'}", {"x": x}, {"w": w, "b": w[:1]})


def _matmul(a: Dims, b: Dims, after: str = "y = Identity (c)") -> Layer:
    return Layer(f"c = MatMul (a, b) {after}", {"a": a, "b": b})


def _dense(a: Dims, w: tuple[int, int], after: str = "d = Add (c, b) y = Gelu (d)") -> Layer:
    return Layer(f"c = MatMul (a, w) {after}", {"a": a}, {"w": w, "b": w[1:]})


def _reduced(op: str, x: Dims, *axes: int, keep: int = 1) -> Layer:
    return Layer(f"y = {op} <keepdims = {keep}> (x, axes)", {"x": x}, integers={"axes": list(axes)})


def _unary(nodes: str, *x: int | str) -> Layer:
    return Layer(nodes, {"x": x})


_SAME = "pads = [1, 1, 1, 1]"
_ATTENTION = """
    k1 = Transpose <perm = [0, 1, 3, 2]> (k)
    s = MatMul (q, k1)
    t = Add (s, mask)
    p = Softmax <axis = -1> (t)
    y = MatMul (p, v)
"""
_NORMALISED = "a = Add (x, r) y = LayerNormalization <axis = -1, epsilon = 1e-5> (a, w, b)"


def _normalised(rows: Dims, width: int) -> Layer:
    return Layer(_NORMALISED, {"x": (*rows, width), "r": (*rows, width)}, {"w": (width,), "b": (width,)})


LAYERS: Mapping[str, Layer] = MappingProxyType(
    {
        # Convolutions
        "conv-1x1": _conv((1, 64, 14, 14), (128, 64, 1, 1)),
        "conv-1x1-odd": _conv((3, 19, 7, 9), (37, 19, 1, 1)),
        "conv-3x3": _conv((1, 32, 28, 28), (64, 32, 3, 3), _SAME),
        "conv-3x3-batch": _conv((5, 17, 9, 11), (33, 17, 3, 3), _SAME),
        "conv-3x3-open-batch": _conv(("N", 16, 12, 12), (32, 16, 3, 3), _SAME),
        "conv-3x3-open-image": _conv((1, 16, "N", "S"), (32, 16, 3, 3), _SAME),
        "conv-3x3-strided": _conv((2, 24, 21, 23), (40, 24, 3, 3), f"{_SAME}, strides = [2, 2]"),
        "conv-3x3-residual": Layer(
            f"c = Conv <{_SAME}> (x, w, b) d = Add (c, r) y = Relu (d)",
            {"x": (1, 32, 14, 14), "r": (1, 48, 14, 14)},
            {"w": (48, 32, 3, 3), "b": (48,)},
        ),
        "conv-7x7": _conv((1, 3, 64, 64), (32, 3, 7, 7), "pads = [3, 3, 3, 3], strides = [2, 2]"),
        "conv-dilated": _conv((1, 16, 20, 18), (24, 16, 3, 3), "pads = [2, 2, 2, 2], dilations = [2, 2]"),
        "conv-uneven-pads": _conv((1, 5, 10, 12), (7, 5, 3, 2), "pads = [0, 1, 2, 0]"),
        "conv-grouped": _conv((2, 24, 11, 11), (36, 6, 3, 3), f"{_SAME}, group = 4"),
        "conv-depthwise": _conv((1, 40, 28, 30), (40, 1, 3, 3), f"{_SAME}, group = 40"),
        "conv-depthwise-strided": _conv(
            (2, 33, 15, 17), (33, 1, 5, 5), "pads = [2, 2, 2, 2], strides = [2, 2], group = 33"
        ),
        "conv-depthwise-multiplied": _conv((1, 8, 13, 13), (24, 1, 3, 3), f"{_SAME}, group = 8"),
        "conv-1d": _conv((3, 20, 101), (31, 20, 5), "pads = [2, 2]"),
        "conv-3d": _conv((1, 4, 7, 8, 9), (12, 4, 3, 3, 3), "pads = [1, 1, 1, 1, 1, 1]"),
        "conv-many-channels": _conv((1, 512, 4, 4), (96, 512, 3, 3), _SAME),
        "conv-whole-image": _conv((2, 32, 8, 8), (50, 32, 8, 8)),
        "conv-swish": _conv((1, 16, 16, 16), (40, 16, 1, 1), "", "s = Sigmoid (c) y = Mul (c, s)"),
        "conv-transposed": Layer(
            "c = ConvTranspose <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w) y = Relu (c)",
            {"x": (1, 12, 11, 13)},
            {"w": (12, 20, 4, 4)},
        ),
        "conv-transposed-odd": Layer(
            "y = ConvTranspose <strides = [2, 3]> (x, w, b)", {"x": (2, 5, 6, 7)}, {"w": (5, 9, 3, 3), "b": (9,)}
        ),
        # Products of matrices
        "matmul": _matmul((64, 96), (96, 128)),
        "matmul-large": _matmul((256, 512), (512, 192)),
        "matmul-odd": _matmul((37, 53), (53, 71), "y = Relu (c)"),
        "matmul-batch": _matmul((2, 3, 33, 20), (2, 3, 20, 41)),
        "matmul-shared-operand": _matmul((6, 33, 20), (20, 41)),
        "matmul-broadcast": _matmul((2, 1, 9, 20), (3, 20, 11)),
        "matmul-one-row": _matmul((1, 300), (300, 1000)),
        "matmul-one-column": _matmul((100, 300), (300, 1)),
        "matmul-vectors": _matmul((2000,), (2000,)),
        "matmul-vector-matrix": _matmul((130,), (3, 130, 70)),
        "matmul-long-sum": _matmul((3, 5000), (5000, 7)),
        "matmul-split-sum": _matmul((16, 4096), (4096, 64)),
        "matmul-outer": _matmul((70, 1), (1, 90)),
        "matmul-open": _matmul(("S", 48), (48, 80)),
        "matmul-open-sum": _matmul((20, "S"), ("S", 30)),
        "matmul-open-batch": _matmul(("N", 4, "S", 32), ("N", 4, 32, "S")),
        "matmul-transposed": Layer(
            "t = Transpose <perm = [1, 0]> (b) y = MatMul (a, t)", {"a": (45, 64), "b": (77, 64)}
        ),
        "matmul-both-transposed": Layer(
            "s = Transpose <perm = [1, 0]> (a) t = Transpose <perm = [1, 0]> (b) y = MatMul (s, t)",
            {"a": (64, 45), "b": (77, 64)},
        ),
        "gemm": Layer(
            "y = Gemm <alpha = 0.5, beta = 2.0, transB = 1> (a, w, b)", {"a": (30, 200)}, {"w": (100, 200), "b": (100,)}
        ),
        "gemm-one-row": Layer("y = Gemm <transB = 1> (a, w, b)", {"a": (1, 512)}, {"w": (1000, 512), "b": (1000,)}),
        "gemm-open": Layer("c = Gemm (a, w, b) y = Tanh (c)", {"a": ("N", 100)}, {"w": (100, 60), "b": (60,)}),
        "dense": _dense((2, 50, 96), (96, 160)),
        "dense-open": _dense(("N", "S", 96), (96, 160)),
        "dense-heads": Layer(
            "c = MatMul (a, w) d = Add (c, b) r = Reshape (d, shape) y = Transpose <perm = [0, 2, 1, 3]> (r)",
            {"a": ("N", "S", 64)},
            {"w": (64, 96), "b": (96,)},
            {"shape": [0, 0, 6, 16]},
        ),
        "attention": Layer(
            _ATTENTION,
            {"q": (2, 4, 40, 16), "k": (2, 4, 40, 16), "v": (2, 4, 40, 16), "mask": (2, 1, 1, 40)},
        ),
        "attention-open": Layer(
            _ATTENTION,
            {"q": ("N", 2, "S", 8), "k": ("N", 2, "S", 8), "v": ("N", 2, "S", 8), "mask": ("N", 1, 1, "S")},
        ),
        # Rows
        **{f"softmax-{n}": _unary("y = Softmax <axis = -1> (x)", 13, n) for n in (1, 7, 24, 33, 100, 1000, 5000)},
        "softmax-open": _unary("y = Softmax <axis = -1> (x)", "N", 4, "S"),
        "softmax-channels": _unary("y = Softmax <axis = 1> (x)", 2, 21, 15, 9),
        "softmax-channels-many": _unary("y = Softmax <axis = 1> (x)", 2, 300, 10),
        "softmax-first": _unary("y = Softmax <axis = 0> (x)", 50, 40),
        "log-softmax": _unary("y = LogSoftmax <axis = -1> (x)", 20, 500),
        "softmax-masked": Layer(
            "a = Mul (x, x) b = Add (a, m) y = Softmax <axis = -1> (b)", {"x": (4, 6, 70), "m": (4, 1, 70)}
        ),
        **{f"layernorm-{n}": _normalised((9,), n) for n in (5, 32, 96, 384, 1500)},
        "layernorm-one-row": _normalised((1,), 768),
        "layernorm-open": _normalised(("N", "S"), 200),
        "layernorm-two-axes": Layer("y = LayerNormalization <axis = 1> (x, w)", {"x": (6, 10, 13)}, {"w": (10, 13)}),
        "rms-norm": Layer(
            "q = Mul (x, x) m = ReduceMean <keepdims = 1> (q, axes) r = Sqrt (m) d = Div (x, r) y = Mul (d, w)",
            {"x": (11, 130)},
            {"w": (130,)},
            {"axes": [-1]},
        ),
        "instance-norm": Layer("y = InstanceNormalization (x, w, b)", {"x": (2, 6, 17, 19)}, {"w": (6,), "b": (6,)}),
        "group-norm": Layer(
            "y = GroupNormalization <num_groups = 4> (x, w, b)", {"x": (2, 12, 9, 11)}, {"w": (12,), "b": (12,)}
        ),
        "batch-norm": Layer(
            "v = Mul (s, s) y = BatchNormalization (x, w, b, m, v)",
            {"x": (2, 20, 9, 11)},
            {"w": (20,), "b": (20,), "m": (20,), "s": (20,)},
        ),
        "lrn": _unary("y = LRN <size = 5> (x)", 1, 24, 12, 13),
        # Reductions
        "sum-rows": _reduced("ReduceSum", (30, 257), -1),
        "sum-short-rows": _reduced("ReduceSum", (500, 9), -1, keep=0),
        "sum-columns": _reduced("ReduceSum", (300, 70), 0),
        "sum-few-columns": _reduced("ReduceSum", (3000, 3), 0),
        "sum-middle": _reduced("ReduceSum", (7, 40, 33), 1),
        "sum-outer": _reduced("ReduceMean", (12, 20, 30), 0, 2),
        "sum-all": _reduced("ReduceSum", (41, 53, 7), 0, 1, 2, keep=0),
        "sum-all-many": _reduced("ReduceMean", (300_000,), 0),
        "sum-open": _reduced("ReduceSum", ("N", "S"), -1),
        "sum-open-columns": _reduced("ReduceSum", ("S", 40), 0),
        "sum-open-all": _reduced("ReduceMean", ("N", "S", 10), 0, 1, 2),
        "max-rows": _reduced("ReduceMax", (30, 257), -1),
        "min-columns": _reduced("ReduceMin", (300, 70), 0),
        "max-all": _reduced("ReduceMax", (4000,), 0),
        "prod-rows": _reduced("ReduceProd", (30, 12), -1),
        "l2-rows": _reduced("ReduceL2", (30, 257), -1),
        "log-sum-exp-rows": _reduced("ReduceLogSumExp", (30, 257), -1),
        "log-sum-exp-columns": _reduced("ReduceLogSumExp", (257, 30), 0),
        "sum-square-middle": _reduced("ReduceSumSquare", (5, 60, 17), 1),
        "argmax-rows": _unary("i = ArgMax <axis = -1> (x) y = Cast <to = TYPE> (i)", 30, 257),
        "argmax-long": _unary("i = ArgMax <axis = -1> (x) y = Cast <to = TYPE> (i)", 2, 30_000),
        "argmin-columns": _unary("i = ArgMin <axis = 0> (x) y = Cast <to = TYPE> (i)", 200, 37),
        "variance": Layer(
            "m = ReduceMean (x, axes) d = Sub (x, m) q = Mul (d, d) y = ReduceMean (q, axes)",
            {"x": (13, 600)},
            integers={"axes": [-1]},
        ),
        "global-average": _unary("y = GlobalAveragePool (x)", 2, 30, 13, 13),
        "max-pool": _unary(f"y = MaxPool <kernel_shape = [3, 3], strides = [2, 2], {_SAME}> (x)", 2, 17, 29, 31),
        "average-pool": _unary("y = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (x)", 1, 17, 30, 32),
        "average-pool-padded": _unary(f"y = AveragePool <kernel_shape = [3, 3], {_SAME}> (x)", 1, 9, 14, 15),
        "average-pool-large": _unary("y = AveragePool <kernel_shape = [13, 13]> (x)", 1, 50, 13, 13),
        "cumsum-columns": Layer("y = CumSum (x, axis)", {"x": (60, 150)}, integers={"axis": [0]}),
        "cumsum-rows": Layer("y = CumSum <reverse = 1> (x, axis)", {"x": (150, 60)}, integers={"axis": [1]}),
        # Elements and data movement
        "elementwise": _unary("a = Exp (x) b = Add (a, x) c = Tanh (b) y = Mul (c, x)", 7, 1001),
        "elementwise-open": _unary("a = Sigmoid (x) y = Mul (a, x)", "N", "S", 7),
        "elementwise-many": _unary("a = Erf (x) y = Add (a, x)", 1000, 300),
        "broadcast": Layer("a = Mul (x, c) y = Add (a, r)", {"x": (3, 20, 15, 7), "c": (20, 1, 1), "r": (15, 7)}),
        "transpose": _unary("y = Transpose <perm = [1, 0]> (x)", 130, 70),
        "transpose-batch": _unary("y = Transpose <perm = [0, 2, 1]> (x)", 3, 65, 33),
        "transpose-channels-last": _unary("a = Relu (x) y = Transpose <perm = [0, 2, 3, 1]> (a)", 2, 40, 12, 17),
        "transpose-heads": _unary("y = Transpose <perm = [0, 2, 1, 3]> (x)", 2, 33, 5, 16),
        "transpose-reversed": _unary("y = Transpose <perm = [3, 2, 1, 0]> (x)", 7, 9, 20, 18),
        "transpose-open": _unary("y = Transpose <perm = [0, 2, 1]> (x)", "N", "S", 40),
        "transpose-sum": Layer("t = Transpose <perm = [1, 0]> (a) y = Add (t, b)", {"a": (90, 64), "b": (64, 90)}),
        "concat": Layer("y = Concat <axis = 1> (a, b, c)", {"a": (4, 3, 20), "b": (4, 9, 20), "c": (4, 1, 20)}),
        "concat-last": Layer("y = Concat <axis = -1> (a, b)", {"a": ("N", 30, 5), "b": ("N", 30, 6)}),
        "split": Layer(
            "a, b, c = Split <axis = 1, num_outputs = 3> (x) d = Mul (a, c) y = Sub (d, b)", {"x": (20, 33, 4)}
        ),
        "slice": Layer(
            "y = Slice (x, starts, ends, axes, steps)",
            {"x": (30, 41, 9)},
            integers={"starts": [25, 1], "ends": [2, 40], "axes": [0, 1], "steps": [-3, 2]},
        ),
        "pad-reflect": Layer(
            'y = Pad <mode = "reflect"> (x, p)', {"x": (3, 14, 15)}, integers={"p": [0, 2, 3, 0, 4, 1]}
        ),
        "pad-edge": Layer('y = Pad <mode = "edge"> (x, p)', {"x": (3, 14, 15)}, integers={"p": [1, 2, 3, 0, 4, 1]}),
        "pad-constant": Layer("y = Pad (x, p)", {"x": (3, 14, 15)}, integers={"p": [0, 2, 3, 0, -4, 1]}),
        "expand": Layer("y = Expand (x, shape)", {"x": (20, 1, 30)}, integers={"shape": [3, 20, 8, 30]}),
        "tile": Layer("y = Tile (x, n)", {"x": (7, 9, 5)}, integers={"n": [2, 1, 3]}),
        "resize-nearest": Layer(
            'y = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric"> (x, , , sizes)',
            {"x": (1, 6, 9, 11)},
            integers={"sizes": [1, 6, 18, 22]},
        ),
        "resize-linear": Layer(
            'y = Resize <mode = "linear"> (x, , , sizes)', {"x": (1, 6, 9, 11)}, integers={"sizes": [1, 6, 20, 15]}
        ),
        "depth-to-space": _unary("y = DepthToSpace <blocksize = 2> (x)", 2, 24, 7, 9),
        "where": Layer("c = Less (a, b) y = Where (c, a, x)", {"a": (30, 40), "b": (40,), "x": (30, 1)}),
        "embedding": Layer(
            "e = Gather (w, i) y = Add (e, x)",
            {"x": ("N", "S", 24)},
            {"w": (100, 24)},
            indices={"i": (("N", "S"), 100)},
        ),
        "gather-columns": Layer("y = Gather <axis = 1> (x, i)", {"x": (20, 33, 3)}, indices={"i": ((5, 7), 33)}),
        "gather-elements": Layer(
            "y = GatherElements <axis = 1> (x, i)", {"x": (20, 33)}, indices={"i": ((20, 15), 33)}
        ),
    }
)
"""By name."""


def trial_of(name: str, dtype: str) -> Trial:
    """The layer ``name`` in an element type, with all of its sizes, against the CPU target."""
    return Trial(LAYERS[name].model(dtype), list(LAYERS[name].feeds(dtype)))
