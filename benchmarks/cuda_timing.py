"""Timing work on a GPU: events around replays of graphs, in interleaved rounds; and sections that share a time.

Nothing here needs a GPU to be imported: torch is a parameter.
"""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import rich.table
from measure import Array

BLOCK_SECONDS = 0.03
"""Aim for the timed part of one subject in one round."""

_MOST_CALLS = 2000

Subject = Callable[[int], float]
"""Does its work so many times, one after the other, and gives the seconds that the GPU took per time."""

Row = Mapping[str, Any]
"""The figures of a line of a table, by name; ``failure`` says why some are missing."""


class Replay:
    """A compiled module for GPUs on some inputs: all its launches as one graph, as every run after the first has them.

    ``outputs`` are what ``module`` computes. A replay is what the GPU does in a run, without the copies of inputs and
    outputs.
    """

    def __init__(self, module: Any, feeds: Mapping[str, Array]) -> None:
        if not hasattr(module, "session"):
            module.run(feeds)  # what could not be loaded says why
        session = module.session()
        self.module = module
        self.outputs: Mapping[str, Array] = {}
        for _ in range(3):  # launch by launch, captured, and replayed
            self.outputs = session.run(feeds)
        # The runtime times single steps only, and a session of its own holds just this one graph.
        self._session = session._session
        (self._run,) = self._session._runs.values()
        self._device = module.device

    def seconds(self, count: int) -> float:
        """See :data:`Subject`."""
        stream = self._session._stream
        with self._device.active():
            start = stream.record()
            for _ in range(count):
                self._run.enqueue()
            end = stream.record()
            stream.synchronize()
            return 1e-9 * float(self._device.nanoseconds(start, end)) / count


def torch_calls(torch: Any, function: Callable[[], Any]) -> Subject:
    """Calls of a function of torch's, as its users make them."""

    def seconds(count: int) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(count):
            function()
        end.record()
        end.synchronize()
        return 1e-3 * float(start.elapsed_time(end)) / count

    return seconds


def torch_graph(torch: Any, function: Callable[[], Any]) -> Subject:
    """Replays of a function of torch's, captured as a graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # libraries choose and allocate on the first calls, which must not be captured
        for _ in range(3):
            function()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return torch_calls(torch, graph.replay)


def race(subjects: Mapping[str, Subject], rounds: int) -> dict[str, float]:
    """Median seconds of each subject; each round times all of them, in an order that turns."""
    counts = {name: _count(subject) for name, subject in subjects.items()}
    times: dict[str, list[float]] = {name: [] for name in subjects}
    names = list(subjects)
    for number in range(rounds):
        turn = number % max(1, len(names))
        for name in names[turn:] + names[:turn]:
            times[name].append(subjects[name](counts[name]))
    return {name: statistics.median(values) for name, values in times.items()}


def _count(subject: Subject) -> int:
    subject(1)  # the first time is slower
    return max(1, min(_MOST_CALLS, round(BLOCK_SECONDS / max(subject(3), 1e-9))))


# Sections


class OutOfTime(BaseException):
    """The time of a section is over. Not an Exception: what a benchmark does about failures does not catch it."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises :class:`OutOfTime` in the block when it lasts longer. For the main thread."""

    def ring(number: int, frame: Any) -> None:
        raise OutOfTime

    previous = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-6))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


@dataclasses.dataclass(frozen=True)
class Column:
    """A table's column: the figure ``key`` of each row, in ``unit``, as ``form`` has it."""

    head: str
    key: str
    form: str = ""
    unit: float = 1

    def cell(self, row: Row) -> str:
        value = row.get(self.key)
        if value is None:
            return "-"
        return format(value if self.unit == 1 else value / self.unit, self.form)


@dataclasses.dataclass(frozen=True)
class Section:
    """A table: ``measure`` yields its rows one by one. ``weight`` is its share of the time."""

    name: str
    title: str
    weight: float
    columns: Sequence[Column]
    measure: Callable[[], Iterable[Row]]


@dataclasses.dataclass
class Outcome:
    """The rows that a section yielded, and why it ended early, if it did."""

    section: Section
    rows: list[Row] = dataclasses.field(default_factory=list)
    note: str = ""

    @property
    def failures(self) -> list[str]:
        return [f"{row.get('name', '')}: {row['failure']}" for row in self.rows if row.get("failure")]

    def table(self) -> rich.table.Table:
        table = rich.table.Table(title=self.section.title, caption=self.note or None)
        for number, column in enumerate(self.section.columns):
            table.add_column(column.head, justify="right" if number else "left", no_wrap=number == 0)
        for row in self.rows:
            table.add_row(*(column.cell(row) for column in self.section.columns))
        return table


def run_sections(
    sections: Sequence[Section], seconds: float, clock: Callable[[], float] = time.monotonic
) -> Iterator[Outcome]:
    """Measure one section after the other, in ``seconds`` together. What one leaves of its share is for those behind.

    A section that takes longer than its share, or fails, has the rows that it had until then.
    """
    end = clock() + seconds
    for number, section in enumerate(sections):
        share = section.weight / sum(s.weight for s in sections[number:])
        outcome = Outcome(section)
        limit = share * (end - clock())
        try:
            with time_limit(limit):
                for row in section.measure():
                    outcome.rows.append(row)
        except OutOfTime:
            outcome.note = f"cut after {limit:.0f} s: the rest is missing"
        except Exception as error:  # noqa: BLE001 - the sections behind are of interest all the same
            outcome.note = f"ended by {type(error).__name__}: {error}"
        yield outcome
