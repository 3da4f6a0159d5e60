"""Measuring on machines: their compile processes take trials from one queue, their timing processes from another."""

from __future__ import annotations

import contextlib
import functools
import queue
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future

from polycomp.decisions import Decisions
from polycomp.driver.work import flops, magnitude
from polycomp.errors import FleetError
from polycomp.runtime import ModuleParts
from polycomp.target import available_cores
from polycomp.tuner.builder import Builder, build_candidate, build_plain, request_of
from polycomp.tuner.machine import LocalMachine, Machine, MachineLostError
from polycomp.tuner.measurer import Measurer, Outcome, Trial
from polycomp.tuner.serving import ProcessFailure
from polycomp.tuner.status import Status
from polycomp.tuner.timer import Limits, Standing, Timer
from polycomp.tuner.workload import Workload

_AHEAD = 4  # trials that wait for each timing process
_MOST_LOSSES = 2  # machines that may be lost during a trial before it is taken to be the reason
_PLAIN_FLOPS = 2e10  # plain loops of so much work take some seconds

_Item = tuple[Trial, ModuleParts]
_Build = Callable[[Workload, Decisions, Builder], ModuleParts]


class _AbandonedError(Exception):
    """The machine that was to make a reference was lost."""


class Pool(Measurer):
    """Measures on ``machines``. ``builder`` makes the modules of candidates.

    A trial during which its machine is lost goes to another, and is a crash when it was lost there as well.
    """

    def __init__(self, machines: Sequence[Machine], limits: Limits, builder: Builder = build_candidate) -> None:
        self.machines, self.limits, self._builder = machines, limits, builder
        self._to_build: queue.SimpleQueue[Trial | None] = queue.SimpleQueue()
        self._to_time: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Outcome | None] = queue.SimpleQueue()  # None: no machine is left
        self._standings: dict[str, Future[Standing]] = {}
        self._losses: defaultdict[int, set[str]] = defaultdict(set)  # machines by trial
        self._lock = threading.Lock()
        self._under_way = 0
        self._last_words = ""
        builders = [self._builder_loop(m, job) for m in machines for job in range(m.jobs)]
        timers = [self._timer_loop(m) for m in machines if m.times]
        self._left = {"compiles": len(builders), "times": len(timers)}
        self._threads = [threading.Thread(target=task, daemon=True) for task in (*builders, *timers)]
        for thread in self._threads:
            thread.start()

    @property
    def capacity(self) -> int:
        return self._left["compiles"] + _AHEAD * self._left["times"]

    def submit(self, trial: Trial) -> None:
        self._under_way += 1
        self._to_build.put(trial)

    def collect(self) -> Sequence[Outcome]:
        """Raises :class:`FleetError` when trials are under way that no machine is left for."""
        outcomes: list[Outcome] = []
        while self._under_way and (not outcomes or not self._done.empty()):
            outcome = self._done.get()
            if outcome is None:
                self._done.put(None)
                if outcomes:
                    break
                raise FleetError(f"{self._last_words}; what was measured before is in the log")
            outcomes.append(outcome)
            self._under_way -= 1
        return outcomes

    def close(self) -> None:
        for machine in self.machines:
            machine.close()
        for _ in self._threads:
            self._to_build.put(None)
            self._to_time.put(None)
        for thread in self._threads:
            thread.join()

    @contextlib.contextmanager
    def _telling(self, trial: Trial) -> Iterator[None]:
        """Whatever goes wrong within becomes the trial's outcome, but the loss of the machine."""
        try:
            yield
        except MachineLostError:
            raise
        except ProcessFailure as failure:
            self._done.put(Outcome(trial.number, failure.status, error=failure.reason))
        except Exception as error:  # noqa: BLE001  (a thread that ends would leave its trials without outcomes)
            self._done.put(Outcome(trial.number, Status.CRASH, error=f"{type(error).__name__}: {error}"))

    @contextlib.contextmanager
    def _surviving(self, machine: Machine, trial: Trial, again: Callable[[], None], what: str) -> Iterator[None]:
        """When the machine is lost within, the trial is done ``again`` elsewhere, unless it may be what kills them."""
        try:
            yield
        except MachineLostError as lost:
            with self._lock:
                self._losses[trial.number].add(machine.name)
                self._left[what] -= 1
                if not self._left[what]:
                    self._last_words = f"no machine is left that {what}; of the last: {lost}"
                    self._done.put(None)
            if len(self._losses[trial.number]) < _MOST_LOSSES:
                again()
            else:
                reason = f"{_MOST_LOSSES} machines were lost that tried it; of the last: {lost}"
                self._done.put(Outcome(trial.number, Status.CRASH, error=reason))
            raise

    # ------------------------------------------------------------------ compiling

    def _builder_loop(self, machine: Machine, job: int) -> Callable[[], None]:
        def build(workload: Workload, decisions: Decisions, builder: Builder) -> ModuleParts:
            limits = self.limits
            seconds = limits.compile_seconds if builder is self._builder and decisions else limits.reference_seconds
            parts: ModuleParts = machine.build(job, request_of(builder, workload, decisions), seconds)
            return parts

        def build_one(trial: Trial) -> None:
            again = functools.partial(self._to_build.put, trial)
            with self._surviving(machine, trial, again, "compiles"), self._telling(trial):
                self._standing(trial.workload, build)
                self._to_time.put((trial, build(trial.workload, trial.decisions, self._builder)))

        def build_all() -> None:
            with contextlib.suppress(MachineLostError):
                while (trial := self._to_build.get()) is not None:
                    build_one(trial)

        return build_all

    def _standing(self, workload: Workload, build: _Build) -> None:
        """The reference of a workload: whoever asks first makes it, others wait for it."""
        while True:
            with self._lock:
                future = self._standings.get(workload.key)
                mine = future is None
                future = self._standings.setdefault(workload.key, Future())
            if mine:
                self._make_standing(workload, build, future)
            with contextlib.suppress(_AbandonedError):
                future.result()
                return

    def _make_standing(self, workload: Workload, build: _Build, future: Future[Standing]) -> None:
        try:
            library = build(workload, Decisions(), build_candidate)
            short = magnitude(flops(workload.outputs)) <= _PLAIN_FLOPS
            future.set_result(Standing(library, build(workload, Decisions(), build_plain) if short else None))
        except ProcessFailure as failure:
            reason = f"the library's own schedule of {workload.symbol} cannot be compiled: {failure.reason}"
            future.set_exception(ProcessFailure(failure.status, reason))
        except MachineLostError:
            with self._lock:
                del self._standings[workload.key]
            future.set_exception(_AbandonedError())
            raise
        except Exception as error:  # noqa: BLE001  (raised where the result is asked for)
            future.set_exception(error)

    # ------------------------------------------------------------------ timing

    def _timer_loop(self, machine: Machine) -> Callable[[], None]:
        timer = Timer(machine, self.limits)

        def time_one(item: _Item) -> None:
            trial, parts = item
            again = functools.partial(self._to_time.put, item)
            with self._surviving(machine, trial, again, "times"), self._telling(trial):
                standing = self._standings[trial.workload.key].result()
                found = timer.time(trial.workload, standing, parts)
                self._done.put(Outcome(trial.number, Status.OK, found.seconds, found.samples, library=found.library))

        def time_all() -> None:
            with contextlib.suppress(MachineLostError):
                while (item := self._to_time.get()) is not None:
                    time_one(item)

        return time_all


class LocalPool(Pool):
    """This machine: ``jobs`` compile processes (0: one per core) and one timing process with as many cores as the
    workloads have threads."""

    def __init__(
        self, threads: int, jobs: int = 0, limits: Limits | None = None, builder: Builder = build_candidate
    ) -> None:
        limits = limits or Limits()
        self.machine = LocalMachine("this machine", jobs or available_cores(), threads, limits.memory_bytes)
        super().__init__([self.machine], limits, builder)

    def thinking(self) -> contextlib.AbstractContextManager[None]:
        return self.machine.turns.thinking()
