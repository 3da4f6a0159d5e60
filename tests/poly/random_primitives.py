"""Random schedules made of the schedule language's own primitives."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from random_trees import random_kernel

from polycomp.errors import ScheduleError
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
    schedule.rfactor(_tensor(rng, schedule), 0, rng.randint(2, 3))


_PRIMITIVES: Sequence[Primitive] = (
    _split, _split, _split, _fuse, _reorder, _reorder, _parallel, _vectorize, _unroll, _compute_at, _compute_at,
    _compute_at, _inline, _cache_write, _cache_read, _rfactor,
)  # fmt: skip
