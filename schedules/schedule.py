"""The schedule language: primitives that rewrite a kernel's tree, and the trace that replays them.

The primitives' names and meanings follow Halide and TVM. Each primitive checks its own structural conditions; the
value-based proof of the whole tree (:func:`polycomp.poly.verify_kernel`) says whether the result is legal.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

from polycomp.errors import ScheduleError
from polycomp.expr import Interval, Var, compare, const, free_vars, minimum, simplify, wrap
from polycomp.poly.kernel import Kernel, Statement, statements_of
from polycomp.poly.tree import Ahead, Allocate, Loop, LoopKind, Node, Scope, walk
from polycomp.schedules import placement, stages
from polycomp.schedules.rewrite import (
    Nodes,
    as_dim,
    loop_names,
    loop_range,
    path_to_leaf,
    path_to_loop,
    ranges_of_path,
    replace_loop,
    substitute_loops,
)
from polycomp.te import Dim, Tensor, topological_order


@dataclasses.dataclass(frozen=True)
class LoopRef:
    """A handle on a loop of the tree; it stays valid until the loop itself is split, fused or moved away."""

    var: Var

    @property
    def name(self) -> str:
        return self.var.name

    def __repr__(self) -> str:
        return self.var.name


@dataclasses.dataclass(frozen=True)
class Stage:
    """A tensor within a schedule. ``loops`` are those around its (updating) statement, outermost first."""

    schedule: Schedule
    tensor: Tensor

    @property
    def loops(self) -> tuple[LoopRef, ...]:
        return self.schedule.loops_of(self.tensor)


@dataclasses.dataclass(frozen=True)
class Step:
    """One applied primitive, with its operands by name, so that it can be replayed on another schedule."""

    primitive: str
    operands: tuple[Any, ...]
    options: Mapping[str, Any]

    def __str__(self) -> str:
        parts = [repr(o) if not isinstance(o, str) else o for o in self.operands]
        parts += [f"{k}={v!r}" for k, v in self.options.items()]
        return f"{self.primitive}({', '.join(parts)})"


_P = ParamSpec("_P")
_R = TypeVar("_R")


def _recorded(primitive: Callable[_P, _R]) -> Callable[_P, _R]:
    """Append each successful application to the schedule's trace."""

    def apply(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        schedule: Any = args[0]
        before = schedule.kernel
        try:
            result = primitive(*args, **kwargs)
        except BaseException:
            schedule.kernel = before  # a primitive that fails leaves everything as it was
            raise
        names = {k: _named(v) for k, v in kwargs.items()}
        schedule.trace.append(Step(primitive.__name__, tuple(map(_named, args[1:])), names))
        return result

    apply.__name__ = primitive.__name__
    apply.__doc__ = primitive.__doc__
    return apply


def _named(operand: Any) -> Any:
    if isinstance(operand, LoopRef | Tensor):
        return operand.name
    return operand


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


class Schedule:
    """A kernel under transformation.

    ``schedule[tensor].loops`` gives handles on loops; primitives take handles and tensors, rewrite ``kernel`` and
    append to ``trace``. A primitive that raises leaves the schedule as it was.
    """

    def __init__(
        self,
        outputs: Tensor | Sequence[Tensor],
        inputs: Sequence[Tensor] | None = None,
        ranges: Mapping[Var, Interval] | None = None,
        name: str = "kernel",
    ) -> None:
        made = (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
        self.kernel = initial_kernel(made, inputs, ranges, name)
        self.trace: list[Step] = []

    def __getitem__(self, tensor: Tensor) -> Stage:
        return Stage(self, tensor)

    # ------------------------------------------------------------------ queries

    @property
    def tree(self) -> Nodes:
        return self.kernel.tree

    def loops_of(self, tensor: Tensor) -> tuple[LoopRef, ...]:
        """Handles on the loops around the statement that finishes ``tensor``, outermost first."""
        path = path_to_leaf(self.tree, self._last_statement(tensor).name)
        assert path is not None
        return tuple(LoopRef(n.var) for n in path if isinstance(n, Loop))

    def loop(self, ref: LoopRef) -> Loop:
        """The tree node of a handle. Raises ScheduleError when the loop is no longer there."""
        return self._path(ref)[-1]  # type: ignore[return-value]

    def extent(self, ref: LoopRef) -> Dim:
        """The number of iterations of a loop: an int, or an expression over sizes and enclosing loops."""
        return self.loop(ref).extent

    def statements_for(self, tensor: Tensor) -> tuple[Statement, ...]:
        """The statements that write ``tensor``."""
        return tuple(s for s in self.kernel.statements.values() if s.tensor is tensor)

    def ranges(self, ref: LoopRef) -> dict[Var, Interval]:
        """Inclusive bounds of the sizes and of all loop variables down to ``ref``."""
        return ranges_of_path(self._path(ref), self.kernel.ranges)

    def region_elements(self, tensor: Tensor, loop: LoopRef) -> int | None:
        """How many elements of ``tensor`` one iteration of ``loop`` needs; None when that depends on sizes."""
        total = 1
        for _, extent in placement.needed_region(self.kernel, tensor, loop.var):
            if not isinstance(extent, int):
                return None
            total *= extent
        return total

    # ------------------------------------------------------------------ loop primitives

    @_recorded
    def split(self, loop: LoopRef, factor: int, tail: str = "guard") -> tuple[LoopRef, LoopRef]:
        """``for i<n`` becomes ``for io<ceil(n/factor): for ii<factor``, with ``i = io*factor + ii``.

        Where ``factor`` does not divide ``n``, what lies beyond ``n`` is guarded (``tail="guard"``), or the inner loop
        ends early (``tail="shrink"``; it can then be neither unrolled nor vectorised). Returns (outer, inner).
        """
        if isinstance(factor, bool) or not isinstance(factor, int) or factor < 1:
            raise ScheduleError(f"split of loop {loop.name!r} needs a positive int as factor, not {factor!r}")
        if tail not in ("guard", "shrink"):
            raise ScheduleError(f"split of loop {loop.name!r}: tail is 'guard' or 'shrink', not {tail!r}")
        path = self._path(loop)
        node = self.loop(loop)
        ranges = ranges_of_path(path[:-1], self.kernel.ranges)
        outer, inner = self._fresh(f"{loop.name}o"), self._fresh(f"{loop.name}i")
        count = as_dim(simplify((wrap(node.extent) + (factor - 1)) // factor, ranges))
        ranges[outer] = loop_range(count, ranges)
        ranges[inner] = (0, factor - 1)
        value = outer * factor + inner
        exact = simplify(wrap(node.extent) % factor, ranges) == const(0)
        guard = None if exact or tail == "shrink" else simplify(compare("lt", value, node.extent), ranges)
        extent: Dim = factor
        if tail == "shrink" and not exact:
            extent = simplify(minimum(node.extent - outer * factor, factor), ranges)
        body = substitute_loops(node.body, {node.var: value}, ranges, guard)
        new = Loop(outer, count, node.kind, (Loop(inner, extent, LoopKind.SERIAL, body),))
        self._replace(loop, lambda _: (new,))
        return LoopRef(outer), LoopRef(inner)

    def tile(self, *loops_and_factors: tuple[LoopRef, int]) -> tuple[tuple[LoopRef, ...], tuple[LoopRef, ...]]:
        """Split each ``(loop, factor)`` and move all inner loops inside all outer ones. Returns (outers, inners)."""
        pairs = [self.split(loop, factor) for loop, factor in loops_and_factors]
        outers, inners = tuple(p[0] for p in pairs), tuple(p[1] for p in pairs)
        self.reorder(*outers, *inners)
        return outers, inners

    @_recorded
    def fuse(self, outer: LoopRef, inner: LoopRef) -> LoopRef:
        """``for i<n: for j<m`` becomes ``for f<n*m``, with ``i = f // m`` and ``j = f % m``; m must be constant."""
        node = self.loop(outer)
        if len(node.body) != 1 or not isinstance(node.body[0], Loop) or node.body[0].var != inner.var:
            raise ScheduleError(f"fuse needs loop {inner.name!r} to be the only thing inside of loop {outer.name!r}")
        inside = node.body[0]
        if not isinstance(inside.extent, int):
            raise ScheduleError(
                f"fuse of {outer.name!r} with {inner.name!r} needs a constant inner extent, not {inside.extent}: "
                f"dividing by a symbolic size is not affine"
            )
        path = self._path(outer)
        ranges = ranges_of_path(path[:-1], self.kernel.ranges)
        fused = self._fresh(f"{outer.name}.{inner.name}")
        extent = as_dim(simplify(wrap(node.extent) * inside.extent, ranges))
        ranges[fused] = loop_range(extent, ranges)
        values = {node.var: fused // inside.extent, inside.var: fused % inside.extent}
        values = {v: simplify(e, ranges) for v, e in values.items()}
        body = substitute_loops(inside.body, values, ranges)
        self._replace(outer, lambda _: (Loop(fused, extent, node.kind, body),))
        return LoopRef(fused)

    @_recorded
    def reorder(self, *loops: LoopRef) -> None:
        """Put the named loops, which must be nested in one another, into this order, outermost first.

        Loops between them that are not named keep their place. What stands before an inner loop in the body of an
        outer one (the initialisation of a reduction) keeps its own copies of the loops that move inside.
        """
        if len(set(loops)) != len(loops):
            raise ScheduleError(f"reorder was given a loop twice: {', '.join(r.name for r in loops)}")
        if len(loops) < 2:
            return
        top = self._outermost(loops)
        taken = self._taken()
        self._replace(top, lambda node: placement.reordered(node, [r.var for r in loops], taken))

    @_recorded
    def unroll(self, loop: LoopRef) -> None:
        """Expand the loop's body once per iteration in the emitted code; its extent must be constant."""
        self._set_kind(loop, LoopKind.UNROLL)

    @_recorded
    def vectorize(self, loop: LoopRef) -> None:
        """Execute all iterations of the loop at once, as vectors; its extent must be constant."""
        self._set_kind(loop, LoopKind.VECTOR)

    @_recorded
    def parallel(self, loop: LoopRef) -> None:
        """Share the loop's iterations out to the threads of the pool."""
        self._set_kind(loop, LoopKind.PARALLEL)

    @_recorded
    def prefetch(self, tensor: Tensor, loop: LoopRef, distance: int) -> None:
        """In each iteration of ``loop``, ask for the cache lines that it will read of ``tensor`` in ``distance`` more.

        A hint to the machine without effect on results; lines beyond the tensor's end are harmless.
        """
        if isinstance(distance, bool) or not isinstance(distance, int) or distance < 1:
            raise ScheduleError(f"prefetch of {tensor.name!r} needs a positive int as distance, not {distance!r}")
        ahead = Ahead(tensor, distance)
        self._replace(loop, lambda n: (dataclasses.replace(n, prefetch=(*n.prefetch, ahead)),))

    # ------------------------------------------------------------------ stage primitives

    @_recorded
    def compute_inline(self, tensor: Tensor) -> None:
        """Replace every read of ``tensor`` by its definition, and compute it nowhere. Not for reductions, outputs."""
        self.kernel = stages.inline(self.kernel, tensor)

    @_recorded
    def compute_at(
        self, tensor: Tensor, loop: LoopRef, scope: Scope = Scope.WORKSPACE, overcompute: bool = False
    ) -> tuple[LoopRef, ...]:
        """Compute what an iteration of ``loop`` needs of ``tensor`` inside of that iteration, into private storage.

        Returns the new loops around the tensor's (updating) statement. With ``overcompute`` the whole box is computed
        even where it reaches beyond the tensor: reads there are clamped to the edge, and nothing is guarded.
        """
        self.kernel = placement.compute_at(self.kernel, tensor, loop.var, scope, overcompute)
        inside = self.loops_of(tensor)
        return inside[[r.var for r in inside].index(loop.var) + 1 :]

    @_recorded
    def cache_write(self, tensor: Tensor) -> Tensor:
        """Compute ``tensor`` in a new tensor ``<name>.acc`` and copy from it; returns the new tensor.

        The copy can then be tiled, and the accumulator placed into its tile by :meth:`compute_at`.
        """
        self.kernel, made = stages.cache_write(self.kernel, tensor, self._taken())
        return made

    @_recorded
    def cache_read(self, tensor: Tensor, reader: Tensor, tiles: Mapping[int, int] | None = None) -> Tensor:
        """Let ``reader`` read a copy ``<name>.packed`` of ``tensor``; returns the copy.

        ``tiles`` maps dimensions to factors: each such dimension of size n becomes a first dimension ceil(n/f) and a
        last one f (in the given order), so that the copy is made of panels; what lies beyond n is zero.
        """
        self.kernel, made = stages.cache_read(self.kernel, tensor, reader, dict(tiles or {}), self._taken())
        return made

    @_recorded
    def rfactor(self, tensor: Tensor, axis: int, factor: int) -> Tensor:
        """Split a reduction over its axis number ``axis`` into ``factor`` independent partial results.

        Returns the tensor of partial results, ``<name>.rf``, whose last dimension is the ``factor`` partials;
        ``tensor`` then reduces over those. This is what makes a reduction vectorisable along the reduced axis.
        """
        self.kernel, made = stages.rfactor(self.kernel, tensor, axis, factor, self._taken())
        return made

    @_recorded
    def set_scope(self, tensor: Tensor, scope: Scope) -> None:
        """Store an intermediate tensor in memory (WORKSPACE) or in registers (REGISTER)."""
        self.kernel = dataclasses.replace(self.kernel, tree=placement.with_scope(self.tree, tensor, scope))

    # ------------------------------------------------------------------ internals

    def _path(self, ref: LoopRef) -> tuple[Node, ...]:
        path = path_to_loop(self.tree, ref.var)
        if path is None:
            there = ", ".join(sorted(loop_names(self.tree))) or "none"
            raise ScheduleError(f"there is no loop {ref.name!r} any more; the loops are {there}")
        return path

    def _last_statement(self, tensor: Tensor) -> Statement:
        found = self.statements_for(tensor)
        if not found:
            names = ", ".join(dict.fromkeys(s.tensor.name for s in self.kernel.statements.values()))
            raise ScheduleError(f"tensor {tensor.name!r} is not computed by this schedule; it computes {names}")
        return found[-1]

    def _fresh(self, wanted: str) -> Var:
        return Var(stages.fresh_name(wanted, self._taken()))

    def _taken(self) -> set[str]:
        return {*loop_names(self.tree), *(v.name for v in self.kernel.sizes)}

    def _replace(self, ref: LoopRef, change: Callable[[Loop], Nodes]) -> None:
        self.kernel = dataclasses.replace(self.kernel, tree=replace_loop(self.tree, ref.var, change))

    def _outermost(self, loops: Sequence[LoopRef]) -> LoopRef:
        for ref in loops:
            inside = {n.var for n, _ in walk((self.loop(ref),)) if isinstance(n, Loop)}
            if all(other.var in inside for other in loops):
                return ref
        raise ScheduleError(f"reorder needs loops that are nested in one another: {', '.join(r.name for r in loops)}")

    def _set_kind(self, ref: LoopRef, kind: LoopKind) -> None:
        node = self.loop(ref)
        if kind in (LoopKind.VECTOR, LoopKind.UNROLL) and not isinstance(node.extent, int):
            raise ScheduleError(
                f"loop {ref.name!r} runs {node.extent} times, which is not known while compiling; split it by a "
                f"constant first, then mark the inner loop as {kind.value}"
            )
        self._replace(ref, lambda n: (dataclasses.replace(n, kind=kind),))
