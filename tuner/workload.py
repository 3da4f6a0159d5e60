"""What is tuned: one kernel on one target, under a key that equal kernels of all models share."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence

from polycomp.decisions import Chooser, Decisions
from polycomp.driver.cache import key_of
from polycomp.driver.canonical import canonicalize
from polycomp.driver.lower import Call
from polycomp.expr import Interval, Var
from polycomp.schedules import Schedule
from polycomp.schedules.library.choose import build_schedule
from polycomp.target import Target
from polycomp.te import Tensor, topological_order

_LIBRARY = Decisions()
_SYMBOL_DIGITS = 16


@dataclasses.dataclass(frozen=True, eq=False)
class Workload:
    """A kernel in canonical form. ``symbol`` is its name in modules, ``key`` the digest of its canonical text;
    ``constants`` are the positions of inputs that are weights. ``target.cores`` threads run it.
    """

    symbol: str
    key: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    ranges: Mapping[Var, Interval]
    constants: tuple[int, ...]
    target: Target

    def schedule(self, chooser: Chooser = _LIBRARY) -> Schedule:
        """The library's schedule, with the decisions of ``chooser``; not yet proven.

        Raises :class:`ScheduleError` for decisions that do not fit.
        """
        return build_schedule(self.symbol, self.inputs, self.outputs, self.ranges, self.target, chooser)

    def plain(self) -> Schedule:
        """The loops of the definition, which compute vectors where each stage's last dimension allows it: nothing of
        the schedule library, and yet quick enough to check by."""
        schedule = Schedule(self.outputs, self.inputs, self.ranges, self.symbol, check=False)
        for tensor in topological_order(self.outputs):
            if tensor.body is not None and tensor.rank and isinstance(tensor.shape[-1], int):
                _vectorize_last(schedule, tensor, self.target)
        return schedule


def _vectorize_last(schedule: Schedule, tensor: Tensor, target: Target) -> None:
    """Sums go around the last dimension, which becomes vectors."""
    loops = schedule[tensor].loops
    *spatial, last = loops[: tensor.rank]
    schedule.reorder(*spatial, *loops[tensor.rank :], last)
    _, vector = schedule.split(last, target.lanes(4))
    schedule.vectorize(vector)


def workload_of_call(call: Call, constants: Collection[str], target: Target) -> Workload:
    """The kernel of a call of a lowered model; ``constants`` are the model's weights by name."""
    kernel = call.kernel
    weights = tuple(i for i, name in enumerate(call.inputs) if name in constants)
    return Workload(call.symbol, key_of(kernel.text), kernel.inputs, kernel.outputs, kernel.ranges, weights, target)


def workload_of_tensors(
    stem: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor], target: Target, constants: tuple[int, ...] = ()
) -> Workload:
    """The kernel that computes ``outputs``; its symbol begins with ``stem``."""
    kernel = canonicalize(inputs, outputs, {})
    key = key_of(kernel.text)
    symbol = f"{stem}_{key[:_SYMBOL_DIGITS]}"
    return Workload(symbol, key, kernel.inputs, kernel.outputs, kernel.ranges, constants, target)
