"""Emission of index arithmetic: linear forms to registers, floor division, comparisons of lane numbers."""

from __future__ import annotations

import math

from polycomp.codegen.llvm import emit_ops, linear
from polycomp.codegen.llvm.builder import FunctionBuilder, Value, lane_numbers
from polycomp.codegen.llvm.linear import Atom, Interval, Linear
from polycomp.dtypes import DType

_PREDICATES = {"lt": "slt", "le": "sle", "gt": "sgt", "ge": "sge", "eq": "eq", "ne": "ne"}
_INT32_MAX = 2**31 - 1


def lane_atom(b: FunctionBuilder, lanes: int) -> Atom:
    """The lane numbers 0 .. lanes-1 of a vector loop."""
    return b.atom(lane_numbers(lanes, 32), 0, lanes - 1, lanes, 32)


def from_value(b: FunctionBuilder, value: Value, interval: Interval = (None, None)) -> Linear:
    """A linear form of one atom for an int64 value."""
    if not value.ref.startswith(("%", "<", "splat")):
        return linear.constant(int(value.ref))
    return linear.of_atom(b.atom(value.ref, *interval, value.lanes))


def to_value(b: FunctionBuilder, a: Linear, lanes: int = 0) -> Value:
    """``a`` as an i64, or as a vector when it differs per lane (or always when ``lanes`` are asked for)."""
    if not a.is_vector:
        return b.splat(Value(_scalar(b, a), DType.INT64), lanes)
    uniform, varying = linear.split_lanes(a)
    width = a.lanes
    wide = Value(vector_part(b, varying, 64), DType.INT64, width)
    if uniform.is_constant and uniform.constant == 0:
        return wide
    base = b.splat(Value(_scalar(b, uniform), DType.INT64), width)
    return Value(b.pure(f"add {base}, {wide.ref}"), DType.INT64, width)


def as_atom(b: FunctionBuilder, a: Linear) -> Linear:
    """The same value as a single atom."""
    return a if len(a.terms) <= 1 and not a.constant else from_value(b, to_value(b, a), linear.bounds(a))


def hull(a: Linear, c: Linear) -> Interval:
    """Bounds that hold for both."""
    (a_low, a_high), (c_low, c_high) = linear.bounds(a), linear.bounds(c)
    low = None if a_low is None or c_low is None else min(a_low, c_low)
    return low, None if a_high is None or c_high is None else max(a_high, c_high)


def _scalar(b: FunctionBuilder, a: Linear) -> str:
    total = ""
    for monomial, coefficient in linear.sorted_terms(a):
        term = _scaled(b, "i64", _product(b, [atom.ref for atom in monomial], "i64"), coefficient)
        total = b.pure(f"add i64 {total}, {term}") if total else term
    if not total:
        return str(a.constant)
    return b.pure(f"add i64 {total}, {a.constant}") if a.constant else total


def _product(b: FunctionBuilder, refs: list[str], type_text: str) -> str:
    result = refs[0]
    for ref in refs[1:]:
        result = b.pure(f"mul {type_text} {result}, {ref}")
    return result


def _scaled(b: FunctionBuilder, type_text: str, ref: str, factor: int) -> str:
    if factor == 1:
        return ref
    amount = str(factor)
    if type_text.startswith("<"):
        amount = f"splat ({type_text.split(' x ')[1][:-1]} {factor})"
    return b.pure(f"mul {type_text} {ref}, {amount}")


def vector_part(b: FunctionBuilder, varying: Linear, bits: int) -> str:
    """A linear form without uniform terms as ``<lanes x i{bits}>``, modulo 2**bits."""
    lanes = varying.lanes
    type_text = f"<{lanes} x i{bits}>"
    total = ""
    for monomial, coefficient in linear.sorted_terms(varying):
        refs = [_widened(b, atom, lanes, bits) for atom in monomial]
        term = _scaled(b, type_text, _product(b, refs, type_text), coefficient)
        total = b.pure(f"add {type_text} {total}, {term}") if total else term
    if varying.constant:
        total = b.pure(f"add {type_text} {total}, splat (i{bits} {varying.constant})")
    return total


def _widened(b: FunctionBuilder, atom: Atom, lanes: int, bits: int) -> str:
    """An atom as a vector of the wanted element width."""
    wanted = f"<{lanes} x i{bits}>"
    if not atom.lanes:
        scalar = atom.ref if bits == 64 else b.pure(f"trunc i64 {atom.ref} to i{bits}")
        dtype = DType.INT64 if bits == 64 else DType.INT32
        return b.splat(Value(scalar, dtype), lanes).ref
    if atom.bits == bits:
        return atom.ref
    if atom.ref.startswith("<"):
        return lane_numbers(lanes, bits)
    operation = "sext" if atom.bits < bits else "trunc"
    return b.pure(f"{operation} {atom.type} {atom.ref} to {wanted}")


