"""Sizes that are open until the function is called, as Python code sees them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from polycomp.dtypes import DType
from polycomp.errors import SizeNeededError
from polycomp.expr import Expr, binary, compare, prove, simplify, wrap
from polycomp.te import Dim
from polycomp.tracing.value import Value, where

if TYPE_CHECKING:
    from polycomp.tracing.tensor import Tensor
    from polycomp.tracing.trace import Trace


class Size:
    """An int64 expression over open sizes. Arithmetic with ints and sizes gives sizes, with anything else tensors.

    Comparisons give a bool when they hold, or fail, for every size that the function is compiled for; otherwise they
    raise :class:`SizeNeededError`.
    """

    __slots__ = ("expr", "owner")

    def __init__(self, trace: Trace, expr: Expr) -> None:
        self.owner = trace
        self.expr = expr

    def __repr__(self) -> str:
        return str(self.expr)

    def __hash__(self) -> int:
        return hash(self.expr)

    def tensor(self, dtype: DType = DType.INT64) -> Tensor:
        """The size as a scalar of the run, which takes the dtype of what it meets."""
        result = self.owner.emit("Fill", [], {"shape": (), "value": self.expr, "dtype": dtype})
        result.weak = True
        return result

    def _combine(self, op: str, other: Any, swapped: bool = False) -> Any:
        if not is_size(other):
            return NotImplemented
        pair = (wrap(dim_of(other)), self.expr) if swapped else (self.expr, wrap(dim_of(other)))
        return size_of(self.owner, binary(op, *pair))

    def __add__(self, other: Any) -> Any:
        return self._combine("add", other) if is_size(other) else self._as_tensor(other, "__add__")

    def __radd__(self, other: Any) -> Any:
        return self._combine("add", other, True) if is_size(other) else self._as_tensor(other, "__radd__")

    def __sub__(self, other: Any) -> Any:
        return self._combine("sub", other) if is_size(other) else self._as_tensor(other, "__sub__")

    def __rsub__(self, other: Any) -> Any:
        return self._combine("sub", other, True) if is_size(other) else self._as_tensor(other, "__rsub__")

    def __mul__(self, other: Any) -> Any:
        return self._combine("mul", other) if is_size(other) else self._as_tensor(other, "__mul__")

    def __rmul__(self, other: Any) -> Any:
        return self._combine("mul", other, True) if is_size(other) else self._as_tensor(other, "__rmul__")

    def __floordiv__(self, other: Any) -> Any:
        return self._combine("floordiv", other)

    def __rfloordiv__(self, other: Any) -> Any:
        return self._combine("floordiv", other, True)

    def __mod__(self, other: Any) -> Any:
        return self._combine("floormod", other)

    def __rmod__(self, other: Any) -> Any:
        return self._combine("floormod", other, True)

    def __neg__(self) -> Any:
        return self._combine("sub", 0, True)

    def __truediv__(self, other: Any) -> Any:
        return self.tensor(DType.FLOAT64) / other

    def __rtruediv__(self, other: Any) -> Any:
        return other / self.tensor(DType.FLOAT64)

    def __pow__(self, other: Any) -> Any:
        return self.tensor(DType.FLOAT64) ** other

    def _as_tensor(self, other: Any, operator: str) -> Any:
        if isinstance(other, Value):
            return NotImplemented  # the tensor's own operator knows what to do
        return getattr(self.tensor(), operator)(other)

    def _compare(self, op: str, other: Any) -> bool:
        if not is_size(other):
            return op == "ne"
        condition = simplify(compare(op, self.expr, dim_of(other)), self.owner.ranges)
        answer = prove(condition, self.owner.ranges)
        if answer is None:
            raise SizeNeededError(
                f"{where()}: whether {condition} holds is not known before the call; fix the size by leaving it out "
                f"of the function's dynamic sizes, or write code that holds for all sizes"
            )
        return answer

    def __eq__(self, other: object) -> bool:
        return self._compare("eq", other)

    def __ne__(self, other: object) -> bool:
        return self._compare("ne", other)

    def __lt__(self, other: Any) -> bool:
        return self._compare("lt", other)

    def __le__(self, other: Any) -> bool:
        return self._compare("le", other)

    def __gt__(self, other: Any) -> bool:
        return self._compare("gt", other)

    def __ge__(self, other: Any) -> bool:
        return self._compare("ge", other)

    def __bool__(self) -> bool:
        return self._compare("ne", 0)

    def _refuse(self, use: str) -> NoReturn:
        raise SizeNeededError(
            f"{where()}: {use} needs the value of the size {self.expr}, which is open until the call; leave it out of "
            f"the function's dynamic sizes to compile for each value"
        )

    def __index__(self) -> int:
        self._refuse("a Python int")

    def __int__(self) -> int:
        self._refuse("int()")

    def __float__(self) -> float:
        self._refuse("float()")


def is_size(value: Any) -> bool:
    """Whether ``value`` can be a size: a Python or numpy int, or an open size; no bool."""
    return isinstance(value, Size) or (hasattr(value, "__index__") and not isinstance(value, bool | Value))


def size_of(trace: Trace, dim: Dim) -> Any:
    """``dim`` as Python code sees it: an int, or a :class:`Size`."""
    simple = trace.dim(dim)
    return Size(trace, simple) if isinstance(simple, Expr) else simple


def dim_of(size: Any) -> Dim:
    """A size as the graph has it."""
    if isinstance(size, Expr):
        return size
    return size.expr if isinstance(size, Size) else int(size)


def dims_of(sizes: Any) -> tuple[Dim, ...]:
    """The same for a shape, which may be a lone size."""
    return tuple(map(dim_of, sizes)) if isinstance(sizes, Sequence) else (dim_of(sizes),)
