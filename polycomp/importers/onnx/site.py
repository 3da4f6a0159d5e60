"""One ONNX node in the act of being imported: what handlers read from and write to."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from polycomp.dtypes import DType
from polycomp.errors import ModelError, ShapeError, UnsupportedOperatorError
from polycomp.expr import Expr
from polycomp.importers.onnx.builder import Builder, Value
from polycomp.importers.onnx.known import Array, is_symbolic, to_dims
from polycomp.importers.onnx.tensors import to_array
from polycomp.te import Dim


@dataclasses.dataclass(frozen=True)
class Site:
    """``inputs`` has None for an absent optional input; ``name`` is unique in the model."""

    builder: Builder
    proto: onnx.NodeProto
    name: str
    opset: int
    inputs: tuple[Value | None, ...]
    attributes: Mapping[str, onnx.AttributeProto]

    @property
    def op(self) -> str:
        return self.proto.op_type

    @property
    def where(self) -> str:
        """The node, for messages."""
        return f"{self.op} node {self.name!r}"

    # Inputs

    def has(self, position: int) -> bool:
        return position < len(self.inputs) and self.inputs[position] is not None

    def input(self, position: int = 0) -> Value:
        """A required input."""
        value = self.inputs[position] if position < len(self.inputs) else None
        if value is None:
            raise ModelError(f"{self.where} lacks its required input {position}")
        return value

    def optional(self, position: int) -> Value | None:
        return self.inputs[position] if position < len(self.inputs) else None

    def array(self, position: int) -> Array | None:
        """The value of an optional input that must be a known constant; None when absent."""
        value = self.optional(position)
        if value is None:
            return None
        if value.known is None or is_symbolic(value.known):
            raise self.unsupported(
                f"its input {position} ({self.proto.input[position]!r}) is computed while the model runs, "
                f"but must be a constant"
            )
        return value.known

    def dims(self, position: int) -> list[Dim] | None:
        """The elements of an optional integer input that decides a shape: ints, or expressions over symbolic sizes.

        Raises UnsupportedOperatorError when they depend on the model's data.
        """
        value = self.optional(position)
        if value is None:
            return None
        if value.known is None:
            raise self.unsupported(
                f"its output shape depends on the data in its input {position} ({self.proto.input[position]!r}), "
                f"which is only known while the model runs"
            )
        return to_dims(value.known)

    def ints_of(self, position: int) -> list[int] | None:
        """The elements of an optional integer input that must be a known constant; None when absent."""
        array = self.array(position)
        return None if array is None else [int(i) for i in array.reshape(-1)]

    # Attributes (their types were checked against the operator's schema)

    def integer(self, name: str, default: int | None = None) -> int:
        return int(self._attribute(name, default, lambda a: a.i))

    def number(self, name: str, default: float | None = None) -> float:
        # float32 in the file: 0.01 must not become 0.009999999776482582 where the ONNX default is meant.
        return float(self._attribute(name, default, lambda a: float(str(np.float32(a.f)))))

    def integers(self, name: str, default: Sequence[int] | None = None) -> list[int]:
        return list(self._attribute(name, default, lambda a: a.ints))

    def number_list(self, name: str) -> list[float]:
        return [float(f) for f in self._attribute(name, None, lambda a: a.floats)]

    def choice(self, name: str, default: str, choices: Sequence[str]) -> str:
        """A string attribute that must be one of ``choices``."""
        value = str(self._attribute(name, default, lambda a: a.s.decode("utf-8", "replace")))
        if value not in choices:
            raise ModelError(f"{self.where} has {name}={value!r}; it must be one of {', '.join(choices)}")
        return value

    def tensor(self, name: str) -> Array:
        """A tensor attribute's value."""
        proto = self._attribute(name, None, lambda a: a.t)
        return to_array(proto, None, f"attribute {name!r} of {self.where}")

    def given(self, name: str) -> bool:
        return name in self.attributes

    def _attribute(self, name: str, default: Any, read: Callable[[onnx.AttributeProto], Any]) -> Any:
        if name in self.attributes:
            return read(self.attributes[name])
        if default is None:
            raise ModelError(f"{self.where} lacks its required attribute {name!r}")
        return default

    # Common needs

    def axis(self, axis: int, rank: int) -> int:
        """``axis`` counted from the front; raises ShapeError when it is not one of ``rank`` dimensions."""
        if not -rank <= axis < rank:
            raise ShapeError(f"{self.where} has axis {axis}, but its tensor has {rank} dimensions")
        return axis % rank if rank else 0

    def axes(self, axes: Sequence[int], rank: int) -> tuple[int, ...]:
        """Distinct axes counted from the front, sorted."""
        found = [self.axis(a, rank) for a in axes]
        if len(set(found)) != len(found):
            raise ModelError(f"{self.where} names an axis twice: {list(axes)}")
        return tuple(sorted(found))

    def ints_or_input(self, attribute: str, position: int) -> list[int] | None:
        """What an older opset has as an attribute and a newer one as a constant input; None when in neither place."""
        if self.given(attribute):
            return self.integers(attribute)
        return self.ints_of(position)

    def unsupported(self, why: str) -> UnsupportedOperatorError:
        return UnsupportedOperatorError(f"{self.where} is not supported: {why}")

    # Results

    def emit(self, op: str, *inputs: Value | None, **attributes: Any) -> Value:
        """Append a canonical node of one output."""
        return self.builder.emit(self.name, op, inputs, attributes)[0]

    def emit_all(self, op: str, n_outputs: int, *inputs: Value | None, **attributes: Any) -> list[Value]:
        """Append a canonical node of ``n_outputs`` outputs."""
        return self.builder.emit(self.name, op, inputs, attributes, n_outputs)

    def reshape(self, value: Value, shape: Sequence[Dim]) -> Value:
        """``value`` in another shape of as many elements; a known value stays known."""
        dims = tuple(self.builder.dim(d) for d in shape)
        if dims == value.shape:
            return value
        static = all(not isinstance(d, Expr) for d in dims)
        if value.known is not None and not value.name and static:
            return self.checked_reshape(value, dims)
        return self.emit("Reshape", value, shape=dims)

    def checked_reshape(self, value: Value, dims: tuple[Dim, ...]) -> Value:
        assert value.known is not None
        shape = tuple(int(d) for d in dims if not isinstance(d, Expr))
        if min(shape, default=0) < 0 or np.prod(shape, dtype=object) != value.known.size:
            raise ShapeError(f"{self.where} cannot give {value.known.size} elements the shape {list(shape)}")
        return self.known(value.known.reshape(shape), value.dtype)

    def known(self, array: Array, dtype: DType) -> Value:
        """A known value: numbers, or ints and expressions in an object array."""
        if is_symbolic(array):
            return self.builder.known(to_dims(array), array.shape, dtype)
        return self.builder.constant(np.asarray(array, dtype.numpy), self.name)

    def cast(self, value: Value, dtype: DType) -> Value:
        return value if value.dtype is dtype else self.emit("Cast", value, to=dtype)


Handler = Callable[[Site], Sequence[Value]]
"""Imports one node: emits canonical nodes and returns the values of the ONNX node's outputs, in order."""
