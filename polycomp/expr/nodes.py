"""The scalar expression language, shared by tensor expressions, kernels and loop nests.

Nodes are immutable and compare by structure. Python's arithmetic operators build expressions; comparisons for
equality are functions (:func:`eq`, :func:`ne`) because ``==`` compares the nodes themselves.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Protocol, TypeVar, dataclass_transform

from polycomp.dtypes import DType, DTypeLike, as_dtype
from polycomp.errors import DTypeError, ExpressionError

_ARITHMETIC = ("add", "sub", "mul", "div", "truncdiv", "truncmod", "floordiv", "floormod", "fmod", "pow", "atan2")
BINARY_OPS = frozenset((*_ARITHMETIC, "min", "max", "and", "or", "xor", "shl", "shr"))
"""``div`` is for floats; integers divide by ``truncdiv`` (C) or ``floordiv``. ``min``/``max`` on floats give NaN
when either operand is NaN. ``and``/``or``/``xor`` are bitwise on integers, logical on bool."""

COMPARE_OPS = frozenset(["lt", "le", "gt", "ge", "eq", "ne"])

_EXPONENTIAL = ("exp", "expm1", "exp2", "log", "log1p", "log2", "sqrt", "rsqrt", "reciprocal", "sigmoid", "erf")
_TRIGONOMETRIC = ("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh")
_SIMPLE = ("neg", "not", "abs", "sign", "floor", "ceil", "round", "trunc", "isnan", "isinf_pos", "isinf_neg")
UNARY_OPS = frozenset((*_EXPONENTIAL, *_TRIGONOMETRIC, *_SIMPLE))
"""``round`` is to nearest even. ``not`` is logical on bool and bitwise on integers. ``isnan`` and the ``isinf``
pair give bool; all others keep their operand's dtype."""

REDUCE_OPS = frozenset(["sum", "prod", "max", "min", "and", "or"])


class Source(Protocol):
    """What can be loaded from: a ``te.Tensor`` or a ``loops.Buffer``."""

    @property
    def name(self) -> str: ...
    @property
    def dtype(self) -> DType: ...


class Expr:
    """Base of all scalar expressions. ``dtype`` is the type of its value."""

    dtype: DType
    __slots__ = ()

    @property
    def operands(self) -> tuple[Expr, ...]:
        """The expressions that it is directly made of, in evaluation order."""
        return ()

    def __add__(self, other: ExprLike) -> Expr:
        return _arith("add", self, other)

    def __radd__(self, other: ExprLike) -> Expr:
        return _arith("add", other, self)

    def __sub__(self, other: ExprLike) -> Expr:
        return _arith("sub", self, other)

    def __rsub__(self, other: ExprLike) -> Expr:
        return _arith("sub", other, self)

    def __mul__(self, other: ExprLike) -> Expr:
        return _arith("mul", self, other)

    def __rmul__(self, other: ExprLike) -> Expr:
        return _arith("mul", other, self)

    def __truediv__(self, other: ExprLike) -> Expr:
        return _divided(self, other)

    def __rtruediv__(self, other: ExprLike) -> Expr:
        return _divided(other, self)

    def __floordiv__(self, other: ExprLike) -> Expr:
        return _arith("floordiv", self, other)

    def __rfloordiv__(self, other: ExprLike) -> Expr:
        return _arith("floordiv", other, self)

    def __mod__(self, other: ExprLike) -> Expr:
        return _arith("floormod", self, other)

    def __rmod__(self, other: ExprLike) -> Expr:
        return _arith("floormod", other, self)

    def __pow__(self, other: ExprLike) -> Expr:
        return _arith("pow", self, other)

    def __and__(self, other: ExprLike) -> Expr:
        return _arith("and", self, other)

    def __or__(self, other: ExprLike) -> Expr:
        return _arith("or", self, other)

    def __neg__(self) -> Expr:
        return Const(-self.value, self.dtype) if isinstance(self, Const) else Unary("neg", self)

    def __lt__(self, other: ExprLike) -> Expr:
        return compare("lt", self, other)

    def __le__(self, other: ExprLike) -> Expr:
        return compare("le", self, other)

    def __gt__(self, other: ExprLike) -> Expr:
        return compare("gt", self, other)

    def __ge__(self, other: ExprLike) -> Expr:
        return compare("ge", self, other)

    def __bool__(self) -> bool:
        if isinstance(self, Const):
            return bool(self.value)
        raise TypeError(f"the value of {self} is not known while compiling; use select(condition, a, b) instead of if")

    def __array_ufunc__(self, ufunc: Any, method: str, *operands: Any, **options: Any) -> Expr:
        """numpy's functions on elements are those of the language, and so is arithmetic with its scalars."""
        rule = _OF_NUMPY.get(ufunc.__name__)
        if rule is None or method != "__call__" or options:
            known = ", ".join(sorted(_OF_NUMPY))
            raise ExpressionError(
                f"numpy.{ufunc.__name__} of an element cannot be compiled; those that can are {known}"
            )
        return rule(*(o if isinstance(o, Expr) else o.item() for o in operands))

    def __str__(self) -> str:
        return to_text(self)


