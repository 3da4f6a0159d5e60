"""Trials, their outcomes, and the interface of everything that turns the ones into the others."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
from collections.abc import Sequence
from types import TracebackType

from polycomp.decisions import Decisions
from polycomp.tuner.status import Status
from polycomp.tuner.workload import Workload


@dataclasses.dataclass(frozen=True, eq=False)
class Trial:
    """A workload with decisions, to be measured. ``number`` is unique among those that are under way."""

    number: int
    workload: Workload
    decisions: Decisions


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of the trial of that ``number``.

    ``seconds`` is the time of a run, corrected for drift of the machine's speed; ``samples`` are the seconds of single
    runs as they were measured. Both are empty unless the status is OK. ``error`` says what went wrong. ``library`` are
    the seconds of the library's own schedule on the same machine, beside which ``seconds`` were found.
    """

    number: int
    status: Status
    seconds: float | None = None
    samples: tuple[float, ...] = ()
    error: str = ""
    library: float | None = None


class Measurer(abc.ABC):
    """Measures trials: a local pool of processes, or a fleet of machines. A context manager.

    Trials may be submitted at any time, and come back in any order. No trial raises: whatever happens to it is its
    outcome. Interrupting :meth:`collect` loses nothing that was returned before.
    """

    @property
    @abc.abstractmethod
    def capacity(self) -> int:
        """How many submitted trials keep it busy."""

    @abc.abstractmethod
    def submit(self, trial: Trial) -> None:
        """Take over a trial; returns at once."""

    @abc.abstractmethod
    def collect(self) -> Sequence[Outcome]:
        """Outcomes that have not been collected yet: waits for at least one while any trial is under way."""

    def thinking(self) -> contextlib.AbstractContextManager[None]:
        """To be entered by whoever computes for long in this process: where that would disturb what is timed, one
        waits for the other."""
        return contextlib.nullcontext()

    @abc.abstractmethod
    def close(self) -> None:
        """Give up whatever is under way, and free all processes."""

    def __enter__(self) -> Measurer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
