"""The schedule language: a kernel, primitives that rewrite its loops, and the trace that replays them.

The primitives' names and meanings follow Halide and TVM. Each one is proven when it is applied (value-based, by
:func:`polycomp.poly.verify_kernel`): what would change a result is refused, with the iterations that are in the way.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from typing import Any, cast

from polycomp.decisions import Choice, Chooser, Decision, Decisions
from polycomp.errors import ExpressionError, IllegalScheduleError, ScheduleError
from polycomp.expr import Interval, Var, const, free_vars, wrap
from polycomp.poly.kernel import Kernel, Statement, statements_of
from polycomp.poly.legality import ViolationKind, verify_kernel
from polycomp.poly.tree import Allocate, Node, Scope
from polycomp.schedules import placement, stages
from polycomp.schedules.handles import LoopLike, LoopRef, TensorLike, quoted, suggestion
from polycomp.schedules.listing import listing, listing_html
from polycomp.schedules.loop_primitives import LoopPrimitives
from polycomp.schedules.refusal import prove_kernel
from polycomp.schedules.rewrite import Nodes
from polycomp.schedules.stage_primitives import StagePrimitives
from polycomp.schedules.state import recorded
from polycomp.schedules.trace import Step, Trace
from polycomp.te import Tensor, topological_order

_NONE = Decisions()

__all__ = ["Explanation", "LoopRef", "Schedule", "Stage", "Step", "Trace", "initial_kernel"]


@dataclasses.dataclass(frozen=True)
class Stage:
    """A tensor within a schedule. ``loops`` are those around its (updating) statement, outermost first."""

    schedule: Schedule
    tensor: Tensor

    @property
    def loops(self) -> tuple[LoopRef, ...]:
        return self.schedule.loops_of(self.tensor)


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Whether a primitive would be accepted, and why. ``source`` and ``target`` are iterations in each other's way."""

    legal: bool
    reason: str
    source: str = ""
    target: str = ""
    remedy: str = ""

    def __bool__(self) -> bool:
        return self.legal

    def __str__(self) -> str:
        return self.reason


def initial_kernel(
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor] | None = None,
    ranges: Mapping[Var, Interval] | None = None,
    name: str = "kernel",
) -> Kernel:
    """The kernel that computes ``outputs`` stage by stage, each in its own loops, unscheduled."""
    order = topological_order(outputs)
    found = tuple(t for t in order if t.body is None)
    statements: dict[str, Statement] = {}
    tree: list[Node] = []
    taken = size_names(order)
    for tensor in order:
        made = statements_of(tensor)
        if any(s.name in statements for s in made):
            raise ScheduleError(f"two tensors are named {tensor.name!r}; give each tensor its own name")
        statements.update((s.name, s) for s in made)
        if made:
            tree.extend(stages.stage_tree(made, taken))
    body: Nodes = tuple(tree)
    for tensor in reversed(order):
        if tensor.body is not None and tensor not in outputs:
            zero = tuple(const(0) for _ in tensor.shape)
            body = (Allocate(tensor, Scope.WORKSPACE, zero, tensor.shape, body),)
    return Kernel(name, tuple(inputs) if inputs is not None else found, tuple(outputs), statements, body, ranges or {})


def size_names(tensors: Sequence[Tensor]) -> set[str]:
    """Names of the size parameters in the shapes of ``tensors``, which loops must not take."""
    return {v.name for t in tensors for d in t.shape for v in free_vars(wrap(d))}


