"""The steps that random models are made of: each picks an operator and attributes that fit a value."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from random_models import LARGEST, Dims, ModelBuilder, Step, Value

# ------------------------------------------------------------------ elementwise

_SMOOTH = ("Tanh", "Sigmoid", "Erf", "Sin", "Cos", "Softplus", "Softsign", "HardSwish", "HardSigmoid", "Elu", "Gelu")
_PLAIN = ("Relu", "Abs", "Neg", "LeakyRelu", "Identity")
_JUMPS = ("Floor", "Ceil", "Round", "Sign")


def unary(b: ModelBuilder, x: Value) -> Value | None:
    if x.dtype == "bool":
        return b.emit("Not", [x], x.dims)
    if not x.is_float:
        return None if x.dtype.startswith("u") else b.emit(b.choose(("Abs", "Neg", "Sign")), [x], x.dims)
    kinds = [_SMOOTH, _PLAIN, *([_JUMPS] if x.exact else [])]
    kind = b.choose(kinds)
    op = b.choose(kind)
    return b.emit(op, [x], x.dims, exact=kind is not _SMOOTH and op != "LeakyRelu")


def guarded_unary(b: ModelBuilder, x: Value) -> Value | None:
    """Functions that are undefined or large in places, of operands where they are not."""
    if not x.is_float:
        return None
    if b.chance():
        clipped = b.emit("Clip", [x, b.constant(np.array(-2, x.dtype)), b.constant(np.array(2, x.dtype))], x.dims)
        return b.emit("Exp", [clipped], x.dims)
    positive = b.emit("Add", [b.emit("Abs", [x], x.dims), b.weight_of(0.5, x.dtype)], x.dims)
    return b.emit(b.choose(("Sqrt", "Log", "Reciprocal")), [positive], x.dims)


def with_constant(b: ModelBuilder, x: Value) -> Value | None:
    """Arithmetic with a constant of a shape that broadcasts to x, or makes x broadcast."""
    if x.dtype == "bool":
        return None
    rank = int(b.random.integers(x.rank + 1))
    shape = [d if isinstance(d, int) and b.chance(0.7) else 1 for d in x.dims[x.rank - rank :]]
    ops = ("Add", "Sub", "Mul", "Max", "Min") if x.is_float or not x.dtype.startswith("u") else ("Add", "Max", "Min")
    op = b.choose(ops)
    operands: list[Value | str] = [x, b.weights(shape, dtype=x.dtype)]
    if b.chance(0.3):
        operands.reverse()
    return b.emit(op, operands, x.dims, dtype=x.dtype, exact=op in ("Max", "Min"))


def with_value(b: ModelBuilder, x: Value) -> Value | None:
    """Arithmetic with another value that broadcasts with x."""
    others = [v for v in b.values if v.dtype == x.dtype and v.dtype != "bool" and broadcast(v.dims, x.dims) is not None]
    if not others:
        return None
    other = b.choose(others)
    dims = broadcast(other.dims, x.dims)
    assert dims is not None
    op = b.choose(("Add", "Sub", "Mul", "Max", "Min") if not x.dtype.startswith("u") else ("Add", "Max"))
    return b.emit(op, [x, other], dims, exact=op in ("Max", "Min"))


def new_input(b: ModelBuilder, x: Value) -> Value | None:
    """Arithmetic with another input, of which some dimensions are 1."""
    if x.dtype == "bool" or any(isinstance(d, str) and d not in ("N", "M") for d in x.dims):
        return None
    dims = tuple(1 if b.chance(0.3) else d for d in x.dims)
    return b.emit("Add", [x, b.input(dims, x.dtype)], x.dims)


def broadcast(left: Dims, right: Dims) -> Dims | None:
    """The broadcast dimensions; None where two sizes may differ."""
    rank = max(len(left), len(right))
    pairs = zip((1,) * (rank - len(left)) + left, (1,) * (rank - len(right)) + right, strict=True)
    dims = []
    for a, c in pairs:
        if a != c and 1 not in (a, c):
            return None
        dims.append(c if a == 1 else a)
    return tuple(dims)


def select(b: ModelBuilder, x: Value) -> Value | None:
    if x.dtype == "bool" or not x.exact:
        return None
    op = b.choose(("Less", "GreaterOrEqual", "Equal"))
    condition = b.emit(op, [x, b.weights([], dtype=x.dtype)], x.dims, dtype="bool")
    return b.emit("Where", [condition, x, b.weights([1], dtype=x.dtype)], x.dims, dtype=x.dtype, exact=True)


def cast(b: ModelBuilder, x: Value) -> Value | None:
    """To another type and, where that is needed to go on, back."""
    if not x.exact:
        return None
    code = {"float32": 1, "int32": 6, "int64": 7, "float16": 10, "float64": 11}
    if x.dtype not in code:
        return b.emit("Cast", [x], x.dims, dtype="float32", exact=True, to=1)
    there = b.emit("Cast", [x], x.dims, dtype="int32", exact=True, to=6)
    return b.emit("Cast", [there], x.dims, dtype=x.dtype, exact=True, to=code[x.dtype])


# ------------------------------------------------------------------ reductions and normalisations


def reduce(b: ModelBuilder, x: Value) -> Value | None:
    if x.dtype not in ("float16", "float32", "float64", "int32", "int64") or not x.rank:
        return None
    count = int(b.random.integers(1, x.rank + 1))
    axes = sorted(int(a) for a in b.random.permutation(x.rank)[:count])
    keep = b.chance()
    dims = tuple(1 if i in axes else d for i, d in enumerate(x.dims) if keep or i not in axes)
    floats = ("ReduceMean", "ReduceL2", "ReduceMean", "ReduceLogSumExp", "ReduceSumSquare")
    op = b.choose(("ReduceMax", "ReduceMin", "ReduceSum", *(floats if x.is_float else ())))
    if op in ("ReduceSum", "ReduceSumSquare") and x.is_float and any(isinstance(x.dims[a], str) for a in axes):
        op = "ReduceMean"
    signed = [a - x.rank if b.chance(0.3) else a for a in axes]
    return b.emit(op, [x, b.integers(*signed)], dims, exact=op in ("ReduceMax", "ReduceMin"), keepdims=int(keep))


def arg_reduce(b: ModelBuilder, x: Value) -> Value | None:
    if not x.exact or x.dtype == "bool" or not x.rank:
        return None
    axis = int(b.random.integers(x.rank))
    keep = b.chance()
    dims = tuple(1 if i == axis else d for i, d in enumerate(x.dims) if keep or i != axis)
    return b.emit(b.choose(("ArgMax", "ArgMin")), [x], dims, dtype="int64", exact=True, axis=axis, keepdims=int(keep))


def softmax(b: ModelBuilder, x: Value) -> Value | None:
    if not x.is_float or not x.rank:
        return None
    return b.emit(b.choose(("Softmax", "LogSoftmax")), [x], x.dims, axis=int(b.random.integers(-x.rank, x.rank)))


def layer_norm(b: ModelBuilder, x: Value) -> Value | None:
    tail = next((i for i in range(x.rank) if all(isinstance(d, int) for d in x.dims[i:])), x.rank)
    if not x.is_float or tail == x.rank:
        return None
    axis = int(b.random.integers(tail, x.rank))
    shape = [int(d) for d in x.dims[axis:]]
    if math.prod(shape) < 3:
        return None  # the variance of so few may be nearly 0, which makes errors large
    inputs: list[Value | str] = [x, b.weights(shape)]
    if b.chance():
        inputs.append(b.weights(shape))
    return b.emit("LayerNormalization", inputs, x.dims, axis=axis, epsilon=1e-2)


def channel_norm(b: ModelBuilder, x: Value) -> Value | None:
    if not x.is_float or x.rank < 3 or not isinstance(x.dims[1], int):
        return None
    channels = x.dims[1]
    op = b.choose(("BatchNormalization", "InstanceNormalization", "GroupNormalization"))
    vectors: list[Value | str] = [b.weights([channels]), b.weights([channels])]
    if op == "BatchNormalization":
        variance = b.constant((b.random.random(channels) + 0.5).astype(x.dtype))
        return b.emit(op, [x, *vectors, b.weights([channels]), variance], x.dims)
    if op == "InstanceNormalization":
        return b.emit(op, [x, *vectors], x.dims, epsilon=0.1)
    groups = b.choose([g for g in (1, 2, 3, 4, 8) if channels % g == 0])
    return b.emit(op, [x, *vectors], x.dims, num_groups=groups, epsilon=0.1)


def cumulative_sum(b: ModelBuilder, x: Value) -> Value | None:
    if x.dtype not in ("float32", "int32", "int64", "float64") or not x.static():
        return None
    axis = b.choose(x.static())
    position = b.constant(np.array(axis, np.int64))
    return b.emit("CumSum", [x, position], x.dims, exclusive=int(b.chance()), reverse=int(b.chance()))


# ------------------------------------------------------------------ contractions and windows


def matmul(b: ModelBuilder, x: Value) -> Value | None:
    if not x.is_float or x.rank < 1 or not isinstance(x.dims[-1], int):
        return None
    inner, columns = x.dims[-1], b.choose((1, 2, 5, 16, 24, 33))
    weight = b.weights([inner, columns], 1 / math.sqrt(inner))
    if x.rank == 2 and b.chance():
        flip = b.chance()
        weight = b.weights([columns, inner] if flip else [inner, columns], 1 / math.sqrt(inner))
        bias = [b.weights([columns] if b.chance() else [1, columns])] if b.chance() else []
        return b.emit("Gemm", [x, weight, *bias], (x.dims[0], columns), transB=int(flip), alpha=0.5)
    return b.emit("MatMul", [x, weight], (*x.dims[:-1], columns))


def self_matmul(b: ModelBuilder, x: Value) -> Value | None:
    """x times its transpose: both operands are computed."""
    if not x.is_float or x.rank < 2 or not isinstance(x.dims[-1], int) or x.elements > LARGEST // 4:
        return None
    scaled = b.emit("Mul", [x, b.weight_of(1 / math.sqrt(x.dims[-1]), x.dtype)], x.dims)
    order = [*range(x.rank - 2), x.rank - 1, x.rank - 2]
    flipped = b.emit("Transpose", [x], tuple(x.dims[i] for i in order), perm=order)
    return b.emit("MatMul", [scaled, flipped], (*x.dims[:-1], x.dims[-2]))


def convolution(b: ModelBuilder, x: Value) -> Value | None:
    if not x.is_float or not 3 <= x.rank <= 5 or not isinstance(x.dims[1], int):
        return None
    channels = x.dims[1]
    windows = [_window(b, d) for d in x.dims[2:]]
    group = b.choose([g for g in (1, 1, 1, 2, channels) if channels % g == 0])
    out = group * b.choose((1, 2)) if group > 1 else b.choose((1, 4, 16, 17, 32))
    kernel = [w.kernel for w in windows]
    fan = channels // group * math.prod(kernel)
    inputs: list[Value | str] = [x, b.weights([out, channels // group, *kernel], 1 / math.sqrt(fan))]
    if b.chance(0.7):
        inputs.append(b.weights([out]))
    dims = (x.dims[0], out, *(_out(b, d, w) for d, w in zip(x.dims[2:], windows, strict=True)))
    return b.emit("Conv", inputs, dims, group=group, kernel_shape=kernel, **_attributes(windows))


def pool(b: ModelBuilder, x: Value) -> Value | None:
    if not x.is_float or not 3 <= x.rank <= 5:
        return None
    windows = [_window(b, d, dilate=False) for d in x.dims[2:]]
    dims = (*x.dims[:2], *(_out(b, d, w) for d, w in zip(x.dims[2:], windows, strict=True)))
    common = {"kernel_shape": [w.kernel for w in windows], **_attributes(windows)}
    del common["dilations"]
    if b.chance():
        return b.emit("MaxPool", [x], dims, exact=True, **common)
    return b.emit("AveragePool", [x], dims, count_include_pad=int(b.chance()), **common)


def global_pool(b: ModelBuilder, x: Value) -> Value | None:
    if not x.is_float or not 3 <= x.rank <= 5:
        return None
    dims = (*x.dims[:2], *(1 for _ in x.dims[2:]))
    return b.emit(b.choose(("GlobalAveragePool", "GlobalMaxPool")), [x], dims)


def transposed_convolution(b: ModelBuilder, x: Value) -> Value | None:
    if not x.is_float or not 3 <= x.rank <= 4 or not all(isinstance(d, int) for d in x.dims[1:]):
        return None
    channels, out, stride, kernel = int(x.dims[1]), b.choose((1, 3, 16)), b.choose((1, 2)), b.choose((2, 3))
    if x.elements > LARGEST // 8:
        return None
    spatial = x.rank - 2
    weight = b.weights([channels, out, *[kernel] * spatial], 1 / math.sqrt(channels * kernel))
    dims = (x.dims[0], out, *((int(d) - 1) * stride + kernel for d in x.dims[2:]))
    return b.emit("ConvTranspose", [x, weight], dims, strides=[stride] * spatial)


class _Window:
    def __init__(self, kernel: int, stride: int, dilation: int, pads: tuple[int, int]) -> None:
        self.kernel, self.stride, self.dilation, self.pads = kernel, stride, dilation, pads


def _window(b: ModelBuilder, size: int | str, dilate: bool = True) -> _Window:
    """A window that fits into the padded size, whatever that is when it is open."""
    kernel, stride = b.choose((1, 2, 3, 3)), b.choose((1, 1, 2))
    if isinstance(size, str) or size < 4:
        return _Window(3, stride, 1, (1, 1)) if kernel > 1 else _Window(1, stride, 1, (0, 0))
    dilation = b.choose((1, 1, 2)) if dilate else 1
    low, high = (int(p) for p in b.random.integers(0, kernel, 2))
    if dilation * (kernel - 1) + 1 > size + low + high:
        dilation = 1
    return _Window(kernel, stride, dilation, (low, high))


def _out(b: ModelBuilder, size: int | str, window: _Window) -> int | str:
    if isinstance(size, str):
        return size if window.stride == 1 else b.fresh("s")
    reach = window.dilation * (window.kernel - 1) + 1
    return (size + sum(window.pads) - reach) // window.stride + 1


def _attributes(windows: list[_Window]) -> dict[str, Any]:
    return {
        "strides": [w.stride for w in windows],
        "dilations": [w.dilation for w in windows],
        "pads": [*(w.pads[0] for w in windows), *(w.pads[1] for w in windows)],
    }


# ------------------------------------------------------------------ movement


def transpose(b: ModelBuilder, x: Value) -> Value | None:
    if x.rank < 2:
        return None
    order = [int(i) for i in b.random.permutation(x.rank)]
    return b.emit("Transpose", [x], tuple(x.dims[i] for i in order), exact=True, perm=order)


def concat(b: ModelBuilder, x: Value) -> Value | None:
    if not x.rank:
        return None
    axis = int(b.random.integers(x.rank))

    def fits(v: Value) -> bool:
        alike = v.rank == x.rank and all(
            a == c for i, (a, c) in enumerate(zip(v.dims, x.dims, strict=True)) if i != axis
        )
        return alike and v.dtype == x.dtype

    parts = [x, b.choose([v for v in b.values if fits(v)])]
    if sum(p.elements for p in parts) > LARGEST:
        return None
    sizes = [p.dims[axis] for p in parts]
    total = sum(s for s in sizes if isinstance(s, int)) if all(isinstance(s, int) for s in sizes) else b.fresh("s")
    dims = (*x.dims[:axis], total, *x.dims[axis + 1 :])
    return b.emit("Concat", list(parts), dims, exact=True, axis=axis - x.rank if b.chance(0.3) else axis)


def split(b: ModelBuilder, x: Value) -> Value | None:
    """A value split in two, of which the second is used (and the first stays for later steps)."""
    axes = [i for i in x.static() if int(x.dims[i]) >= 2]
    if not axes:
        return None
    axis = b.choose(axes)
    size = int(x.dims[axis])
    first = int(b.random.integers(1, size))
    names = [b.fresh("v"), b.fresh("v")]
    b.split_node(x, axis, (first, size - first), names)
    return b.values[-1]


def _outermost(x: Value) -> int | None:
    """The first dimension that is not 1, when its size is known; pieces along it are contiguous."""
    axis = next((i for i, d in enumerate(x.dims) if d != 1), None)
    return axis if axis is not None and isinstance(x.dims[axis], int) else None


def blocks(b: ModelBuilder, x: Value) -> Value | None:
    """An image of whole blocks of channels (or a matrix with rows of whole cache lines), to be joined and cut."""
    if not x.is_float or x.rank < 2 or x.dims[1] in (16, 32, 48):
        return None
    if x.rank == 4 and isinstance(x.dims[1], int):
        return b.emit("Conv", [x, b.weights([32, x.dims[1], 1, 1], 0.3)], (x.dims[0], 32, *x.dims[2:]))
    depth = x.dims[-1]
    return b.emit("MatMul", [x, b.weights([depth, 16])], (*x.dims[:-1], 16)) if isinstance(depth, int) else None


def join(b: ModelBuilder, x: Value) -> Value | None:
    """x, something made of it, and others that fit, side by side: x and what it is made of have other readers too."""
    axis = _outermost(x)
    if axis is None or x.elements > LARGEST // 4:
        return None
    made = [x]
    if x.is_float and x.rank > axis + 1:
        made.append(b.emit("Softmax", [x], x.dims, axis=x.rank - 1))
    if x.is_float and x.rank == 4 and axis == 1:
        made.append(b.emit("Conv", [x, b.weights([16, int(x.dims[1]), 1, 1], 0.3)], (1, 16, *x.dims[2:])))
    fits = [v for v in b.values if v.dtype == x.dtype and v.rank == x.rank and _differ_at(v.dims, x.dims) <= {axis}]
    made += [b.choose(fits) for _ in range(int(b.random.integers(0, 3)))]
    parts = [made[int(i)] for i in b.random.permutation(len(made))]
    total = sum(int(p.dims[axis]) for p in parts)
    return b.emit("Concat", parts, (*x.dims[:axis], total, *x.dims[axis + 1 :]), exact=True, axis=axis)


def _differ_at(left: Dims, right: Dims) -> set[int]:
    return {i for i, (a, c) in enumerate(zip(left, right, strict=True)) if a != c}


def cut(b: ModelBuilder, x: Value) -> Value | None:
    """A contiguous piece of x, or x in two of them."""
    axis = _outermost(x)
    if axis is None:
        return None
    size = int(x.dims[axis])
    low = int(b.random.integers(1, size))
    if b.chance():
        b.split_node(x, axis, (low, size - low), [b.fresh("v"), b.fresh("v")])
        return b.values[-1] if b.chance() else b.values[-2]
    bounds = (0, low) if b.chance() else (low, size)
    operands: list[Value | str] = [x, *(b.integers(number) for number in (*bounds, axis))]
    return b.emit("Slice", operands, (*x.dims[:axis], bounds[1] - bounds[0], *x.dims[axis + 1 :]), exact=True)


def slice_(b: ModelBuilder, x: Value) -> Value | None:
    if not x.rank:
        return None
    axis = int(b.random.integers(x.rank))
    size = x.dims[axis]
    step = b.choose((1, 2, 3, -1, -2))
    if isinstance(size, str):
        begin, end = (0, 2**31) if step > 0 else (2**31, -(2**31))
        out: int | str = size if abs(step) == 1 else b.fresh("s")
    else:
        low = int(b.random.integers(size))
        high = int(b.random.integers(low + 1, size + 1))
        begin, end = (low, high) if step > 0 else (high - 1, low - 1 if low else -(2**31))
        out = -((low - high) // abs(step))
    dims = (*x.dims[:axis], out, *x.dims[axis + 1 :])
    operands: list[Value | str] = [x, *(b.integers(number) for number in (begin, end, axis, step))]
    return b.emit("Slice", operands, dims, exact=True)


def pad(b: ModelBuilder, x: Value) -> Value | None:
    if not x.rank or x.dtype == "bool" or x.elements > LARGEST // 2:
        return None
    mode = b.choose(("constant", "edge", "reflect"))
    low, high, dims = [], [], []
    for size in x.dims:
        most = 2 if mode != "reflect" else min(2, int(size) - 1) if isinstance(size, int) else 0
        before, after = (int(p) if b.chance() else 0 for p in b.random.integers(0, most + 1, 2))
        low.append(before)
        high.append(after)
        grown = before + after
        dims.append(size + grown if isinstance(size, int) else b.fresh("s") if grown else size)
    operands: list[Value | str] = [x, b.integers(*low, *high)]
    if mode == "constant" and b.chance():
        operands.append(b.weights([], dtype=x.dtype))
    return b.emit("Pad", operands, tuple(dims), exact=True, mode=mode)


def gather(b: ModelBuilder, x: Value) -> Value | None:
    if not x.static() or x.elements > LARGEST // 4:
        return None
    axis = b.choose(x.static())
    size = int(x.dims[axis])
    shape = b.choose(((), (3,), (2, 2), (1,)))
    indices = b.constant(b.random.integers(-size, size, shape))
    return b.emit("Gather", [x, indices], (*x.dims[:axis], *shape, *x.dims[axis + 1 :]), exact=True, axis=axis)


def gather_elements(b: ModelBuilder, x: Value) -> Value | None:
    if len(x.static()) != x.rank or not x.rank:
        return None
    axis = int(b.random.integers(x.rank))
    dims = tuple(2 if i == axis else int(d) for i, d in enumerate(x.dims))
    indices = b.constant(b.random.integers(0, int(x.dims[axis]), dims))
    return b.emit("GatherElements", [x, indices], dims, exact=True, axis=axis)


def tile(b: ModelBuilder, x: Value) -> Value | None:
    if not x.rank or x.elements > LARGEST // 4:
        return None
    repeats = [b.choose((1, 2, 3)) if isinstance(d, int) else 1 for d in x.dims]
    dims = tuple(d * r if isinstance(d, int) else d for d, r in zip(x.dims, repeats, strict=True))
    if math.prod(repeats) > 4:
        return None
    return b.emit("Tile", [x, b.integers(*repeats)], dims, exact=True)


def expand(b: ModelBuilder, x: Value) -> Value | None:
    ones = [i for i, d in enumerate(x.dims) if d == 1]
    if x.elements > LARGEST // 4 or x.rank > 4:
        return None
    shape = [b.choose((1, 3)) if i in ones else 1 for i in range(x.rank)]
    dims = tuple(s if d == 1 else d for d, s in zip(x.dims, shape, strict=True))
    lead = [2] if b.chance(0.3) else []
    return b.emit("Expand", [x, b.integers(*lead, *shape)], (*lead, *dims), exact=True) if lead or shape else None


def resize(b: ModelBuilder, x: Value) -> Value | None:
    if not x.is_float or x.rank != 4 or x.elements > LARGEST // 4:
        return None
    if any(isinstance(d, str) for d in x.dims[2:]):
        scales = b.constant(np.array([1, 1, 2, 2], np.float32))
        dims: Dims = (*x.dims[:2], *(d * 2 if isinstance(d, int) else b.fresh("s") for d in x.dims[2:]))
        return b.emit("Resize", [x, "", scales], dims, exact=True, mode="nearest")
    sizes = [b.choose((1, 3, 8, 9)) for _ in x.dims[2:]]
    mode, transform = b.choose(("nearest", "linear")), b.choose(("half_pixel", "asymmetric", "align_corners"))
    if isinstance(x.dims[0], str) or isinstance(x.dims[1], str) or (mode == "nearest" and transform != "asymmetric"):
        return None
    operands: list[Value | str] = [x, "", "", b.integers(x.dims[0], x.dims[1], *sizes)]
    return b.emit(
        "Resize",
        operands,
        (*x.dims[:2], *sizes),
        mode=mode,
        coordinate_transformation_mode=transform,
        nearest_mode="floor",
    )


def depth_to_space(b: ModelBuilder, x: Value) -> Value | None:
    if x.rank != 4 or not isinstance(x.dims[1], int) or x.dims[1] % 4 or x.dtype == "bool":
        return None
    dims = (x.dims[0], x.dims[1] // 4, *(d * 2 if isinstance(d, int) else b.fresh("s") for d in x.dims[2:]))
    return b.emit("DepthToSpace", [x], dims, exact=True, blocksize=2, mode=b.choose(("DCR", "CRD")))


# ------------------------------------------------------------------ views


def merge_dims(b: ModelBuilder, x: Value) -> Value | None:
    if x.rank < 2:
        return None
    first = int(b.random.integers(x.rank - 1))
    pair = x.dims[first : first + 2]
    merged = pair[0] * pair[1] if isinstance(pair[0], int) and isinstance(pair[1], int) else b.fresh("s")
    dims = (*x.dims[:first], merged, *x.dims[first + 2 :])
    if any(isinstance(d, str) for d in x.dims[first + 2 :]):
        return None  # 0 copies the size of the same position, which is another one behind the merged pair
    shape = [0] * first + [-1] + [int(d) for d in x.dims[first + 2 :]]
    return b.emit("Reshape", [x, b.integers(*shape)], dims, exact=True)


def split_dim(b: ModelBuilder, x: Value) -> Value | None:
    axes = [i for i in x.static() if int(x.dims[i]) % 2 == 0 and all(isinstance(d, int) for d in x.dims[i + 1 :])]
    if not axes or x.rank > 4:
        return None
    axis = b.choose(axes)
    half = int(x.dims[axis]) // 2
    pair = (2, half) if b.chance() else (half, 2)
    shape = [0] * axis + [*pair, *(int(d) for d in x.dims[axis + 1 :])]
    return b.emit("Reshape", [x, b.integers(*shape)], (*x.dims[:axis], *pair, *x.dims[axis + 1 :]), exact=True)


def flatten(b: ModelBuilder, x: Value) -> Value | None:
    axis = int(b.random.integers(x.rank + 1))
    halves: list[int | str] = []
    for part in (x.dims[:axis], x.dims[axis:]):
        whole = [d for d in part if isinstance(d, int)]
        halves.append(math.prod(whole) if len(whole) == len(part) else b.fresh("s"))
    return b.emit("Flatten", [x], tuple(halves), exact=True, axis=axis)


def unsqueeze(b: ModelBuilder, x: Value) -> Value | None:
    if x.rank > 4:
        return None
    axis = int(b.random.integers(x.rank + 1))
    return b.emit("Unsqueeze", [x, b.integers(axis)], (*x.dims[:axis], 1, *x.dims[axis:]), exact=True)


def squeeze(b: ModelBuilder, x: Value) -> Value | None:
    ones = [i for i, d in enumerate(x.dims) if d == 1]
    if not ones:
        return None
    axis = b.choose(ones)
    return b.emit("Squeeze", [x, b.integers(axis)], (*x.dims[:axis], *x.dims[axis + 1 :]), exact=True)


ELEMENTWISE: tuple[Step, ...] = (unary, guarded_unary, with_constant, with_value, new_input, select, cast)
REDUCING: tuple[Step, ...] = (reduce, reduce, arg_reduce, softmax, layer_norm, channel_norm, cumulative_sum)
CONTRACTING: tuple[Step, ...] = (matmul, self_matmul, transposed_convolution, global_pool)
WINDOWS: tuple[Step, ...] = (convolution, convolution, pool)
MOVING: tuple[Step, ...] = (
    *(transpose, concat, split, slice_, pad, gather, gather_elements, tile, expand, resize, depth_to_space),
    *(merge_dims, split_dim, flatten, unsqueeze, squeeze),
)
ALL = (*ELEMENTWISE, *ELEMENTWISE, *REDUCING, *CONTRACTING, *WINDOWS, *WINDOWS, *MOVING)
VISION = (unary, with_constant, with_value, concat, channel_norm, *WINDOWS, *WINDOWS, global_pool, resize, pad, split)
LANGUAGE = (unary, with_constant, with_value, softmax, layer_norm, matmul, self_matmul, transpose, split_dim, reduce)
INTEGER = (unary, with_constant, with_value, new_input, select, cast, reduce, arg_reduce, cumulative_sum, *MOVING)
JOINING = (blocks, blocks, join, join, join, cut, cut, unary, with_value, softmax, split_dim, *WINDOWS)