ExprLike = Expr | int | float | bool


_T = TypeVar("_T", bound=type)


@dataclass_transform(frozen_default=True, eq_default=True)
def node(cls: _T) -> _T:
    """A frozen dataclass whose structural hash is computed once (expressions are dictionary keys everywhere)."""
    made: Any = dataclasses.dataclass(frozen=True, repr=False)(cls)
    structural_hash = made.__hash__
    fields = [f.name for f in dataclasses.fields(made)]

    def cached_hash(self: Any) -> int:
        try:
            return self._hash  # type: ignore[no-any-return]
        except AttributeError:
            value: int = structural_hash(self)
            self.__dict__["_hash"] = value
            return value

    def only_fields(self: Any) -> dict[str, Any]:
        # String hashes differ from process to process, so a pickled expression must not carry what it remembers.
        return {name: self.__dict__[name] for name in fields}

    made.__hash__ = cached_hash
    made.__getstate__ = only_fields
    made.__repr__ = Expr.__str__
    return made  # type: ignore[no-any-return]


@node
class Const(Expr):
    """A literal. ``value`` is an int, float or bool that fits ``dtype``."""

    value: int | float | bool
    dtype: DType


@node
class Var(Expr):
    """A scalar variable: a loop index, or a size that is bound at run time (a parameter)."""

    name: str
    dtype: DType = DType.INT64


@node
class Load(Expr):
    """The element of ``source`` at ``indices`` (one int64 expression per dimension)."""

    source: Any  # Source; Any because a Protocol with properties rejects dataclass fields
    indices: tuple[Expr, ...]

    @property
    def operands(self) -> tuple[Expr, ...]:
        return self.indices

    @property
    def dtype(self) -> DType:  # type: ignore[override]
        return typing.cast(DType, self.source.dtype)


@node
class Binary(Expr):
    """``op`` of :data:`BINARY_OPS` on two operands of the same dtype, which is also the result's."""

    op: str
    left: Expr
    right: Expr

    @property
    def operands(self) -> tuple[Expr, ...]:
        return self.left, self.right

    @property
    def dtype(self) -> DType:  # type: ignore[override]
        return self.left.dtype


@node
class Compare(Expr):
    """``op`` of :data:`COMPARE_OPS` on two operands of the same dtype; the result is bool."""

    op: str
    left: Expr
    right: Expr

    @property
    def operands(self) -> tuple[Expr, ...]:
        return self.left, self.right

    @property
    def dtype(self) -> DType:  # type: ignore[override]
        return DType.BOOL


@node
class Unary(Expr):
    """``op`` of :data:`UNARY_OPS` on one operand."""

    op: str
    operand: Expr

    @property
    def operands(self) -> tuple[Expr, ...]:
        return (self.operand,)

    @property
    def dtype(self) -> DType:  # type: ignore[override]
        return DType.BOOL if self.op.startswith("is") else self.operand.dtype


@node
class Select(Expr):
    """``on_true`` where ``condition`` holds, else ``on_false``. Loads in the side not taken may not be executed
    out of bounds: codegen guards them."""

    condition: Expr
    on_true: Expr
    on_false: Expr

    @property
    def operands(self) -> tuple[Expr, ...]:
        return self.condition, self.on_true, self.on_false

    @property
    def dtype(self) -> DType:  # type: ignore[override]
        return self.on_true.dtype


@node
class Cast(Expr):
    """``operand`` converted to ``dtype``: C's rules, except that float to bool is ``!= 0``."""

    dtype: DType
    operand: Expr

    @property
    def operands(self) -> tuple[Expr, ...]:
        return (self.operand,)


