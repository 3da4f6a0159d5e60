"""Random small models that are valid for every size of their open dimensions.

A value's dimensions are ints or names; a name stands for a size that is bound at run time and is at least 1. Values
that later steps may round differently are not *exact*: steps (rounding, comparing) whose result would jump because of
that are only applied to exact values. Magnitudes are kept around 1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

Array = np.ndarray[Any, Any]
Dims = tuple[int | str, ...]

SIZES = (1, 2, 3, 4, 5, 7, 8, 12, 16, 17, 19, 32, 33)
LARGEST = 20_000
"""Elements of a value, when open dimensions are 16."""


@dataclasses.dataclass(frozen=True)
class Value:
    name: str
    dims: Dims
    dtype: str
    exact: bool = True

    @property
    def rank(self) -> int:
        return len(self.dims)

    @property
    def is_float(self) -> bool:
        return self.dtype.startswith("float")

    @property
    def elements(self) -> int:
        return int(np.prod([d if isinstance(d, int) else 16 for d in self.dims], dtype=np.int64))

    def static(self) -> list[int]:
        """Positions of the dimensions of known size."""
        return [i for i, d in enumerate(self.dims) if isinstance(d, int)]


class ModelBuilder:
    """A model under construction. ``random`` decides everything."""

    def __init__(self, seed: Sequence[int], dtype: str) -> None:
        self.random = np.random.default_rng(seed)
        self.dtype = dtype
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: dict[str, Value] = {}
        self.constants: list[onnx.TensorProto] = []
        self.values: list[Value] = []
        self._names = 0

    def fresh(self, stem: str) -> str:
        self._names += 1
        return f"{stem}{self._names}"

    def choose(self, options: Sequence[Any]) -> Any:
        return options[int(self.random.integers(len(options)))]

    def chance(self, probability: float = 0.5) -> bool:
        return bool(self.random.random() < probability)

    def input(self, dims: Dims, dtype: str | None = None) -> Value:
        value = Value(self.fresh("x"), dims, dtype or self.dtype)
        self.inputs[value.name] = value
        self.values.append(value)
        return value

    def constant(self, array: Array) -> str:
        name = self.fresh("c")
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def weights(self, shape: Sequence[int], gain: float = 1.0, dtype: str | None = None) -> str:
        """Normal deviates for floats; small integers otherwise."""
        values = self.random.standard_normal(tuple(shape))
        kind = dtype or self.dtype
        if kind == "bool":
            return self.constant(values > 0)
        return self.constant((values * gain).astype(kind) if kind.startswith("float") else (3 * values).astype(kind))

    def weight_of(self, value: float, dtype: str) -> str:
        """A constant of one element."""
        return self.constant(np.array(value, dtype))

    def integers(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def emit(
        self,
        op: str,
        inputs: Sequence[Value | str],
        dims: Dims,
        dtype: str = "",
        exact: bool = False,
        **attributes: Any,
    ) -> Value:
        """Add a node; ``inputs`` are values and names of constants. Exact if ``exact`` and all inputs are."""
        sources = [i for i in inputs if isinstance(i, Value)]
        kind = dtype or sources[0].dtype
        keeps = (exact or not kind.startswith("float")) and all(s.exact for s in sources)
        value = Value(self.fresh("v"), dims, kind, keeps)
        names = [i.name if isinstance(i, Value) else i for i in inputs]
        self.nodes.append(helper.make_node(op, names, [value.name], name=f"{op}_{value.name}", **attributes))
        self.values.append(value)
        return value

    def split_node(self, x: Value, axis: int, sizes: Sequence[int], names: Sequence[str]) -> None:
        """Split ``x`` along ``axis`` into new values called ``names``."""
        self.nodes.append(helper.make_node("Split", [x.name, self.integers(*sizes)], list(names), axis=axis))
        for name, size in zip(names, sizes, strict=True):
            dims = (*x.dims[:axis], size, *x.dims[axis + 1 :])
            self.values.append(Value(name, dims, x.dtype, x.exact))

    def model(self, outputs: Sequence[Value]) -> onnx.ModelProto:
        infos = [helper.make_tensor_value_info(v.name, _code(v.dtype), v.dims) for v in self.inputs.values()]
        results = [helper.make_tensor_value_info(v.name, _code(v.dtype), None) for v in outputs]
        graph = helper.make_graph(self.nodes, "random", infos, results, self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def _code(dtype: str) -> int:
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


Step = Callable[[ModelBuilder, Value], Value | None]
"""Applies one or a few operators to a value; None where they do not fit."""


@dataclasses.dataclass(frozen=True)
class RandomModel:
    proto: onnx.ModelProto
    inputs: tuple[Value, ...]

    @property
    def symbols(self) -> tuple[str, ...]:
        return tuple(sorted({d for v in self.inputs for d in v.dims if isinstance(d, str)}))

    def feeds(self, sizes: Mapping[str, int], seed: Sequence[int]) -> dict[str, Array]:
        """Random inputs for the given sizes of open dimensions."""
        random = np.random.default_rng(seed)
        return {v.name: _fill(random, v, sizes) for v in self.inputs}


def _fill(random: np.random.Generator, value: Value, sizes: Mapping[str, int]) -> Array:
    shape = tuple(d if isinstance(d, int) else sizes[d] for d in value.dims)
    values = random.standard_normal(shape)
    if value.dtype == "bool":
        return np.asarray(values > 0)
    if value.is_float:
        return np.asarray(values, value.dtype)
    return np.asarray(3 * values).astype(np.int64).astype(value.dtype)


def start(builder: ModelBuilder, symbolic: bool) -> Value:
    """An input of a common form, with some dimensions open when ``symbolic``."""
    form = builder.choose(("image", "image", "sequence", "sequence", "matrix", "vector", "volume"))
    small, channels = (1, 2, 3), (1, 3, 8, 16, 17, 32, 40)
    if form == "image":
        dims: list[int | str] = [builder.choose(small), builder.choose(channels), *_pair(builder, SIZES[2:9])]
    elif form == "sequence":
        dims = [builder.choose(small), builder.choose(SIZES), builder.choose(SIZES)]
    elif form == "volume":
        dims = [builder.choose(small), builder.choose(channels[:4]), *_pair(builder, SIZES[:6]), builder.choose(SIZES)]
    else:
        dims = [builder.choose(SIZES) for _ in range(2 if form == "matrix" else 1)]
    if symbolic:
        free = [i for i in range(len(dims)) if i != 1 or form not in ("image", "volume")]
        for position, symbol in zip(builder.random.permutation(free)[:2], "NM", strict=False):
            dims[int(position)] = symbol
    return builder.input(tuple(dims))


def _pair(builder: ModelBuilder, sizes: Sequence[int]) -> list[int]:
    size = builder.choose(sizes)
    return [size, size if builder.chance() else builder.choose(sizes)]


def random_model(
    seed: Sequence[int], dtype: str, symbolic: bool, steps: Sequence[Step], length: tuple[int, int] = (3, 8)
) -> RandomModel:
    """A model of a random number of steps, applied to the newest value mostly."""
    builder = ModelBuilder(seed, dtype)
    current = start(builder, symbolic)
    wanted = int(builder.random.integers(length[0], length[1] + 1))
    for _ in range(20 * wanted):
        if len(builder.nodes) >= wanted:
            break
        source = current if builder.chance(0.8) else builder.choose(builder.values)
        made = builder.choose(steps)(builder, source)
        if made is not None:
            current = made
    made_values = [v for v in builder.values if v.name not in builder.inputs]
    if not made_values:
        made_values = [builder.emit("Identity", [current], current.dims, exact=True)]
    extra = [v for v in made_values[:-1] if builder.chance(0.2)]
    return RandomModel(builder.model([*extra[:2], made_values[-1]]), tuple(builder.inputs.values()))
