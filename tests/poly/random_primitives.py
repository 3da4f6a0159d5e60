"""Random schedules made of the schedule language's own primitives."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from random_trees import random_kernel

from polycomp import te
from polycomp.errors import IllegalScheduleError, ScheduleError
from polycomp.expr import Expr, Var, const, select
from polycomp.poly.kernel import Kernel
from polycomp.schedules.schedule import LoopRef, Schedule
from polycomp.te import Tensor

Primitive = Callable[[random.Random, Schedule], None]


def random_primitives(rng: random.Random) -> Kernel:
    """A random kernel after a few primitives; those that do not apply are skipped."""
    original = random_kernel(rng)
    schedule = Schedule(original.outputs, original.inputs, original.ranges, original.name, check=False)
    for _ in range(rng.randint(2, 9)):
        try:
            rng.choice(_PRIMITIVES)(rng, schedule)
        except ScheduleError:
            continue
    return schedule.kernel


def _tensor(rng: random.Random, schedule: Schedule) -> Tensor:
    return rng.choice(list(dict.fromkeys(s.tensor for s in schedule.kernel.statements.values())))


def _loops(rng: random.Random, schedule: Schedule) -> tuple[LoopRef, ...]:
    return schedule.loops_of(_tensor(rng, schedule))


def _loop(rng: random.Random, schedule: Schedule) -> LoopRef:
    loops = _loops(rng, schedule)
    if not loops:
        raise ScheduleError("the statement is in no loop")
    return rng.choice(loops)


def _split(rng: random.Random, schedule: Schedule) -> None:
    schedule.split(_loop(rng, schedule), rng.randint(2, 4))


def _fuse(rng: random.Random, schedule: Schedule) -> None:
    loops = _loops(rng, schedule)
    if len(loops) > 1:
        at = rng.randrange(len(loops) - 1)
        schedule.fuse(loops[at], loops[at + 1])


def _reorder(rng: random.Random, schedule: Schedule) -> None:
    loops = list(_loops(rng, schedule))
    rng.shuffle(loops)
    schedule.reorder(*loops[: rng.randint(2, 4)])


def _parallel(rng: random.Random, schedule: Schedule) -> None:
    schedule.parallel(_loop(rng, schedule))


def _vectorize(rng: random.Random, schedule: Schedule) -> None:
    schedule.vectorize(_loop(rng, schedule))


def _unroll(rng: random.Random, schedule: Schedule) -> None:
    schedule.unroll(_loop(rng, schedule))


def _compute_at(rng: random.Random, schedule: Schedule) -> None:
    schedule.compute_at(_tensor(rng, schedule), _loop(rng, schedule), overcompute=rng.random() < 0.4)


def _inline(rng: random.Random, schedule: Schedule) -> None:
    schedule.compute_inline(_tensor(rng, schedule))


def _cache_write(rng: random.Random, schedule: Schedule) -> None:
    schedule.cache_write(_tensor(rng, schedule))


def _cache_read(rng: random.Random, schedule: Schedule) -> None:
    reader = _tensor(rng, schedule)
    tensor = rng.choice(reader.inputs() or (reader,))
    tiles = {rng.randrange(tensor.rank): rng.randint(2, 3)} if rng.random() < 0.5 else {}
    schedule.cache_read(tensor, reader, tiles)


def _rfactor(rng: random.Random, schedule: Schedule) -> None:
    schedule.rfactor(_tensor(rng, schedule), 0, rng.randint(2, 3), rng.random() < 0.5)


def _pad(rng: random.Random, schedule: Schedule) -> None:
    schedule.pad(_loop(rng, schedule), rng.randint(2, 4))


def _peel(rng: random.Random, schedule: Schedule) -> None:
    schedule.peel(_loop(rng, schedule), rng.randint(1, 2), rng.choice(["first", "last"]))


def _skew(rng: random.Random, schedule: Schedule) -> None:
    loops = _loops(rng, schedule)
    if len(loops) > 1:
        outer, inner = sorted(rng.sample(range(len(loops)), 2))
        schedule.skew(loops[outer], loops[inner], rng.choice([-1, 1, 1, 2]))


def _dot(rng: random.Random, schedule: Schedule) -> None:
    schedule.dot(_loop(rng, schedule))


def _unroll_and_jam(rng: random.Random, schedule: Schedule) -> None:
    schedule.unroll_and_jam(_loop(rng, schedule), rng.randint(2, 3))


def _compute_root(rng: random.Random, schedule: Schedule) -> None:
    schedule.compute_root(_tensor(rng, schedule))


def _compute_with(rng: random.Random, schedule: Schedule) -> None:
    schedule.compute_with(_tensor(rng, schedule), _loop(rng, schedule))


def _tile(rng: random.Random, schedule: Schedule) -> None:
    loops = _loops(rng, schedule)
    schedule.tile(*((loop, rng.randint(2, 3)) for loop in loops[:2]))


def _serial(rng: random.Random, schedule: Schedule) -> None:
    schedule.serial(_loop(rng, schedule))


def _fold_storage(rng: random.Random, schedule: Schedule) -> None:
    tensor = _tensor(rng, schedule)
    schedule.fold_storage(tensor, rng.randrange(tensor.rank), rng.randint(1, 3))


def _pad_storage(rng: random.Random, schedule: Schedule) -> None:
    tensor = _tensor(rng, schedule)
    schedule.pad_storage(tensor, rng.randrange(tensor.rank), rng.randint(1, 3))


def _bind(rng: random.Random, schedule: Schedule) -> None:
    schedule.bind(_loop(rng, schedule), rng.choice(["block", "thread"]))


_PRIMITIVES: Sequence[Primitive] = (
    _split, _split, _split, _fuse, _reorder, _reorder, _parallel, _vectorize, _unroll, _compute_at, _compute_at,
    _compute_at, _inline, _cache_write, _cache_read, _rfactor,
)  # fmt: skip

_ALL: Sequence[Primitive] = (
    *_PRIMITIVES, _dot, _pad, _peel, _skew, _skew, _skew, _unroll_and_jam, _pad_storage, _bind, _compute_root, _tile,
    _serial, _reorder, _parallel, _parallel, _vectorize, _compute_with, _compute_with, _compute_with, _fold_storage,
    _fold_storage, _fold_storage,
)  # fmt: skip


def random_program(rng: random.Random) -> Schedule:
    """Stages in a chain, a stencil in time or a diamond of stages with two outputs; nothing scheduled."""
    make = rng.choice([_chain, _stencil_in_time, _stencil_in_time, _diamond])
    return make(rng)


def _chain(rng: random.Random) -> Schedule:
    kernel = random_kernel(rng)
    return Schedule(kernel.outputs, kernel.inputs, kernel.ranges, kernel.name)


def _stencil_in_time(rng: random.Random) -> Schedule:
    """A recurrence with random neighbours and constant or symbolic extents, now and then with a stage that reads it."""
    size, ranges = _extent(rng)
    steps, reach, back = rng.randint(2, 4), rng.choice([(-1, 1), (-1,), (1,), (0,), (2,)]), rng.randint(1, 2)
    x = te.placeholder((size,), "float64", "x")

    def body(u: Tensor, t: Expr, i: Expr) -> Expr:
        value: Expr = u[t - back, i]
        for shift in reach:
            value = value + select((i + shift >= 0) & (i + shift < size), u[t - 1, i + shift], const(3.0, "float64"))
        return select(t < back, x[i], value)

    u = te.recurrence((steps, size), body, "float64", "u")
    if rng.random() < 0.6:
        u = te.compute((size,), lambda i: u[steps - 1, i] * 2.0, "last")
    return Schedule(u, ranges=ranges)


def _diamond(rng: random.Random) -> Schedule:
    """A stage with two readers, one of them a reduction; both are outputs, or are added up."""
    size, ranges = _extent(rng)
    x, k = te.placeholder((size, 4), "float64", "x"), te.reduce_axis(4, "k")
    y = te.compute((size, 4), lambda i, j: x[i, j] * 2.0, "y")
    total = te.compute((size,), lambda i: te.sum(y[i, k], axis=k), "total")
    shifted = te.compute((size, 3), lambda i, j: y[i, j] - y[i, j + 1], "shifted")
    if rng.random() < 0.5:
        return Schedule([total, shifted], ranges=ranges)
    both = te.compute((size, 3), lambda i, j: shifted[i, j] + total[i], "both")
    return Schedule(both, ranges=ranges)


def _extent(rng: random.Random) -> tuple[te.Dim, dict[Var, tuple[int, int]]]:
    size = te.size("n")
    return (rng.randint(2, 6), {}) if rng.random() < 0.6 else (size, {size: (rng.randint(0, 1), 5)})


def random_decision(rng: random.Random) -> Kernel:
    """The kernel that the first refused primitive would have made; the last one when none was refused."""
    schedule = random_program(rng)
    for _ in range(rng.randint(2, 9)):
        trial = schedule.copy()
        trial.check = False
        state = rng.getstate()
        primitive = rng.choice(_ALL)
        try:
            primitive(rng, trial)
        except ScheduleError:
            continue
        rng.setstate(state)
        rng.choice(_ALL)
        try:
            primitive(rng, schedule)
        except IllegalScheduleError:
            return trial.kernel
    return schedule.kernel