@node
class CheckedIndex(Expr):
    """``index`` if ``0 <= index < size``; otherwise 0, and the run is reported as failed (never out of bounds)."""

    index: Expr
    size: Expr

    @property
    def operands(self) -> tuple[Expr, ...]:
        return self.index, self.size

    @property
    def dtype(self) -> DType:  # type: ignore[override]
        return DType.INT64


@node
class Reduce(Expr):
    """``op`` of :data:`REDUCE_OPS` over ``axes`` of ``operand``. Only at the root of a ``te.compute`` body."""

    op: str
    operand: Expr
    axes: tuple[Any, ...]  # te.Axis

    @property
    def operands(self) -> tuple[Expr, ...]:
        return (self.operand,)

    @property
    def dtype(self) -> DType:  # type: ignore[override]
        return self.operand.dtype


def const(value: float | bool, dtype: DTypeLike = DType.INT64) -> Const:
    """A literal of ``dtype``; the value is converted to that type's Python kind."""
    kind = as_dtype(dtype)
    if kind is DType.INT64:
        return _index_const(int(value))
    if kind is DType.BOOL:
        return Const(bool(value), kind)
    return Const(float(value) if kind.is_float else int(value), kind)


@functools.lru_cache(maxsize=4096)  # indices are full of the same few numbers
def _index_const(value: int) -> Const:
    return Const(value, DType.INT64)


def wrap(value: ExprLike, like: DType = DType.INT64) -> Expr:
    """``value`` as an expression; a Python number becomes a literal of dtype ``like``."""
    return value if isinstance(value, Expr) else const(value, like)


def _same_type(op: str, left: ExprLike, right: ExprLike) -> tuple[Expr, Expr]:
    if isinstance(left, Expr) and isinstance(right, Expr) and left.dtype is right.dtype:
        return left, right
    like = left.dtype if isinstance(left, Expr) else right.dtype if isinstance(right, Expr) else DType.INT64
    for number in (left, right):
        if isinstance(number, float) and not like.is_float and not number.is_integer():
            raise DTypeError(f"{op} of {like.value} and {number}: cast the {like.value} operand to a float type first")
    a, b = wrap(left, like), wrap(right, like)
    if a.dtype is not b.dtype:
        raise DTypeError(
            f"{op} of {a.dtype.value} and {b.dtype.value}: cast one operand to the other's element type first"
        )
    return a, b


_INT_FOLD: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "min": min,
    "max": max,
}


def _arith(op: str, left: ExprLike, right: ExprLike) -> Expr:
    return binary(op, left, right)


def _divided(left: ExprLike, right: ExprLike) -> Expr:
    result = _arith("div", left, right)
    if not result.dtype.is_float:
        raise DTypeError(f"/ of {result.dtype.value}: use // for the floor of the quotient, or cast to a float type")
    return result


def binary(op: str, left: ExprLike, right: ExprLike) -> Expr:
    """``left op right``; int64 (index) arithmetic is folded where that is free, everything else is kept as written."""
    a, b = _same_type(op, left, right)
    if a.dtype is DType.INT64:
        folded = _fold_index(op, a, b)
        if folded is not None:
            return folded
    return Binary(op, a, b)


