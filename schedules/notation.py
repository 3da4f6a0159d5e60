"""Expressions as people write them: only the parentheses that are needed, strides before offsets."""

from __future__ import annotations

from collections.abc import Sequence

from polycomp.expr import Binary, Cast, Compare, Const, Expr, Load, Select, Unary, to_text

_INFIX = {
    "or": ("or", 1), "and": ("and", 2),
    "lt": ("<", 3), "le": ("<=", 3), "gt": (">", 3), "ge": (">=", 3), "eq": ("==", 3), "ne": ("!=", 3),
    "add": ("+", 4), "sub": ("-", 4),
    "mul": ("*", 5), "div": ("/", 5), "floordiv": ("//", 5), "floormod": ("%", 5),
}  # fmt: skip
_TIGHT = frozenset(["*", "//", "%"])


def notation(e: Expr, outer: int = 0) -> str:
    """``e`` as text; in parentheses when its operator binds less than ``outer``."""
    match e:
        case Const():
            return str(e.value)
        case Binary() | Compare() if e.op in _INFIX:
            return _infix(e, outer)
        case Binary() | Compare():
            return f"{e.op}({arguments((e.left, e.right))})"
        case Load():
            return f"{e.source.name}[{arguments(e.indices)}]"
        case Unary():
            return f"-{notation(e.operand, 6)}" if e.op == "neg" else f"{e.op}({notation(e.operand)})"
        case Select():
            return f"select({arguments((e.condition, e.on_true, e.on_false))})"
        case Cast():
            return f"{e.dtype.value}({notation(e.operand)})"
    return to_text(e)


def arguments(values: Sequence[Expr]) -> str:
    """Expressions with commas between them."""
    return ", ".join(map(notation, values))


def _infix(e: Binary | Compare, outer: int) -> str:
    sign, binding = _INFIX[e.op]
    left, right = e.left, e.right
    if e.op == "add" and not e.dtype.is_float and _is_stride(right) and not _is_stride(left):
        left, right = right, left
    first = notation(left, binding)
    second = notation(right, binding + (e.op not in ("add", "mul", "and", "or")))
    space = "" if sign in _TIGHT and not e.dtype.is_float else " "
    text = f"{first}{space}{sign}{space}{second}"
    return f"({text})" if binding < outer else text


def _is_stride(e: Expr) -> bool:
    return isinstance(e, Binary) and (e.op == "mul" or (e.op == "add" and (_is_stride(e.left) or _is_stride(e.right))))