def fits_int32(a: Linear) -> bool:
    low, high = linear.bounds(a)
    return low is not None and high is not None and low >= -_INT32_MAX and high <= _INT32_MAX


def gather_offsets(b: FunctionBuilder, varying: Linear) -> tuple[str, int]:
    """Per-lane element offsets and their width: 32 bits when they surely fit, which makes gathers cheaper."""
    bits = 32 if fits_int32(varying) else 64
    return vector_part(b, varying, bits), bits


def floordiv(b: FunctionBuilder, a: Linear, divisor: int) -> Linear:
    """``a // divisor`` for a positive constant, rounding down."""
    whole, rest = linear.divide_exactly(a, divisor)
    step = _constant_quotient(rest, divisor)
    if step is not None:
        return linear.add(whole, linear.constant(step))
    common = math.gcd(divisor, *rest.terms.values())
    if common > 1:
        rest = Linear({m: c // common for m, c in rest.terms.items()}, rest.constant // common)
        divisor //= common
    if rest.is_vector:
        return linear.add(whole, _vector_floordiv(b, rest, divisor))
    return linear.add(whole, _scalar_floordiv(b, rest, divisor))


def floormod(b: FunctionBuilder, a: Linear, divisor: int) -> Linear:
    """``a % divisor`` for a positive constant, in ``[0, divisor)``."""
    _, rest = linear.divide_exactly(a, divisor)
    step = _constant_quotient(rest, divisor)
    if step is not None:
        return linear.add(rest, linear.constant(-step * divisor))
    if rest.is_vector:
        quotient = _vector_floordiv(b, rest, divisor)
        difference = linear.add(rest, linear.scale(quotient, divisor), -1)
        return _bounded_vector(b, difference, divisor)
    return _scalar_floormod(b, rest, divisor)


def _constant_quotient(rest: Linear, divisor: int) -> int | None:
    low, high = linear.bounds(rest)
    if low is None or high is None or low // divisor != high // divisor:
        return None
    return low // divisor


def _scalar_floordiv(b: FunctionBuilder, a: Linear, divisor: int) -> Linear:
    low, high = linear.bounds(a)
    ref = _scalar(b, a)
    interval = (None if low is None else low // divisor, None if high is None else high // divisor)
    return linear.of_atom(b.atom(_floordiv_ref(b, "i64", ref, divisor, low), *interval))


def _floordiv_ref(b: FunctionBuilder, type_text: str, ref: str, divisor: int, low: int | None) -> str:
    """Floor division by a positive constant; a shift for powers of two, unsigned when never negative."""

    def const(value: int) -> str:
        return f"splat ({type_text.split(' x ')[1][:-1]} {value})" if type_text.startswith("<") else str(value)

    if divisor & (divisor - 1) == 0:
        return b.pure(f"ashr {type_text} {ref}, {const(divisor.bit_length() - 1)}")
    if low is not None and low >= 0:
        return b.pure(f"udiv {type_text} {ref}, {const(divisor)}")
    # For x < 0: floor(x / d) == ~(~x / d), because ~x == -x - 1 >= 0.
    bits = int(type_text.rstrip(">").split("i")[-1])
    sign = b.pure(f"ashr {type_text} {ref}, {const(bits - 1)}")
    positive = b.pure(f"xor {type_text} {ref}, {sign}")
    quotient = b.pure(f"udiv {type_text} {positive}, {const(divisor)}")
    return b.pure(f"xor {type_text} {quotient}, {sign}")


def _scalar_floormod(b: FunctionBuilder, a: Linear, divisor: int) -> Linear:
    low, high = linear.bounds(a)
    ref = _scalar(b, a)
    if divisor & (divisor - 1) == 0:
        result = b.pure(f"and i64 {ref}, {divisor - 1}")
    elif low is not None and low >= 0:
        result = b.pure(f"urem i64 {ref}, {divisor}")
    else:
        quotient = _floordiv_ref(b, "i64", ref, divisor, low)
        result = b.pure(f"sub i64 {ref}, {b.pure(f'mul i64 {quotient}, {divisor}')}")
    top = divisor - 1 if high is None or low is None or low < 0 else min(divisor - 1, high)
    return linear.of_atom(b.atom(result, 0, top))


def _vector_floordiv(b: FunctionBuilder, a: Linear, divisor: int) -> Linear:
    """``(u + v) // d == u // d + (u % d + v) // d``: the uniform u is divided once, lanes only divide small numbers."""
    uniform, varying = linear.split_lanes(a)
    base = floordiv(b, uniform, divisor)
    small = linear.add(floormod(b, uniform, divisor), varying)
    low, high = linear.bounds(small)
    step = _constant_quotient(small, divisor)
    if step is not None:
        return linear.add(base, linear.constant(step))
    if low is None or high is None:
        return linear.add(base, _wide_floordiv(b, small, divisor))
    shift = max(0, -(low // divisor))
    shifted = linear.add(small, linear.constant(shift * divisor))
    if not fits_int32(shifted):
        return linear.add(base, _wide_floordiv(b, small, divisor))
    type_text = f"<{a.lanes} x i32>"
    quotient = _floordiv_ref(b, type_text, _vector32(b, shifted), divisor, 0)
    atom = b.atom(quotient, low // divisor + shift, high // divisor + shift, a.lanes, 32)
    return linear.add(linear.add(base, linear.of_atom(atom)), linear.constant(-shift))


def _vector32(b: FunctionBuilder, a: Linear, lanes: int = 0) -> str:
    """A bounded linear form as a vector of i32."""
    uniform, varying = linear.split_lanes(a)
    lanes = lanes or a.lanes
    part = vector_part(b, varying, 32) if varying.terms else "zeroinitializer"
    if uniform.is_constant and uniform.constant == 0:
        return part
    low = b.pure(f"trunc i64 {_scalar(b, uniform)} to i32") if uniform.terms else str(uniform.constant)
    base = b.splat(Value(low, DType.INT32), lanes)
    return b.pure(f"add {base}, {part}")


def _wide_floordiv(b: FunctionBuilder, a: Linear, divisor: int) -> Linear:
    low, high = linear.bounds(a)
    value = to_value(b, a)
    quotient = _floordiv_ref(b, value.type, value.ref, divisor, low)
    interval = (None if low is None else low // divisor, None if high is None else high // divisor)
    return linear.of_atom(b.atom(quotient, *interval, a.lanes))


def _bounded_vector(b: FunctionBuilder, a: Linear, limit: int) -> Linear:
    """``a``, known to lie in ``[0, limit)``, as one atom; modular arithmetic makes the narrow sum exact."""
    bits = 32 if limit <= _INT32_MAX else 64
    uniform, varying = linear.split_lanes(a)
    lanes = varying.lanes
    if not lanes:
        return a
    part = vector_part(b, varying, bits)
    base = _scalar(b, uniform)
    if bits == 32:
        base = b.pure(f"trunc i64 {base} to i32")
    spread = b.splat(Value(base, DType.INT32 if bits == 32 else DType.INT64), lanes)
    return linear.of_atom(b.atom(b.pure(f"add {spread}, {part}"), 0, limit - 1, lanes, bits))


def divide(b: FunctionBuilder, op: str, a: Linear, divisor: Linear) -> Linear:
    """``floordiv`` or ``floormod`` by a value that is only known at run time; unsigned where nothing is negative."""
    (a_low, a_high), (low, high) = linear.bounds(a), linear.bounds(divisor)
    if a_low is None or a_low < 0 or low is None or low < 0 or a.is_vector or divisor.is_vector:
        return from_value(b, emit_ops.binary(b, op, to_value(b, a), to_value(b, divisor)))
    nonzero = _scalar(b, divisor)
    if low < 1:  # a size of 0 comes with no iterations, but LLVM may compute this before it knows
        nonzero = b.call_intrinsic("llvm.umax.i64", "i64", f"i64 {nonzero}", "i64 1")
    instruction = "udiv" if op == "floordiv" else "urem"
    top = a_high if op == "floordiv" or high is None else max(0, high - 1)
    return linear.of_atom(b.atom(b.pure(f"{instruction} i64 {_scalar(b, a)}, {nonzero}"), 0, top))


def extremum(b: FunctionBuilder, op: str, a: Linear, c: Linear) -> Linear:
    """``min`` or ``max``; one of the two when the bounds decide it."""
    smaller = _decide("le", linear.bounds(linear.add(a, c, -1)))
    if smaller is not None:
        return a if smaller == (op == "min") else c
    interval = _extremum_bounds(op, linear.bounds(a), linear.bounds(c))
    lanes = max(a.lanes, c.lanes)
    if not (lanes and fits_int32(a) and fits_int32(c)):
        return from_value(b, emit_ops.binary(b, op, to_value(b, a), to_value(b, c)), interval)
    x, y = (Value(_vector32(b, side, lanes), DType.INT32, lanes) for side in (a, c))
    return linear.of_atom(b.atom(emit_ops.binary(b, op, x, y).ref, *interval, lanes, 32))


def _extremum_bounds(op: str, a: Interval, c: Interval) -> Interval:
    """Bounds of a minimum, or by negation of a maximum: one operand's limit on the near side is enough."""
    if op == "max":
        low, high = _extremum_bounds("min", _negated(a), _negated(c))
        return _negated((low, high))
    known = [x for x in (a[1], c[1]) if x is not None]
    low = None if a[0] is None or c[0] is None else min(a[0], c[0])
    return low, min(known, default=None)


def _negated(interval: Interval) -> Interval:
    low, high = (None if x is None else -x for x in interval)
    return high, low


def compare(b: FunctionBuilder, op: str, left: Linear, right: Linear) -> Value:
    """``left op right`` as a bool value; a constant when the bounds decide it."""
    difference = linear.add(left, right, -1)
    decided = _decide(op, linear.bounds(difference))
    if decided is not None:
        return Value("true" if decided else "false", DType.BOOL)
    if not difference.is_vector:
        a, c = (to_value(b, linear.split_lanes(x)[0] if x.is_vector else x) for x in _without_lanes(left, right))
        return Value(b.pure(f"icmp {_PREDICATES[op]} {a}, {c.ref}"), DType.BOOL)
    threshold = lane_stride(difference)
    if threshold is not None and op not in ("eq", "ne"):
        return _compare_lane(b, op, difference, threshold)
    lanes = difference.lanes
    if fits_int32(difference):
        zero_op = b.pure(f"icmp {_PREDICATES[op]} <{lanes} x i32> {_vector32(b, difference)}, zeroinitializer")
        return Value(zero_op, DType.BOOL, lanes)
    x, y = to_value(b, left, lanes), to_value(b, right, lanes)
    return Value(b.pure(f"icmp {_PREDICATES[op]} {x}, {y.ref}"), DType.BOOL, lanes)


def _without_lanes(left: Linear, right: Linear) -> tuple[Linear, Linear]:
    """Both sides less the lane terms, which are the same in both."""
    if not left.is_vector and not right.is_vector:
        return left, right
    return linear.split_lanes(left)[0], linear.split_lanes(right)[0]


def _decide(op: str, interval: Interval) -> bool | None:
    """Whether ``x op 0`` holds for all x of the interval (True), none (False), or some."""
    low, high = interval
    negative, positive = high is not None and high < 0, low is not None and low > 0
    not_negative, not_positive = low is not None and low >= 0, high is not None and high <= 0
    zero = low == high == 0
    answers = {
        "lt": (negative, not_negative),
        "le": (not_positive, positive),
        "gt": (positive, not_positive),
        "ge": (not_negative, negative),
        "eq": (zero, negative or positive),
        "ne": (negative or positive, zero),
    }
    yes, no = answers[op]
    return True if yes else False if no else None


def lane_stride(a: Linear) -> int | None:
    """The constant s when ``a`` is uniform plus ``s * lane``."""
    _, varying = linear.split_lanes(a)
    if len(varying.terms) != 1:
        return None
    ((monomial, stride),) = varying.terms.items()
    return stride if len(monomial) == 1 and monomial[0].ref.startswith("<") else None


def _compare_lane(b: FunctionBuilder, op: str, difference: Linear, stride: int) -> Value:
    """``u + s*lane op 0`` as a comparison of the lane number with one clamped scalar."""
    if op in ("gt", "ge"):  # x > 0 is -x < 0
        difference, stride, op = linear.scale(difference, -1), -stride, "lt" if op == "gt" else "le"
    uniform, _ = linear.split_lanes(difference)
    if op == "le":  # x <= 0 is x - 1 < 0
        uniform = linear.add(uniform, linear.constant(-1))
    lanes = difference.lanes
    if stride > 0:  # lane < ceil(-u / s)
        limit = floordiv(b, linear.add(linear.constant(stride - 1), uniform, -1), stride)
        predicate = "ult"
    else:  # lane > floor(u / -s)
        limit = linear.add(floordiv(b, uniform, -stride), linear.constant(1))
        predicate = "uge"
    bound = b.splat(Value(_clamped(b, limit, lanes), DType.INT32), lanes)
    return Value(b.pure(f"icmp {predicate} <{lanes} x i32> {lane_numbers(lanes, 32)}, {bound.ref}"), DType.BOOL, lanes)


def _clamped(b: FunctionBuilder, a: Linear, top: int) -> str:
    """``a`` limited to ``[0, top]`` as an i32."""
    low, high = linear.bounds(a)
    ref = _scalar(b, a)
    if low is None or low < 0:
        ref = b.call_intrinsic("llvm.smax.i64", "i64", f"i64 {ref}", "i64 0")
    if high is None or high > top:
        ref = b.call_intrinsic("llvm.smin.i64", "i64", f"i64 {ref}", f"i64 {top}")
    return b.pure(f"trunc i64 {ref} to i32")
