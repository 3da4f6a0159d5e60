"""Expressions to emitted values: int64 as linear forms, everything else as registers."""

from __future__ import annotations

from polycomp.codegen.llvm import emit_index, emit_memory, linear
from polycomp.codegen.llvm import emit_ops as ops
from polycomp.codegen.llvm.builder import FunctionBuilder, Value, constant
from polycomp.codegen.llvm.frame import Frame
from polycomp.codegen.llvm.linear import Linear
from polycomp.dtypes import DType
from polycomp.errors import CompileError
from polycomp.expr import (
    Binary,
    Cast,
    CheckedIndex,
    Compare,
    Const,
    Expr,
    Load,
    Select,
    Unary,
    Var,
    free_vars,
    walk,
    wrap,
)
from polycomp.loops import Buffer

_MANY_TERMS = 8  # a product of sums with more terms than this is not multiplied out


def index(frame: Frame, e: Expr) -> Linear:
    """An int64 expression as a linear form."""
    if isinstance(e, Const):
        return linear.constant(int(e.value))
    if isinstance(e, Var):
        return _index_variable(frame, e)
    key = frame.key(e, (e,)) if isinstance(e, Binary) else None
    known: Linear | None = None if key is None else frame.b.recall(key)
    if known is None:
        known = _index(frame, e)
        if key is not None:
            frame.b.remember(key, known)
    return known


def _index(frame: Frame, e: Expr) -> Linear:
    match e:
        case Binary():
            return _index_binary(frame, e)
        case Unary(op="neg"):
            return linear.scale(index(frame, e.operand), -1)
        case Cast() if e.operand.dtype.is_integer or e.operand.dtype is DType.BOOL:
            return _index_cast(frame, e)
        case Select():
            return _index_select(frame, e)
        case CheckedIndex():
            return _checked(frame, e)
    return emit_index.from_value(frame.b, _value(frame, e))


def _lookup(frame: Frame, var: Var) -> Linear | Value:
    try:
        return frame.env[var]
    except KeyError:
        raise CompileError(f"kernel {frame.kernel!r} uses variable {var.name!r} outside of its loop") from None


def _index_variable(frame: Frame, var: Var) -> Linear:
    binding = _lookup(frame, var)
    return binding if isinstance(binding, Linear) else emit_index.from_value(frame.b, binding)


def _index_binary(frame: Frame, e: Binary) -> Linear:
    a, c = index(frame, e.left), index(frame, e.right)
    match e.op:
        case "add" | "sub":
            return linear.add(a, c, 1 if e.op == "add" else -1)
        case "mul":
            if len(a.terms) * len(c.terms) > _MANY_TERMS:
                a, c = emit_index.as_atom(frame.b, a), emit_index.as_atom(frame.b, c)
            return linear.multiply(a, c)
        case "floordiv" | "floormod" if c.is_constant and c.constant > 0:
            divide = emit_index.floordiv if e.op == "floordiv" else emit_index.floormod
            return divide(frame.b, a, c.constant)
        case "min" | "max":
            return emit_index.extremum(frame.b, e.op, a, c)
        case "floordiv" | "floormod":
            return emit_index.divide(frame.b, e.op, a, c)
    x, y = (emit_index.to_value(frame.b, side) for side in (a, c))
    return emit_index.from_value(frame.b, ops.binary(frame.b, e.op, x, y))


def _index_cast(frame: Frame, e: Cast) -> Linear:
    """A narrower integer: its type bounds it, and a vector of it stays narrow until it is used."""
    x = value(frame, e.operand)
    dtype = x.dtype
    bounded = dtype is not DType.UINT64 and dtype.bits < 64
    low, high = (int(dtype.minimum), int(dtype.maximum)) if bounded else (None, None)
    if x.lanes and dtype in (DType.INT32, DType.INT8, DType.INT16, DType.UINT8, DType.UINT16, DType.BOOL):
        narrow = ops.cast(frame.b, x, DType.INT32)
        return linear.of_atom(frame.b.atom(narrow.ref, low, high, x.lanes, 32))
    return emit_index.from_value(frame.b, ops.cast(frame.b, x, DType.INT64), (low, high))


def _index_select(frame: Frame, e: Select) -> Linear:
    condition = value(frame, e.condition)
    if condition.ref in ("true", "false"):
        return index(frame, e.on_true if condition.ref == "true" else e.on_false)
    if _may_fail(frame, e.on_true) or _may_fail(frame, e.on_false):
        return emit_index.from_value(frame.b, _guarded_select(frame, condition, e))
    a, c = index(frame, e.on_true), index(frame, e.on_false)
    lanes = max(condition.lanes, a.lanes, c.lanes)
    x, y = emit_index.to_value(frame.b, a, lanes), emit_index.to_value(frame.b, c, lanes)
    return emit_index.from_value(frame.b, ops.select(frame.b, condition, x, y), emit_index.hull(a, c))


