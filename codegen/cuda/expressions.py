"""Scalar expressions as CUDA C.

int64 expressions, which are mostly indices, are computed in ``int`` where their bounds allow that, else in
``long long``; a value of either stands for an int64.
"""

from __future__ import annotations

from polycomp.codegen.cuda import code, operations
from polycomp.codegen.cuda.code import BOOL, CHOICE, INT, LONG, Code, call, converted, infix, literal
from polycomp.codegen.cuda.frame import Frame
from polycomp.codegen.cuda.spans import fits_exactly, span
from polycomp.dtypes import DType
from polycomp.expr import (
    Binary,
    Cast,
    CheckedIndex,
    Compare,
    Const,
    Expr,
    Load,
    Ranges,
    Select,
    Unary,
    Var,
    const,
    simplify,
    walk,
    wrap,
)
from polycomp.loops import Buffer, Scope
from polycomp.poly.tree import SWIZZLED_BYTES

_INDEX_ARITHMETIC = {"add": "+", "sub": "-", "mul": "*"}

# Logical operations that evaluate both sides, as a CheckedIndex on the right reports wrong indices in any case.
_EAGER = {"and": "&", "or": "|", "mul": "&", "add": "|", "min": "&", "max": "|"}


def value(frame: Frame, e: Expr) -> Code:
    """The value of ``e`` as operations take it: floats of 16 bits rounded, in floats."""
    return operations.rounded(unrounded(frame, e), e.dtype)


def unrounded(frame: Frame, e: Expr) -> Code:
    """The value of ``e``, which (of 16 bits) may have yet to be rounded."""
    if e.dtype is DType.INT64:
        return index(frame, e)
    match e:
        case Const():
            return literal(e.value, e.dtype)
        case Var():
            return frame.lookup(e)
        case Load():
            return load(frame, e)
        case Binary():
            return _binary(frame, e)
        case Compare():
            return operations.compare(e.op, value(frame, e.left), value(frame, e.right))
        case Unary():
            return operations.unary(e.op, e.operand.dtype, value(frame, e.operand))
        case Cast():
            return operations.cast(value(frame, e.operand), e.operand.dtype, e.dtype)
        case Select():
            sides = value(frame, e.on_true), value(frame, e.on_false)
            return code.chosen(value(frame, e.condition), *sides, code.value_type(e.dtype))
    raise frame.error(f"holds a {type(e).__name__}, which loop nests may not")


def _binary(frame: Frame, e: Binary) -> Code:
    if e.op == "pow" and e.dtype.is_float and isinstance(e.right, Const):
        power = operations.constant_power(value(frame, e.left), float(e.right.value))
        if power is not None:
            return Code(power.text, power.kind, power.strength, rounds=e.dtype.is_half)
    left, right = value(frame, e.left), value(frame, e.right)
    if e.dtype is DType.BOOL and e.op in _EAGER and any(isinstance(part, CheckedIndex) for part in walk(e.right)):
        return infix(_EAGER[e.op], left, right, BOOL)
    return operations.binary(e.op, e.dtype, left, right, fits_exactly(frame, e))


def load(frame: Frame, e: Load) -> Code:
    """The element that is loaded, as a value."""
    element = element_of(frame, e.source, e.indices)
    if e.dtype.is_half:
        return operations.from_bits(element, e.dtype)
    return infix("!=", element, Code("0", INT), BOOL) if e.dtype is DType.BOOL else element


def stored(frame: Frame, e: Expr) -> Code:
    """The value of ``e`` as it is in memory. What is only copied is not converted on the way."""
    if not e.dtype.is_half:
        return value(frame, e)
    match e:
        case Const():
            return code.half_bits(float(e.value), e.dtype)
        case Load():
            return element_of(frame, e.source, e.indices)
        case Select():
            sides = stored(frame, e.on_true), stored(frame, e.on_false)
            return code.chosen(value(frame, e.condition), *sides, code.memory_type(e.dtype))
    return operations.to_bits(unrounded(frame, e), e.dtype)


def element_of(frame: Frame, buffer: Buffer, indices: tuple[Expr, ...]) -> Code:
    """The element of a buffer, which can be assigned to."""
    place, kind = frame.place(buffer), code.memory_type(buffer.dtype)
    if is_scalar(buffer):
        return Code(place, kind)
    return Code(f"{place}[{position(frame, buffer, offset_of(buffer, indices, frame.ranges)).text}]", kind)


def is_scalar(buffer: Buffer) -> bool:
    """Whether it is a single element of a thread's own, which is a variable in C."""
    return buffer.scope is Scope.REGISTER and all(dim == 1 for dim in buffer.shape)


