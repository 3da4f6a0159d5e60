"""A measurer that computes times from decisions: searches are tested without timing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from polycomp.decisions import Decisions
from polycomp.tuner.measurer import Measurer, Outcome, Trial
from polycomp.tuner.status import Status


def landscape(decisions: Decisions) -> float:
    """Seconds, with one best tile (of 6 rows by 2 vectors), better when packed, and a price of far requests."""
    tile = decisions.get("t2.tile") or (1, 1, 1)
    assert isinstance(tile, tuple)
    rows, vectors = tile[0] * tile[1], tile[2]
    time = 1.0 + abs(math.log2(rows / 6)) + abs(math.log2(vectors / 2))
    time += 0.5 * (not decisions.get("t2.pack"))
    return 1e-3 * (time + 0.05 * abs(math.log2((1 + int(str(decisions.get("t2.prefetch") or 0))) / 5)))


class Computed(Measurer):
    """Outcomes come in the order of ``turn``, and all at once. It fails where ``seconds`` gives None. ``library`` are
    the seconds that it tells of the library's own schedule, if any."""

    def __init__(
        self,
        seconds: Callable[[Decisions], float | None] = landscape,
        turn: int = -1,
        library: float | None = None,
    ) -> None:
        self.seconds, self.turn, self.library = seconds, turn, library
        self.waiting: list[Trial] = []
        self.seen: list[Trial] = []

    @property
    def capacity(self) -> int:
        return 8

    def submit(self, trial: Trial) -> None:
        self.seen.append(trial)
        self.waiting.append(trial)

    def collect(self) -> Sequence[Outcome]:
        waiting, self.waiting = self.waiting, []
        return [self._outcome(trial) for trial in waiting[:: self.turn]]

    def _outcome(self, trial: Trial) -> Outcome:
        seconds = self.seconds(trial.decisions)
        if seconds is None:
            return Outcome(trial.number, Status.CRASH, error="planted")
        return Outcome(trial.number, Status.OK, seconds, (seconds,), library=self.library)

    def close(self) -> None:
        self.waiting = []