def value(frame: Frame, e: Expr) -> Value:
    """The value of ``e``: a scalar, or a vector when it differs between the lanes of the vector loop."""
    if e.dtype is DType.INT64:
        return emit_index.to_value(frame.b, index(frame, e))
    return _value(frame, e)


def _value(frame: Frame, e: Expr) -> Value:
    b = frame.b
    match e:
        case Const():
            return constant(e.value, e.dtype)
        case Var():
            binding = _lookup(frame, e)
            return emit_index.to_value(b, binding) if isinstance(binding, Linear) else binding
        case Load():
            return emit_memory.load(frame, locate(frame, e.source, e.indices))
        case Binary():
            return _binary(frame, e)
        case Compare() if e.left.dtype is DType.INT64:
            return emit_index.compare(b, e.op, index(frame, e.left), index(frame, e.right))
        case Compare():
            return ops.compare(b, e.op, value(frame, e.left), value(frame, e.right))
        case Unary():
            return ops.unary(b, e.op, value(frame, e.operand))
        case Cast():
            return ops.cast(b, value(frame, e.operand), e.dtype)
        case Select():
            return _select(frame, e)
    raise CompileError(f"kernel {frame.kernel!r} holds a {type(e).__name__}, which loop nests may not")


def locate(frame: Frame, buffer: Buffer, indices: tuple[Expr, ...]) -> emit_memory.Address:
    """The address of ``buffer[indices]``."""
    key = frame.key(indices, indices)
    if key is None:
        return _located(frame, buffer, indices)
    place = (buffer, key)  # several buffers may share the tuple of indices: () is always the same
    known: emit_memory.Address | None = frame.b.recall(place)
    if known is None:
        known = _located(frame, buffer, indices)
        frame.b.remember(place, known)
    return known


def _located(frame: Frame, buffer: Buffer, indices: tuple[Expr, ...]) -> emit_memory.Address:
    return emit_memory.locate(buffer, [index(frame, i) for i in indices], _sizes(frame, buffer))


def _sizes(frame: Frame, buffer: Buffer) -> tuple[Linear, ...]:
    sizes: tuple[Linear, ...] | None = frame.b.recall(buffer)
    if sizes is None:
        sizes = tuple(index(frame, wrap(dim)) for dim in buffer.shape)
        frame.b.remember(buffer, sizes)
    return sizes


def _binary(frame: Frame, e: Binary) -> Value:
    left = value(frame, e.left)
    if e.dtype is DType.BOOL and left.ref in ("true", "false") and e.op in ("and", "or"):
        return left if (left.ref == "true") == (e.op == "or") else value(frame, e.right)
    if e.op == "pow" and e.dtype.is_float and isinstance(e.right, Const):
        power = _constant_power(frame, left, float(e.right.value))
        if power is not None:
            return power
    return ops.binary(frame.b, e.op, left, value(frame, e.right))


def _constant_power(frame: Frame, x: Value, exponent: float) -> Value | None:
    """``x ** exponent`` by multiplications where that is as accurate as pow."""
    b = frame.b
    match exponent:
        case 1.0:
            return x
        case 2.0:
            return ops.binary(b, "mul", x, x)
        case 3.0:
            return ops.binary(b, "mul", ops.binary(b, "mul", x, x), x)
        case -1.0:
            return ops.unary(b, "reciprocal", x)
    return None


def _select(frame: Frame, e: Select) -> Value:
    condition = value(frame, e.condition)
    if condition.ref in ("true", "false"):
        return value(frame, e.on_true if condition.ref == "true" else e.on_false)
    if _may_fail(frame, e.on_true) or _may_fail(frame, e.on_false):
        return _guarded_select(frame, condition, e)
    return ops.select(frame.b, condition, value(frame, e.on_true), value(frame, e.on_false))


def _may_fail(frame: Frame, e: Expr) -> bool:
    """Whether evaluating ``e`` where it is not wanted could load out of bounds or report a wrong index."""
    for node in walk(e):
        if isinstance(node, CheckedIndex):
            return True
        if isinstance(node, Load) and (
            any(isinstance(n, Load) for i in node.indices for n in walk(i))
            or not locate(frame, node.source, node.indices).safe
        ):
            return True
    return False