class Schedule(LoopPrimitives, StagePrimitives):
    """A kernel under transformation: ``outputs`` and all that they need, at first each tensor in loops of its own.

    ``schedule[tensor].loops`` gives handles on loops; primitives take handles or names, rewrite ``kernel`` and append
    to ``trace``. A primitive that raises leaves the schedule as it was. ``check=False`` leaves the proof of each step
    to :meth:`verify` at the end. ``ranges`` are inclusive bounds of symbolic sizes. ``decisions`` replace choices that
    are made by :meth:`decide`.

    >>> s = pc.Schedule(c)
    >>> i, j, k = s[c].loops
    >>> io, ii = s.split(i, 2)
    >>> s.reorder(io, j, k, ii)
    >>> print(s.trace.as_python(), end="")
    s.split('i', 2)
    s.reorder('io', 'j', 'k', 'ii')
    """

    def __init__(
        self,
        outputs: Tensor | Sequence[Tensor],
        inputs: Sequence[Tensor] | None = None,
        ranges: Mapping[Var, Interval] | None = None,
        name: str = "kernel",
        *,
        check: bool = True,
        decisions: Chooser = _NONE,
    ) -> None:
        made = _outputs(outputs)
        super().__init__(initial_kernel(made, inputs, ranges, name), check)
        self.decisions = decisions
        self.decided: tuple[Decision, ...] = ()
        if check:
            _check_definition(self.kernel)

    def __getitem__(self, tensor: TensorLike) -> Stage:
        return Stage(self, self.tensor(tensor))

    def region_elements(self, tensor: Tensor, loop: LoopLike) -> int | None:
        """How many elements of ``tensor`` one iteration of ``loop`` needs; None when that depends on sizes."""
        total = 1
        for _, extent in placement.needed_region(self.kernel, tensor, self._ref(loop).var):
            if not isinstance(extent, int):
                return None
            total *= extent
        return total

    # ------------------------------------------------------------------ deciding

    def decide(self, name: str, value: Choice, alternatives: Sequence[Choice]) -> Choice:
        """Choose ``value``, or what the schedule's ``decisions`` say instead; ``decided`` remembers it.

        Raises :class:`ScheduleError` when they say something that is not one of the ``alternatives``. A name that was
        used before is made unique.

        >>> s = pc.Schedule(y, decisions=pc.Decisions().replace("factor", 5))
        >>> s.decide("factor", 2, [2, 5])
        5
        """
        repeated = sum(d.name.partition("#")[0] == name for d in self.decided)
        name = f"{name}#{repeated + 1}" if repeated else name
        possible = tuple(dict.fromkeys((value, *alternatives)))
        made = cast(Choice, self.decisions.choose(name, value, possible))
        self.decided += (Decision(name, made, possible),)
        return made

    # ------------------------------------------------------------------ looking

    def __str__(self) -> str:
        return listing(self.kernel)

    def __repr__(self) -> str:
        names = quoted(t.name for t in self.kernel.outputs)
        return f"<Schedule of {names} after {len(self.trace)} primitives>"

    def _repr_html_(self) -> str:
        return listing_html(self.kernel)

    def show(self) -> None:
        """Print the loops."""
        sys.stdout.write(f"{self}\n")

    # ------------------------------------------------------------------ proving

    def verify(self) -> None:
        """Prove that the schedule computes what its tensors say. Raises :class:`IllegalScheduleError`."""
        prove_kernel(self.kernel, f"the schedule of {quoted(t.name for t in self.kernel.outputs)}")

    def explain(self, primitive: str, *operands: Any, **options: Any) -> Explanation:
        """Whether a primitive would be accepted, and why, without applying it.

        >>> s = pc.Schedule(c)
        >>> print(s.explain("reorder", "k", "i"))
        reorder('k', 'i') is legal: every value is final when it is read
        >>> print(s.explain("unroll", "q"))
        there is no loop 'q'; the loops are 'i', 'j', 'k'
        """
        step = Step(primitive, tuple(map(recorded, operands)), {k: recorded(v) for k, v in options.items()})
        trial = self.copy()
        trial.check = True
        apply = trial._method(primitive)
        try:
            apply(*operands, **options)
        except IllegalScheduleError as error:
            return Explanation(False, str(error), error.source, error.target, error.remedy)
        except ScheduleError as error:
            return Explanation(False, str(error))
        questions = verify_kernel(trial.kernel).exact_questions
        how = f" (isl proved {questions} questions)" if questions else ""
        return Explanation(True, f"{step} is legal: every value is final when it is read{how}")

    # ------------------------------------------------------------------ repeating

    def copy(self) -> Schedule:
        """A schedule in the same state, to be changed independently."""
        other = Schedule.__new__(Schedule)
        other.__dict__.update(self.__dict__)
        return other

    def undo(self) -> None:
        """Take back the last primitive.

        >>> s = pc.Schedule(y)
        >>> _ = s.split("i", 5)
        >>> s.undo()
        >>> s.show()
        for i in range(10):
            y[i] = x[i] * 2.0
        """
        if not self._history:
            raise ScheduleError("undo: no primitive has been applied")
        self.restore(self._history[-1][1])
        self._history = self._history[:-1]

    def replay(self, trace: Trace) -> None:
        """Apply all steps of a trace, or none. Raises :class:`TraceError` naming the step that does not fit.

        >>> first, second = pc.Schedule(y), pc.Schedule(y)
        >>> _ = first.split("i", 5)
        >>> second.replay(pc.Trace.from_json(first.trace.to_json()))
        >>> str(first) == str(second)
        True
        """
        trial = self.copy()
        trace.apply(trial)
        self.__dict__.update(trial.__dict__)

    def _method(self, name: str) -> Any:
        if name not in PRIMITIVES:
            known = sorted(PRIMITIVES)
            raise ScheduleError(
                f"there is no primitive {name!r}; there are {', '.join(known)}{suggestion(name, known)}"
            )
        return getattr(self, name)


PRIMITIVES = frozenset(
    name
    for base in (LoopPrimitives, StagePrimitives)
    for name, value in vars(base).items()
    if hasattr(value, "__wrapped__")
)
"""Names of all primitives."""


def _outputs(outputs: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    made = tuple(outputs) if isinstance(outputs, list | tuple) else (outputs,)
    for tensor in made:
        if not isinstance(tensor, Tensor):
            raise ScheduleError(f"a schedule is made of tensors, not of a {type(tensor).__name__}")
        if tensor.body is None:
            raise ScheduleError(f"{tensor.name!r} is a placeholder: there is nothing to compute")
    if not made:
        raise ScheduleError("a schedule needs at least one tensor to compute")
    return made


def _check_definition(kernel: Kernel) -> None:
    """Refuse tensors that are not well defined, such as ones that read outside of another."""
    violation = verify_kernel(kernel).violation
    if violation is not None and violation.kind is not ViolationKind.UNKNOWN:
        hint = (
            "; guard such a read: select(condition, inside, outside)" if violation.kind is ViolationKind.BOUNDS else ""
        )
        raise ExpressionError(f"the tensors are not well defined: {violation.message}{hint}")