def offset_of(buffer: Buffer, indices: tuple[Expr, ...], ranges: Ranges) -> Expr:
    """The number of an element: row-major, or, in a swizzled buffer, before pieces change places within its panels."""
    pairs = list(zip(indices, map(wrap, buffer.shape), strict=True))
    if buffer.swizzled:
        pairs[-2:] = _in_panels(pairs[-2], pairs[-1], SWIZZLED_BYTES // buffer.dtype.bytes)
    offset: Expr = const(0)
    for at, size in pairs:
        offset = offset * size + at
    return simplify(offset, ranges)


def _in_panels(row: tuple[Expr, Expr], column: tuple[Expr, Expr], width: int) -> list[tuple[Expr, Expr]]:
    """Positions and sizes of a panel, a row of it, and an element of that."""
    (at, size) = column
    return [(at // width, size // width), row, (at % width, const(width))]


def position(frame: Frame, buffer: Buffer, offset: Expr) -> Code:
    """Where the element that has the number ``offset`` is in a buffer's memory."""
    code = index(frame, offset)
    return call(f"pc_swizzled<{buffer.dtype.bytes}>", code, kind=INT) if buffer.swizzled else code


def index(frame: Frame, e: Expr) -> Code:
    """An int64 expression, as an ``int`` where that has all of its values and of those it is made of."""
    match e:
        case Const():
            return code.integer(int(e.value), INT if span(frame, e).fits(32) else LONG)
        case Var():
            return frame.lookup(e)
        case Binary(op="add", right=Const() as first) if _begins_with_zero(e.left):
            return index(frame, _beginning_with(e.left, first))
        case Binary() if e.op in _INDEX_ARITHMETIC:
            return _sum_or_product(frame, e, index(frame, e.left), index(frame, e.right))
        case Binary(op="floordiv" | "floormod"):
            return _quotient(frame, e, index(frame, e.left), index(frame, e.right))
        case Binary(op="min" | "max"):
            left, right = index(frame, e.left), index(frame, e.right)
            return call(f"pc_{e.op}", left, right, kind=_wider(left, right))
        case Binary():
            return operations.binary(e.op, e.dtype, index(frame, e.left), index(frame, e.right))
        case Unary(op="neg") if span(frame, e).fits(32) and span(frame, e.operand).fits(32):
            operand = converted(INT, index(frame, e.operand))
            return code.prefix("-", operand, INT)
        case Cast():
            return _cast(frame, e)
        case Select():
            yes, no = index(frame, e.on_true), index(frame, e.on_false)
            return code.chosen(value(frame, e.condition), yes, no, _wider(yes, no))
        case CheckedIndex():
            return _checked(frame, e)
        case Load():
            return load(frame, e)
        case Unary():
            return operations.unary(e.op, e.dtype, index(frame, e.operand))
    raise frame.error(f"holds a {type(e).__name__}, which loop nests may not")


def _begins_with_zero(e: Expr) -> bool:
    """Whether ``e`` is ``0 - a - b...``, as what is only subtracted is in normal form."""
    while isinstance(e, Binary) and e.op == "sub":
        e = e.left
        if e == const(0):
            return True
    return False


def _beginning_with(e: Expr, first: Const) -> Expr:
    """``first - a - b...`` for ``0 - a - b...``."""
    return Binary("sub", _beginning_with(e.left, first), e.right) if isinstance(e, Binary) else first


def _wider(a: Code, b: Code) -> str:
    return INT if a.kind == b.kind == INT else LONG


def _sum_or_product(frame: Frame, e: Binary, left: Code, right: Code) -> Code:
    result = span(frame, e)
    operator = _INDEX_ARITHMETIC[e.op]
    if _wider(left, right) == INT and result.fits(32):
        return infix(operator, left, right, INT)
    if result.trusted or result.fits(64):
        wide = left if LONG in (left.kind, right.kind) else converted(LONG, left)
        return infix(operator, wide, right, LONG)
    return operations.binary(e.op, e.dtype, left, right)


def _quotient(frame: Frame, e: Binary, left: Code, right: Code) -> Code:
    """Rounded down; what is not negative is divided as C does. That is faster without a sign, which NVRTC sees of
    loops' variables by itself."""
    divisor = span(frame, e.right)
    if not span(frame, e.left).is_natural or divisor.low is None or divisor.low < 1:
        return call(f"pc_{e.op}", left, right, kind=_wider(left, right))
    operator = "/" if e.op == "floordiv" else "%"
    wide = _wider(left, right) == LONG
    if wide or (isinstance(e.left, Var) and e.left in frame.roots.get(e.left, ())):
        return infix(operator, left, right, LONG if wide else INT)
    if isinstance(e.right, Const):  # one unsigned operand makes both so
        return converted(INT, infix(operator, left, Code(f"{right.text}u", "unsigned"), "unsigned"))
    return converted(INT, infix(operator, converted("unsigned", left), right, "unsigned"))


def _cast(frame: Frame, e: Cast) -> Code:
    """To int64; of what ``int`` has all values, that is one already."""
    x, source = value(frame, e.operand), e.operand.dtype
    if source.is_float:
        return operations.cast(x, source, DType.INT64)
    if source is DType.BOOL:
        return converted(INT, x)
    return converted(INT, x) if span(frame, e).fits(32) and source.bits < 64 else converted(LONG, x)


def _checked(frame: Frame, e: CheckedIndex) -> Code:
    """The index where it is inside of the dimension; elsewhere 0, and that is reported."""
    operands = index(frame, e.index), index(frame, e.size), index(frame, _as_given(e)), Code("status", "long long*")
    checked = call("op_checked_index", *operands, kind=LONG)
    return converted(INT, checked) if span(frame, e).fits(32) else checked


def _as_given(e: CheckedIndex) -> Expr:
    """The index before those that are counted from the end are made to count from the start."""
    match e.index:
        case Select(on_true=Binary(op="add"), on_false=given):
            return given
    return e.index


def assigned(frame: Frame, target: Code, e: Expr) -> str:
    """The statement that stores ``e``."""
    return f"{target.text} = {stored(frame, e).within(CHOICE)};"