def _guarded_select(frame: Frame, condition: Value, e: Select) -> Value:
    """A select that evaluates each side only where it is taken."""
    if condition.lanes:
        with frame.masked(condition):
            on_true = value(frame, e.on_true)
        with frame.masked(ops.unary(frame.b, "not", condition)):
            on_false = value(frame, e.on_false)
        return ops.select(frame.b, condition, on_true, on_false)
    return _branching_select(frame, condition, e)


def _branching_select(frame: Frame, condition: Value, e: Select) -> Value:
    b = frame.b
    labels = b.new_label("then"), b.new_label("else")
    done = b.new_label("done")
    b.branch(condition.ref, *labels)
    lanes = frame.lanes if any(_lookup(frame, var).lanes for var in free_vars(e)) else 0
    sides = []
    outer = frame.loaded
    for label, side in zip(labels, (e.on_true, e.on_false), strict=True):
        b.start(label)
        frame.loaded = {buffer: dict(known) for buffer, known in outer.items()}
        with b.scope():
            sides.append((b.splat(value(frame, side), lanes), b.label))
        b.jump(done)
    frame.loaded = outer
    b.start(done)
    (first, _), _ = sides
    ref = b.phi(first.type, *((side.ref, label) for side, label in sides))
    return Value(ref, first.dtype, first.lanes)


def _checked(frame: Frame, e: CheckedIndex) -> Linear:
    """The index where ``0 <= index < size``; elsewhere 0, and that is reported in the context."""
    b, a, size = frame.b, index(frame, e.index), index(frame, e.size)
    inside = b.conjunction(emit_index.compare(b, "ge", a, linear.constant(0)), emit_index.compare(b, "lt", a, size))
    assert inside is not None
    if inside.ref == "true":
        return a
    failed = b.conjunction(ops.unary(b, "not", inside), frame.mask)
    assert failed is not None
    given = index(frame, _as_given(e))
    _report(frame, failed, emit_index.to_value(b, given), emit_index.to_value(b, size))
    _, high = linear.bounds(size)
    zero = constant(0, DType.INT64)
    chosen = ops.select(b, inside, emit_index.to_value(b, a), zero)
    return emit_index.from_value(b, chosen, (0, None if high is None else max(0, high - 1)))


def _as_given(e: CheckedIndex) -> Expr:
    """The index before those that are counted from the end are made to count from the start."""
    match e.index:
        case Select(on_true=Binary(op="add"), on_false=given):
            return given
    return e.index


def _report(frame: Frame, failed: Value, given: Value, size: Value) -> None:
    b = frame.b
    any_failed = b.any_lane(failed)
    report, proceed = b.new_label("wrong"), b.new_label("fine")
    b.branch(any_failed, report, proceed)
    b.start(report)
    with b.scope():
        b.module.define(_REPORT_NAME, _REPORT)
        b.void(f"call void @{_REPORT_NAME}(ptr %context, {_first(b, failed, given)}, {_first(b, failed, size)})")
    b.jump(proceed)
    b.start(proceed)


def _first(b: FunctionBuilder, mask: Value, value: Value) -> Value:
    """``value`` in the first lane of ``mask``."""
    if not value.lanes or not mask.lanes:
        return b.extract(value, 0)
    bits = b.pure(f"bitcast {mask} to i{mask.lanes}")
    lane = b.call_intrinsic(f"llvm.cttz.i{mask.lanes}", f"i{mask.lanes}", f"i{mask.lanes} {bits}", "i1 true")
    return Value(b.pure(f"extractelement {value}, i{mask.lanes} {lane}"), value.dtype)


_REPORT_NAME = "report_index"
# The context's words: the pool, the status, the steps' times, the step, the wrong index, the size that it is for.
_REPORT = """
define internal void @report_index(ptr %context, i64 %index, i64 %size) noinline cold nounwind {
  %step.at = getelementptr i64, ptr %context, i64 3
  %step = load i64, ptr %step.at
  %status = add i64 %step, 1
  %status.at = getelementptr i64, ptr %context, i64 1
  %exchanged = cmpxchg ptr %status.at, i64 0, i64 %status monotonic monotonic, align 8
  %first = extractvalue { i64, i1 } %exchanged, 1
  br i1 %first, label %tell, label %done
tell:
  %index.at = getelementptr i64, ptr %context, i64 4
  store i64 %index, ptr %index.at
  %size.at = getelementptr i64, ptr %context, i64 5
  store i64 %size, ptr %size.at
  br label %done
done:
  ret void
}
"""
