"""What is wrong with an illegal schedule, in terms of statements and their iterators."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Mapping, Sequence

from polycomp.expr import Binary, Compare, Const, Expr, Select, Unary, Var
from polycomp.poly.kernel import Statement
from polycomp.poly.leaves import Scheduled, Touch
from polycomp.poly.linear import Form


class ViolationKind(enum.Enum):
    """Which rule is broken."""

    STRUCTURE = "structure"  # the tree is not well formed
    BOUNDS = "bounds"  # an access outside of a tensor or buffer
    ORDER = "order"  # a value is read before it is final
    MISSING = "missing"  # a value is read, or an output wanted, that is never computed
    INIT = "init"  # a reduction is initialised after it was updated
    REPEATED = "repeated"  # an instance is executed twice where once is meant
    OUTSIDE = "outside"  # a reduction is updated with an iteration outside of its domain
    RACE = "race"  # two iterations of a PARALLEL or VECTOR loop touch the same element
    OVERWRITTEN = "overwritten"  # a position of a folded buffer is reused before what it holds is read
    UNKNOWN = "unknown"  # could not be decided; treated as illegal


@dataclasses.dataclass(frozen=True)
class Violation:
    """``message`` says what is wrong with a concrete pair of iterations; ``remedy`` what would make it legal.

    ``source`` and ``target`` are the instances involved, as text such as ``C.update[i=0, j=3, k=0]`` ("" for none).
    """

    kind: ViolationKind
    message: str
    remedy: str = ""
    source: str = ""
    target: str = ""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether a kernel's tree computes what its tensors say. ``exact_questions`` counts the questions put to isl."""

    violation: Violation | None
    exact_questions: int = 0

    @property
    def legal(self) -> bool:
        return self.violation is None


def explain(violation: Violation) -> str:
    """The violation as text for an error message: what is broken, and what would make it legal when known."""
    return f"{violation.message}; {violation.remedy}" if violation.remedy else violation.message


def instance_text(leaf: Scheduled, values: Mapping[Expr, int], names: Mapping[Var, Var] | None = None) -> str:
    """The instance of a leaf at sampled ``values``: ``C.update[i=0, j=3, k=0]``."""
    at = _renamed(values, names)
    return point_text(leaf.statement, [evaluate(p, at) for p in leaf.point])


def _renamed(values: Mapping[Expr, int], names: Mapping[Var, Var] | None) -> Mapping[Expr, int]:
    """``values`` in which each variable has the value of the one that ``names`` gives for it."""
    return {**values, **{old: values[new] for old, new in (names or {}).items() if new in values}}


def point_text(statement: Statement, point: Sequence[int]) -> str:
    """The instance of a statement at ``point``."""
    parts = (f"{a.name}={x}" for a, x in zip(statement.iters, point, strict=True))
    return _indexed(statement.name, parts)


def element_text(touch: Touch, values: Mapping[Expr, int], names: Mapping[Var, Var] | None = None) -> str:
    """The element of a touch at sampled ``values``: ``A_packed[0, 7]``."""
    at = _renamed(values, names)
    return _indexed(touch.tensor.name, (str(evaluate(i, at)) for i in touch.indices))


def sizes_text(values: Mapping[Expr, int], sizes: tuple[Var, ...]) -> str:
    """`` (with N=5)``, the sampled sizes; "" when there are none."""
    known = ", ".join(f"{s.name}={values[s]}" for s in sizes if s in values)
    return f" (with {known})" if known else ""


def _indexed(name: str, parts: Iterable[str]) -> str:
    return f"{name}[{', '.join(parts)}]"


def evaluate(form: Form, values: Mapping[Expr, int]) -> int:
    """The value of a form; variables without a value count as 0."""
    return form.constant + sum(c * _value(a, values) for a, c in form.terms.items())


def _value(e: Expr, values: Mapping[Expr, int]) -> int:
    known = values.get(e)
    if known is not None:
        return known
    match e:
        case Const():
            return int(e.value)
        case Select():
            return _value(e.on_true if _value(e.condition, values) else e.on_false, values)
        case Unary():
            operand = _value(e.operand, values)
            return int(not operand) if e.op == "not" else -operand
        case Binary() | Compare():
            return _apply(e.op, _value(e.left, values), _value(e.right, values))
    return 0


def _apply(op: str, a: int, b: int) -> int:
    match op:
        case "floordiv":
            return a // b if b else 0
        case "floormod":
            return a % b if b else 0
        case "min" | "and":
            return min(a, b)
        case "max" | "or":
            return max(a, b)
    results = {"add": a + b, "sub": a - b, "mul": a * b, "lt": a < b, "le": a <= b, "gt": a > b, "ge": a >= b}
    return int({**results, "eq": a == b, "ne": a != b}.get(op, 0))
