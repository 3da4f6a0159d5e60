"""Measuring on this machine: compile processes, and one process that times."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import queue
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future

from polycomp.decisions import Decisions
from polycomp.driver.work import flops, magnitude
from polycomp.runtime import ModuleParts
from polycomp.target import available_cores
from polycomp.tuner.bench import Measure, Measured, Reference
from polycomp.tuner.builder import Builder, build_candidate, build_plain, request_of
from polycomp.tuner.measurer import Measurer, Outcome, Trial
from polycomp.tuner.process import WorkerProcess
from polycomp.tuner.serving import ProcessFailure, Settings
from polycomp.tuner.status import Status
from polycomp.tuner.workload import Workload

_AHEAD = 4  # trials under way per compile process: some wait for the timing process
_PLAIN_FLOPS = 2e10  # plain loops of so much work take some seconds


@dataclasses.dataclass(frozen=True)
class Limits:
    """Seconds that compiling and running a candidate may take, each, and bytes of memory of each process.

    ``reference_seconds`` is for the reference, which includes plain loops.
    """

    compile_seconds: float = 20.0
    run_seconds: float = 10.0
    reference_seconds: float = 60.0
    memory_bytes: int = 6 << 30


@dataclasses.dataclass
class _Standing:
    """What candidates of a workload are measured against, as far as it is known."""

    library: ModuleParts
    plain: ModuleParts | None
    incumbent: ModuleParts | None = None
    seconds: tuple[float, float] | None = None  # of the library's own, and of the incumbent


class LocalPool(Measurer):
    """``jobs`` compile processes (0: one per core) and one timing process with as many cores as the workloads have
    threads.

    While something is timed the compile processes are stopped, so that they take neither cores nor caches from it.
    ``builder`` makes the modules of candidates.
    """

    def __init__(
        self, threads: int, jobs: int = 0, limits: Limits | None = None, builder: Builder = build_candidate
    ) -> None:
        self.limits, self._builder = limits or Limits(), builder
        memory, cores = self.limits.memory_bytes, sorted(os.sched_getaffinity(0))
        jobs = jobs or available_cores()
        self._builders = [WorkerProcess("polycomp.tuner.builder_process", Settings(memory)) for _ in range(jobs)]
        self._bench = WorkerProcess("polycomp.tuner.bench_process", Settings(memory, tuple(cores[-threads:])))
        self._to_build: queue.SimpleQueue[Trial | None] = queue.SimpleQueue()
        self._to_time: queue.SimpleQueue[tuple[Trial, ModuleParts] | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._standings: dict[str, Future[_Standing]] = {}
        self._lock = threading.Lock()
        self._under_way = 0
        tasks: list[Callable[[], None]] = [self._builder_loop(p) for p in self._builders]
        self._threads = [threading.Thread(target=task, daemon=True) for task in (*tasks, self._time_all)]
        for thread in self._threads:
            thread.start()

    @property
    def capacity(self) -> int:
        return _AHEAD * len(self._builders)

    def submit(self, trial: Trial) -> None:
        self._under_way += 1
        self._to_build.put(trial)

    def collect(self) -> Sequence[Outcome]:
        outcomes: list[Outcome] = []
        while self._under_way and (not outcomes or not self._done.empty()):
            outcomes.append(self._done.get())
            self._under_way -= 1
        return outcomes

    def close(self) -> None:
        for process in (*self._builders, self._bench):
            process.close()
        for _ in self._builders:
            self._to_build.put(None)
        self._to_time.put(None)
        for thread in self._threads:
            thread.join()

    # ------------------------------------------------------------------ compiling

    def _builder_loop(self, process: WorkerProcess) -> Callable[[], None]:
        def build_all() -> None:
            while (trial := self._to_build.get()) is not None:
                with self._telling(trial):
                    self._standing(trial.workload, process)
                    parts = self._build(process, self._builder, trial.workload, trial.decisions)
                    self._to_time.put((trial, parts))

        return build_all

    @contextlib.contextmanager
    def _telling(self, trial: Trial) -> Iterator[None]:
        """Whatever goes wrong within becomes the trial's outcome."""
        try:
            yield
        except ProcessFailure as failure:
            self._done.put(Outcome(trial.number, failure.status, error=failure.reason))
        except Exception as error:  # noqa: BLE001  (a thread that ends would leave its trials without outcomes)
            self._done.put(Outcome(trial.number, Status.CRASH, error=f"{type(error).__name__}: {error}"))

    def _build(self, process: WorkerProcess, builder: Builder, workload: Workload, decisions: Decisions) -> ModuleParts:
        limits = self.limits
        seconds = limits.compile_seconds if builder is self._builder and decisions else limits.reference_seconds
        parts: ModuleParts = process.request(request_of(builder, workload, decisions), seconds)
        return parts

    def _standing(self, workload: Workload, process: WorkerProcess) -> _Standing:
        """The reference of a workload: whoever asks first makes it, others wait for it."""
        with self._lock:
            future = self._standings.get(workload.key)
            mine = future is None
            future = self._standings.setdefault(workload.key, Future())
        if mine:
            try:
                future.set_result(self._make_standing(workload, process))
            except ProcessFailure as failure:
                reason = f"the library's own schedule of {workload.symbol} cannot be compiled: {failure.reason}"
                future.set_exception(ProcessFailure(failure.status, reason))
        return future.result()

    def _make_standing(self, workload: Workload, process: WorkerProcess) -> _Standing:
        library = self._build(process, build_candidate, workload, Decisions())
        if magnitude(flops(workload.outputs)) > _PLAIN_FLOPS:
            return _Standing(library, None)
        return _Standing(library, self._build(process, build_plain, workload, Decisions()))

    # ------------------------------------------------------------------ timing

    def _time_all(self) -> None:
        while (item := self._to_time.get()) is not None:
            trial, parts = item
            with self._telling(trial), self._quiet():
                measured = self._time(trial.workload, parts)
                self._done.put(Outcome(trial.number, Status.OK, measured.seconds, measured.samples))

    @contextlib.contextmanager
    def _quiet(self) -> Iterator[None]:
        """No compile process runs within."""
        for process in self._builders:
            process.pause()
        try:
            yield
        finally:
            for process in self._builders:
                process.resume()

    def _time(self, workload: Workload, parts: ModuleParts) -> Measured:
        standing = self._standings[workload.key].result()
        measured = self._ask(Measure(workload.key, parts))
        if measured.unknown:
            self._send_reference(workload, standing)
            measured = self._ask(Measure(workload.key, parts))
        assert standing.seconds is not None
        library, incumbent = standing.seconds
        if measured.seconds < incumbent:
            standing.incumbent, standing.seconds = parts, (library, measured.seconds)
        return measured

    def _ask(self, request: Measure) -> Measured:
        measured: Measured = self._bench.request(request, self.limits.run_seconds)
        return measured

    def _send_reference(self, workload: Workload, standing: _Standing) -> None:
        """Tell the timing process, which may be a new one, what the workload's candidates are measured against."""
        try:
            measured = self._bench.request(_reference(workload, standing), self.limits.reference_seconds)
        except ProcessFailure as failure:
            if standing.plain is None or failure.status is Status.WRONG:
                raise ProcessFailure(failure.status, f"the library's own schedule: {failure.reason}") from failure
            warnings.warn(
                f"the library's own schedule of {workload.symbol} is proven, but its results were not compared with "
                f"those of plain loops: {failure.reason}",
                stacklevel=2,
            )
            standing.plain = None
            measured = self._bench.request(_reference(workload, standing), self.limits.reference_seconds)
        standing.plain = None
        standing.seconds = standing.seconds or (measured.seconds, measured.seconds)


def _reference(workload: Workload, standing: _Standing) -> Reference:
    target = workload.target
    known = (standing.library, standing.plain, standing.incumbent, standing.seconds)
    return Reference(workload.key, target.cores, *known, workload.constants, target.l2_bytes)
