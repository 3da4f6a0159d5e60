"""What a schedule is between primitives: the kernel, how it came about, and whether each step must be proven."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

from polycomp.errors import NestingError, ScheduleError, StaleLoopError, UnknownLoopError, UnknownTensorError
from polycomp.expr import Interval, Var
from polycomp.poly.kernel import Kernel, Statement
from polycomp.poly.tree import Loop, Node, walk
from polycomp.schedules import stages
from polycomp.schedules.handles import LoopLike, LoopRef, TensorLike, name_of, quoted, suggestion
from polycomp.schedules.hints import check_hints
from polycomp.schedules.refusal import check_vectors, prove_step
from polycomp.schedules.rewrite import Nodes, loop_names, path_to_leaf, path_to_loop, ranges_of_path, replace_loop
from polycomp.schedules.trace import Step, Trace
from polycomp.te import Dim, Tensor

_P = ParamSpec("_P")
_R = TypeVar("_R")


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """All that a primitive may change. ``copies`` maps loops to those that a reorder made for an initialisation."""

    kernel: Kernel
    copies: Mapping[Var, tuple[Var, ...]]
    names: frozenset[str]


def primitive(method: Callable[_P, _R]) -> Callable[_P, _R]:
    """Make a method a primitive: it is proven and recorded when it succeeds, and changes nothing when it fails."""

    @functools.wraps(method)
    def apply(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        schedule: Any = args[0]
        step = Step(method.__name__, tuple(map(recorded, args[1:])), {k: recorded(v) for k, v in kwargs.items()})
        result: _R = schedule._apply(step, lambda: method(*args, **kwargs))
        return result

    return apply


def recorded(operand: Any) -> Any:
    """An operand as a trace keeps it."""
    if isinstance(operand, LoopRef | Tensor):
        return operand.name
    if isinstance(operand, tuple):
        return tuple(map(recorded, operand))
    if isinstance(operand, Mapping):
        return {str(k): recorded(v) for k, v in operand.items()}
    return getattr(operand, "value", operand)


class ScheduleState:
    """The kernel under transformation, with handles on its parts."""

    def __init__(self, kernel: Kernel, check: bool) -> None:
        self.kernel = kernel
        self.check = check
        self._copies: Mapping[Var, tuple[Var, ...]] = {}
        self._names = frozenset({*loop_names(kernel.tree), *(v.name for v in kernel.sizes)})
        self._history: tuple[tuple[Step, Snapshot], ...] = ()
        self._depth = 0

    # ------------------------------------------------------------------ queries

    @property
    def tree(self) -> Nodes:
        return self.kernel.tree

    @property
    def trace(self) -> Trace:
        """The primitives applied so far."""
        return Trace(tuple(step for step, _ in self._history))

    def loops_of(self, tensor: TensorLike) -> tuple[LoopRef, ...]:
        """Handles on the loops around the statement that finishes ``tensor``, outermost first."""
        path = path_to_leaf(self.tree, self._last_statement(tensor).name)
        assert path is not None
        return tuple(LoopRef(n.var) for n in path if isinstance(n, Loop))

    def loop(self, ref: LoopLike) -> Loop:
        """The tree node of a handle. Raises :class:`UnknownLoopError` when the loop is not, or no longer, there."""
        return self._path(ref)[-1]  # type: ignore[return-value]

    def extent(self, ref: LoopLike) -> Dim:
        """The number of iterations of a loop: an int, or an expression over sizes and enclosing loops."""
        return self.loop(ref).extent

    def tensor(self, name: TensorLike) -> Tensor:
        """The tensor of that name, an input or computed here. Raises :class:`UnknownTensorError`."""
        known = {t.name: t for t in (*self.kernel.inputs, *(s.tensor for s in self.kernel.statements.values()))}
        found = known.get(name_of(name))
        if found is None:
            gone = self._made_of(name_of(name))
            raise UnknownTensorError(gone or f"there is no tensor {name_of(name)!r}; there are {quoted(known)}")
        if isinstance(name, Tensor) and found is not name:
            raise UnknownTensorError(
                f"tensor {name.name!r} is not the one of that name in this schedule; schedule[{name.name!r}] is"
            )
        return found

    def statements_for(self, tensor: Tensor) -> tuple[Statement, ...]:
        """The statements that write ``tensor``."""
        return tuple(s for s in self.kernel.statements.values() if s.tensor is tensor)

    def ranges(self, ref: LoopLike) -> dict[Var, Interval]:
        """Inclusive bounds of the sizes and of all loop variables down to ``ref``."""
        return ranges_of_path(self._path(ref), self.kernel.ranges)

    # ------------------------------------------------------------------ changes

    def snapshot(self) -> Snapshot:
        return Snapshot(self.kernel, self._copies, self._names)

    def restore(self, snapshot: Snapshot) -> None:
        self.kernel, self._copies, self._names = snapshot.kernel, snapshot.copies, snapshot.names

    def _apply(self, step: Step, change: Callable[[], _R]) -> _R:
        """Make a change that is all or nothing. Primitives within a primitive are part of it."""
        if self._depth:
            return change()
        before = self.snapshot()
        self._depth += 1
        try:
            result = change()
            check_vectors(step, self.kernel)
            check_hints(step, before.kernel, self.kernel)
            if self.check:
                prove_step(step, before.kernel, self.kernel)
        except BaseException:
            self.restore(before)
            raise
        finally:
            self._depth -= 1
        self._history = (*self._history, (step, before))
        self._names |= loop_names(self.tree)
        return result

    def _replace(self, var: Var, change: Callable[[Loop], Nodes]) -> None:
        self.kernel = dataclasses.replace(self.kernel, tree=replace_loop(self.tree, var, change))

    def _copies_of(self, var: Var) -> tuple[Var, ...]:
        """The loops that a reorder made of the loop ``var`` for an initialisation, as far as they are still there."""
        return tuple(copy for copy in self._copies.get(var, ()) if path_to_loop(self.tree, copy) is not None)

    def _fresh(self, wanted: str) -> Var:
        return Var(stages.fresh_name(wanted, self._taken()))

    def _taken(self) -> set[str]:
        """Names that a new loop must not have: those in use, and those that old handles have."""
        return {*loop_names(self.tree), *self._names}

    # ------------------------------------------------------------------ finding things

    def _ref(self, loop: LoopLike) -> LoopRef:
        """The handle of a loop that is there."""
        node = self._path(loop)[-1]
        assert isinstance(node, Loop)
        return LoopRef(node.var)

    def _path(self, loop: LoopLike) -> tuple[Node, ...]:
        if not isinstance(loop, LoopRef | str):
            raise UnknownLoopError(f"a loop is given by its handle or its name, not by {loop!r}")
        var = Var(loop) if isinstance(loop, str) else loop.var
        path = path_to_loop(self.tree, var)
        if path is None:
            raise self._no_loop(var.name)
        return path

    def _changes(self) -> Iterator[tuple[Step, Kernel, Kernel]]:
        """Each applied step, with the kernel before and after it."""
        kernels = [*(before.kernel for _, before in self._history), self.kernel]
        for (step, _), (old, new) in zip(self._history, itertools.pairwise(kernels), strict=True):
            yield step, old, new

    def _no_loop(self, name: str) -> ScheduleError:
        there = [n.var.name for n, _ in walk(self.tree) if isinstance(n, Loop)]
        for step, old, new in self._changes():
            if name in loop_names(old.tree) and name not in loop_names(new.tree):
                became = [n for n in _names_in_order(new) if n not in loop_names(old.tree)]
                what = f"; it became {quoted(became)}" if became else ""
                return StaleLoopError(f"there is no loop {name!r} any more: {step} replaced it{what}")
        return UnknownLoopError(f"there is no loop {name!r}; the loops are {quoted(there)}{suggestion(name, there)}")

    def _made_of(self, name: str) -> str:
        """What happened to the tensor ``name``; "" when there never was one."""
        for step, old, new in self._changes():
            if name in _computed(old) and name not in _computed(new):
                return f"tensor {name!r} is not computed any more: {step} removed it"
        return ""

    def _last_statement(self, tensor: TensorLike) -> Statement:
        found = self.statements_for(self.tensor(tensor))
        if not found:
            computed = quoted(_computed(self.kernel))
            raise UnknownTensorError(
                f"tensor {name_of(tensor)!r} is an input: it has no loops; computed are {computed}"
            )
        return found[-1]

    def _outermost(self, loops: Sequence[LoopRef]) -> LoopRef:
        for ref in loops:
            inside = {n.var for n, _ in walk((self.loop(ref),)) if isinstance(n, Loop)}
            if all(other.var in inside for other in loops):
                return ref
        raise NestingError(f"reorder needs loops that are nested in one another, which {_which(loops)} are not")


def _which(loops: Sequence[LoopRef]) -> str:
    return quoted(r.name for r in loops)


def _names_in_order(kernel: Kernel) -> list[str]:
    return [n.var.name for n, _ in walk(kernel.tree) if isinstance(n, Loop)]


def _computed(kernel: Kernel) -> list[str]:
    return list(dict.fromkeys(s.tensor.name for s in kernel.statements.values()))
