"""The tensors that a traced function sees in place of its arrays."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import numpy as np

from polycomp.errors import (
    IndexingError,
    MutationError,
    UnsupportedAttributeError,
    UnsupportedFunctionError,
    ValueNeededError,
)
from polycomp.tracing import contraction, indexing, reductions, shaping, ufuncs
from polycomp.tracing.annotations import TensorSpec, spec_of
from polycomp.tracing.dispatch import call_function
from polycomp.tracing.operands import cast
from polycomp.tracing.sizes import size_of
from polycomp.tracing.value import Value, where

_REDUCING: Mapping[str, Callable[..., Any]] = {
    "add": reductions.sum, "multiply": reductions.prod, "maximum": reductions.max, "minimum": reductions.min,
    "logical_and": reductions.all, "logical_or": reductions.any, "logaddexp": reductions.logsumexp,
}  # fmt: skip
_AS_NUMBER = "go on with the tensor, which works as a number does, or return it"
_AS_INT = "pass it as an int argument of its own, which is known while tracing"


class Tensor(Value):
    """An array of the run, seen while its function is traced: numpy's operators, methods and functions work on it.

    As an annotation, ``Tensor["n", 128]`` is an array whose first size is open and called n; ``Tensor[np.float32, 3]``
    fixes the dtype too, ``None`` leaves a size to each call.
    """

    __slots__ = ()
    __hash__ = object.__hash__
    __array_priority__ = 1000

    def __class_getitem__(cls, item: Any) -> TensorSpec:
        return spec_of(item)

    @property
    def shape(self) -> tuple[Any, ...]:
        """An int, or a :class:`~polycomp.tracing.sizes.Size`, per dimension."""
        return tuple(size_of(self.owner, d) for d in self.type.shape)

    @property
    def size(self) -> Any:
        """The number of elements."""
        total: Any = 1
        for n in self.shape:
            total = total * n
        return total

    @property
    def T(self) -> Tensor:  # noqa: N802  (numpy's name)
        """All dimensions in reverse order."""
        return shaping.transpose(self)

    @property
    def mT(self) -> Tensor:  # noqa: N802  (numpy's name)
        """The last two dimensions exchanged."""
        return shaping.swapaxes(self, -1, -2)

    def __repr__(self) -> str:
        return f"<traced {self.type}>"

    # What needs a value, and there is none yet

    def _refuse(self, use: str, instead: str) -> NoReturn:
        raise ValueNeededError(
            f"{where()}: {use} needs the value of a tensor ({self.type}), which is not known while the function is "
            f"traced; {instead}"
        )

    def __bool__(self) -> bool:
        self._refuse(
            "a condition (if, while, and, or, not, assert)", "choose between values with where(condition, a, b)"
        )

    def __int__(self) -> int:
        self._refuse("int()", _AS_INT)

    def __float__(self) -> float:
        self._refuse("float()", _AS_NUMBER)

    def __complex__(self) -> complex:
        self._refuse("complex()", _AS_NUMBER)

    def __index__(self) -> int:
        self._refuse("a Python index, range() or a size", _AS_INT)

    def __array__(self, *args: Any, **kwargs: Any) -> NoReturn:
        self._refuse(
            "making a numpy array, or assigning into one,",
            "join tensors with stack or concatenate; they need no asarray",
        )

    def item(self, *args: Any) -> NoReturn:
        """A number of Python: not while tracing."""
        self._refuse("item()", _AS_NUMBER)

    def tolist(self) -> NoReturn:
        """Numbers of Python: not while tracing."""
        self._refuse("tolist()", _AS_NUMBER)

    def __getattr__(self, name: str) -> NoReturn:
        kind = "numpy arrays have it, but it cannot be traced" if hasattr(np.ndarray, name) else "neither have arrays"
        near = difflib.get_close_matches(name, dir(Tensor), 1)
        raise UnsupportedAttributeError(
            f"{where()}: traced tensors have no {name!r}; {kind}{f': did you mean {near[0]!r}?' if near else ''}"
        )

    def __setitem__(self, index: Any, value: Any) -> NoReturn:
        raise MutationError(
            f"{where()}: tensors are not changed in place; build a new one with where(mask, value, x), concatenate or "
            f"pad, and give that one the name"
        )

    # Sequence

    def __len__(self) -> int:
        if not self.ndim:
            raise IndexingError(f"{where()}: a scalar has no length")
        return int(self.shape[0])

    def __iter__(self) -> Iterator[Tensor]:
        return iter([self[i] for i in range(len(self))])

    def __getitem__(self, index: Any) -> Tensor:
        return indexing.get(self, index)

    # numpy's protocols

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        extra = {k: v for k, v in kwargs.items() if v is not None}
        if "out" in extra:
            raise MutationError(f"{where()}: out= of numpy.{ufunc.__name__} would change an array; use the result")
        if method == "reduce" and ufunc.__name__ in _REDUCING:
            return _REDUCING[ufunc.__name__](*inputs, **({"axis": 0} | extra))
        if method == "outer" and not extra:
            return ufuncs.call_ufunc(ufunc, *_spread(*inputs))
        if method != "__call__" or extra:
            what = f".{method}" if method != "__call__" else f" with {', '.join(extra)}"
            advice = "sum over comparisons instead" if method == "at" else ufuncs.CALL_OUTSIDE
            raise UnsupportedFunctionError(f"{where()}: numpy.{ufunc.__name__}{what} cannot be traced; {advice}")
        if ufunc.__name__ == "matmul":
            return contraction.matmul(*inputs)
        if ufunc.__name__ == "divmod":
            return ufuncs.call_ufunc(np.floor_divide, *inputs), ufuncs.call_ufunc(np.remainder, *inputs)
        return ufuncs.call_ufunc(ufunc, *inputs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return call_function(function, args, kwargs)

    # Methods of numpy's arrays

    def astype(self, dtype: Any) -> Tensor:
        """The elements converted to ``dtype``, by C's rules."""
        return cast(self, dtype)

    def copy(self) -> Tensor:
        """The tensor itself: tensors never change."""
        return self

    def reshape(self, *shape: Any) -> Tensor:
        return shaping.reshape(self, *shape)

    def ravel(self) -> Tensor:
        return shaping.reshape(self, -1)

    def flatten(self) -> Tensor:
        return shaping.reshape(self, -1)

    def transpose(self, *axes: Any) -> Tensor:
        return shaping.transpose(self, shaping.shape_of(axes) if axes and axes != (None,) else None)

    def swapaxes(self, a: int, b: int) -> Tensor:
        return shaping.swapaxes(self, a, b)

    def squeeze(self, axis: Any = None) -> Tensor:
        return shaping.squeeze(self, axis)

    def repeat(self, repeats: Any, axis: int | None = None) -> Tensor:
        return shaping.repeat(self, repeats, axis)

    def take(self, indices: Any, axis: int | None = None) -> Tensor:
        return call_function(np.take, (self, indices, axis), {})  # type: ignore[no-any-return]

    def clip(self, min: Any = None, max: Any = None) -> Tensor:
        return call_function(np.clip, (self, min, max), {})  # type: ignore[no-any-return]

    def round(self, decimals: int = 0) -> Tensor:
        return call_function(np.round, (self, decimals), {})  # type: ignore[no-any-return]

    def dot(self, other: Any) -> Tensor:
        return contraction.dot(self, other)

    def sum(self, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Tensor:
        return reductions.sum(self, axis, dtype, keepdims)

    def prod(self, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Tensor:
        return reductions.prod(self, axis, dtype, keepdims)

    def mean(self, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Tensor:
        return reductions.mean(self, axis, dtype, keepdims)

    def var(self, axis: Any = None, dtype: Any = None, ddof: Any = 0, keepdims: bool = False) -> Tensor:
        return reductions.var(self, axis, dtype, ddof, keepdims)

    def std(self, axis: Any = None, dtype: Any = None, ddof: Any = 0, keepdims: bool = False) -> Tensor:
        return reductions.std(self, axis, dtype, ddof, keepdims)

    def max(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        return reductions.max(self, axis, keepdims)

    def min(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        return reductions.min(self, axis, keepdims)

    def all(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        return reductions.all(self, axis, keepdims)

    def any(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        return reductions.any(self, axis, keepdims)

    def argmax(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        return reductions.argmax(self, axis, keepdims)

    def argmin(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        return reductions.argmin(self, axis, keepdims)

    def cumsum(self, axis: int | None = None, dtype: Any = None) -> Tensor:
        return reductions.cumsum(self, axis, dtype)

    def trace(self, offset: int = 0) -> Tensor:
        return contraction.trace(self, offset)

    def diagonal(self, offset: int = 0) -> Tensor:
        return contraction.diagonal(self, offset)

    # Operators

    def __add__(self, other: Any) -> Tensor:
        return ufuncs.operate(np.add, self, other)

    def __radd__(self, other: Any) -> Tensor:
        return ufuncs.operate(np.add, other, self)

    def __sub__(self, other: Any) -> Tensor:
        return ufuncs.operate(np.subtract, self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return ufuncs.operate(np.subtract, other, self)

    def __mul__(self, other: Any) -> Tensor:
        return ufuncs.operate(np.multiply, self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return ufuncs.operate(np.multiply, other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return ufuncs.operate(np.true_divide, self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return ufuncs.operate(np.true_divide, other, self)

    def __floordiv__(self, other: Any) -> Tensor:
        return ufuncs.operate(np.floor_divide, self, other)

    def __rfloordiv__(self, other: Any) -> Tensor:
        return ufuncs.operate(np.floor_divide, other, self)

    def __mod__(self, other: Any) -> Tensor:
        return ufuncs.operate(np.remainder, self, other)

    def __rmod__(self, other: Any) -> Tensor:
        return ufuncs.operate(np.remainder, other, self)

    def __divmod__(self, other: Any) -> tuple[Tensor, Tensor]:
        return self // other, self % other

    def __pow__(self, other: Any) -> Tensor:
        return ufuncs.operate(np.power, self, other)

    def __rpow__(self, other: Any) -> Tensor:
        return ufuncs.operate(np.power, other, self)

    def __matmul__(self, other: Any) -> Tensor:
        return contraction.matmul(self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return contraction.matmul(other, self)

    def __and__(self, other: Any) -> Tensor:
        return ufuncs.operate(np.bitwise_and, self, other)

    def __rand__(self, other: Any) -> Tensor:
        return ufuncs.operate(np.bitwise_and, other, self)

    def __or__(self, other: Any) -> Tensor:
        return ufuncs.operate(np.bitwise_or, self, other)

    def __ror__(self, other: Any) -> Tensor:
        return ufuncs.operate(np.bitwise_or, other, self)

    def __xor__(self, other: Any) -> Tensor:
        return ufuncs.operate(np.bitwise_xor, self, other)

    def __rxor__(self, other: Any) -> Tensor:
        return ufuncs.operate(np.bitwise_xor, other, self)

    def __lshift__(self, other: Any) -> Tensor:
        return ufuncs.operate(np.left_shift, self, other)

    def __rlshift__(self, other: Any) -> Tensor:
        return ufuncs.operate(np.left_shift, other, self)

    def __rshift__(self, other: Any) -> Tensor:
        return ufuncs.operate(np.right_shift, self, other)

    def __rrshift__(self, other: Any) -> Tensor:
        return ufuncs.operate(np.right_shift, other, self)

    def __neg__(self) -> Tensor:
        return ufuncs.operate(np.negative, self)

    def __pos__(self) -> Tensor:
        return self

    def __abs__(self) -> Tensor:
        return ufuncs.operate(np.absolute, self)

    def __invert__(self) -> Tensor:
        return ufuncs.operate(np.invert, self)

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]
        return ufuncs.operate(np.equal, self, other)

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        return ufuncs.operate(np.not_equal, self, other)

    def __lt__(self, other: Any) -> Tensor:
        return ufuncs.operate(np.less, self, other)

    def __le__(self, other: Any) -> Tensor:
        return ufuncs.operate(np.less_equal, self, other)

    def __gt__(self, other: Any) -> Tensor:
        return ufuncs.operate(np.greater, self, other)

    def __ge__(self, other: Any) -> Tensor:
        return ufuncs.operate(np.greater_equal, self, other)


def _spread(a: Any, b: Any) -> tuple[Any, Any]:
    """Operands whose every element meets every element of the other."""
    return (a.reshape(*np.shape(a), *(1,) * np.ndim(b)) if np.ndim(b) else a), b
