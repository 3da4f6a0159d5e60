"""Sizes that depend on symbols, in the form that a module's manifest keeps them.

A dimension is an int, the name of a symbol, or a list of an operation and its operands:
``["mul", "N", 3]``, ``["select", ["lt", "N", 8], 8, "N"]``.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

Dimension = Any
"""``int | str | list`` as above; JSON has no better type."""


def _truncdiv(a: int, b: int) -> int:
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


# Dividing by zero gives what dividing by one does, as in the native code.
_OPERATIONS: Mapping[str, Callable[..., int]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "floordiv": lambda a, b: a // (b or 1),
    "floormod": lambda a, b: a % (b or 1),
    "truncdiv": lambda a, b: _truncdiv(a, b or 1),
    "truncmod": lambda a, b: a - _truncdiv(a, b or 1) * (b or 1),
    "min": min,
    "max": max,
    "and": operator.and_,
    "or": operator.or_,
    "xor": operator.xor,
    "lt": lambda a, b: int(a < b),
    "le": lambda a, b: int(a <= b),
    "gt": lambda a, b: int(a > b),
    "ge": lambda a, b: int(a >= b),
    "eq": lambda a, b: int(a == b),
    "ne": lambda a, b: int(a != b),
    "select": lambda condition, a, b: a if condition else b,
}
_ARITY = {"select": 3}

_INFIX = {
    "add": "+", "sub": "-", "mul": "*", "floordiv": "//", "floormod": "%", "and": "&", "or": "|", "xor": "^",
    "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!=",
}  # fmt: skip
_BINDING = [{"mul", "floordiv", "floormod"}, {"add", "sub"}, {"and"}, {"xor"}, {"or"}]
"""Operations that bind more strongly than the next ones; comparisons come last."""

OPERATIONS = frozenset(_OPERATIONS)


def evaluate(dim: Dimension, sizes: Mapping[str, int]) -> int:
    """The value of a dimension when the symbols have ``sizes``."""
    if isinstance(dim, int):
        return dim
    if isinstance(dim, str):
        return sizes[dim]
    return _OPERATIONS[dim[0]](*(evaluate(d, sizes) for d in dim[1:]))


def symbols_of(dim: Dimension) -> frozenset[str]:
    """The names of the symbols that a dimension depends on."""
    if isinstance(dim, list):
        return frozenset().union(*(symbols_of(d) for d in dim[1:]))
    return frozenset([dim]) if isinstance(dim, str) else frozenset()


def to_text(dim: Dimension) -> int | str:
    """An int as itself, anything else as readable text."""
    if isinstance(dim, int | str):
        return dim
    operation, *operands = dim
    if operation not in _INFIX:
        return f"{operation}({', '.join(str(to_text(d)) for d in operands)})"
    left, right = operands
    # Chains of one operation read from the left; only sums and products may be regrouped.
    loose = _looseness(dim) + (operation in ("add", "mul") and _operation(right) == operation)
    return f"{_operand(left, _looseness(dim) + 1)} {_INFIX[operation]} {_operand(right, loose)}"


def _operand(dim: Dimension, limit: int) -> str:
    """The text of an operand, in brackets unless it binds more strongly than ``limit``."""
    return f"({to_text(dim)})" if _looseness(dim) >= limit else str(to_text(dim))


def _looseness(dim: Dimension) -> int:
    operation = _operation(dim)
    if operation not in _INFIX:
        return -1
    return next((level for level, names in enumerate(_BINDING) if operation in names), len(_BINDING))


def _operation(dim: Dimension) -> str:
    return str(dim[0]) if isinstance(dim, list) else ""


def check(dim: Dimension, symbols: frozenset[str]) -> Dimension:
    """Return ``dim``; raises ValueError when it is malformed or names an unknown symbol."""
    if isinstance(dim, list) and dim and dim[0] in OPERATIONS and len(dim) - 1 == _ARITY.get(dim[0], 2):
        for operand in dim[1:]:
            check(operand, symbols)
    elif not (type(dim) is int or (isinstance(dim, str) and dim in symbols)):
        raise ValueError(f"{dim!r} is not a size over the symbols {sorted(symbols)}")
    return dim