def _fold_index(op: str, a: Expr, b: Expr) -> Expr | None:
    x = int(a.value) if isinstance(a, Const) else None
    y = int(b.value) if isinstance(b, Const) else None
    if x is not None and y is not None:
        if op in _INT_FOLD:
            return const(_wrap_int64(_INT_FOLD[op](x, y)))
        if op in ("floordiv", "floormod") and y != 0:
            return const(x // y if op == "floordiv" else x % y)
    if (op in ("add", "sub") and y == 0) or (op in ("mul", "floordiv", "truncdiv") and y == 1):
        return a
    if (op == "add" and x == 0) or (op == "mul" and x == 1):
        return b
    if (op == "mul" and 0 in (x, y)) or (op == "floormod" and y == 1):
        return const(0)
    return None


def _wrap_int64(value: int) -> int:
    return (value + 2**63) % 2**64 - 2**63


def compare(op: str, left: ExprLike, right: ExprLike) -> Expr:
    """``left op right`` as a bool expression."""
    return Compare(op, *_same_type(op, left, right))


def eq(left: ExprLike, right: ExprLike) -> Expr:
    """``left == right`` element-wise (Python's ``==`` compares the expressions themselves)."""
    return compare("eq", left, right)


def ne(left: ExprLike, right: ExprLike) -> Expr:
    """``left != right`` element-wise."""
    return compare("ne", left, right)


def minimum(left: ExprLike, right: ExprLike) -> Expr:
    """The smaller operand; NaN if either is NaN."""
    return binary("min", left, right)


def maximum(left: ExprLike, right: ExprLike) -> Expr:
    """The larger operand; NaN if either is NaN."""
    return binary("max", left, right)


def unary(op: str, operand: Expr) -> Expr:
    """``op`` of :data:`UNARY_OPS` applied to ``operand``."""
    if op not in UNARY_OPS:
        raise ValueError(f"unknown unary operation {op!r}")
    return Unary(op, operand)


_UNARY_OF_NUMPY = {
    "absolute": "abs", "arccos": "acos", "arccosh": "acosh", "arcsin": "asin", "arcsinh": "asinh", "arctan": "atan",
    "arctanh": "atanh", "ceil": "ceil", "cos": "cos", "cosh": "cosh", "exp": "exp", "exp2": "exp2", "expm1": "expm1",
    "floor": "floor", "isnan": "isnan", "log": "log", "log1p": "log1p", "log2": "log2", "negative": "neg",
    "reciprocal": "reciprocal", "rint": "round", "sign": "sign", "sin": "sin", "sinh": "sinh", "sqrt": "sqrt",
    "tan": "tan", "tanh": "tanh", "trunc": "trunc",
}  # fmt: skip
_BINARY_OF_NUMPY = {
    "add": "add", "subtract": "sub", "multiply": "mul", "floor_divide": "floordiv", "remainder": "floormod",
    "power": "pow", "maximum": "max", "minimum": "min", "arctan2": "atan2", "fmod": "fmod",
}  # fmt: skip
_COMPARISON_OF_NUMPY = {"less": "lt", "less_equal": "le", "greater": "gt", "greater_equal": "ge"}
_OF_NUMPY: Mapping[str, Callable[..., Expr]] = MappingProxyType(
    {name: functools.partial(unary, op) for name, op in _UNARY_OF_NUMPY.items()}
    | {name: functools.partial(binary, op) for name, op in _BINARY_OF_NUMPY.items()}
    | {name: functools.partial(compare, op) for name, op in _COMPARISON_OF_NUMPY.items()}
    | {"divide": _divided}
)


def select(condition: Expr, on_true: ExprLike, on_false: ExprLike) -> Expr:
    """``on_true`` where ``condition`` (bool) holds, else ``on_false``."""
    return Select(condition, *_same_type("select", on_true, on_false))


def cast(dtype: DTypeLike, operand: Expr) -> Expr:
    """``operand`` converted to ``dtype``; nothing is done when it already is."""
    kind = as_dtype(dtype)
    if operand.dtype is kind:
        return operand
    if isinstance(operand, Const):
        return const(operand.value, kind)
    return Cast(kind, operand)


_INFIX = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "floordiv": "//", "floormod": "%", "truncdiv": "quot",
    "truncmod": "rem", "and": "&", "or": "|", "xor": "^", "shl": "<<", "shr": ">>",
    "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!=",
}  # fmt: skip


def to_text(e: Expr) -> str:
    """Readable text of an expression; equal text means equal structure up to the names of loop variables."""
    if isinstance(e, Var):
        return e.name
    known: str | None = e.__dict__.get("_text")
    if known is None:
        e.__dict__["_text"] = known = _text(e)
    return known


def _text(e: Expr) -> str:
    match e:
        case Const():
            return str(e.value) if e.dtype in (DType.INT64, DType.BOOL) else f"{e.dtype.value}({e.value!r})"
        case Load():
            return f"{e.source.name}[{', '.join(map(to_text, e.indices))}]"
        case Binary() | Compare():
            left, right = to_text(e.left), to_text(e.right)
            return f"({left} {_INFIX[e.op]} {right})" if e.op in _INFIX else f"{e.op}({left}, {right})"
        case Unary():
            return f"{e.op}({to_text(e.operand)})"
        case Select():
            return f"select({to_text(e.condition)}, {to_text(e.on_true)}, {to_text(e.on_false)})"
        case Cast():
            return f"{e.dtype.value}({to_text(e.operand)})"
        case CheckedIndex():
            return f"checked({to_text(e.index)}, {to_text(e.size)})"
        case Reduce():
            axes = ", ".join(f"{a.name}<{a.extent}" for a in e.axes)
            return f"{e.op}[{axes}]({to_text(e.operand)})"
    raise TypeError(f"not an expression: {type(e).__name__}")
