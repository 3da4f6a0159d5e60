"""A machine that compiles candidates, times them, or both: this one, or a node of a cluster."""

from __future__ import annotations

import abc
import contextlib
import os
from collections.abc import Iterator
from typing import Any

from polycomp.tuner.process import WorkerProcess
from polycomp.tuner.serving import Settings
from polycomp.tuner.turns import Turns


class MachineLostError(Exception):
    """The machine cannot be reached any more. It is no outcome of the request during which that was noticed."""


class Machine(abc.ABC):
    """``jobs`` compile processes, and one process that times where it ``times``.

    Its methods are called from several threads: one per job, and one that times.
    """

    def __init__(self, name: str, jobs: int, times: bool) -> None:
        self.name, self.jobs, self.times = name, jobs, times

    @abc.abstractmethod
    def build(self, job: int, request: Any, seconds: float) -> Any:
        """The answer of the compile process of that number. Raises :class:`ProcessFailure` when there is none in so
        many seconds, and :class:`MachineLostError`."""

    @abc.abstractmethod
    def time(self, request: Any, seconds: float) -> Any:
        """The answer of the timing process, while no compile process of the machine runs. Raises as :meth:`build`."""

    @abc.abstractmethod
    def close(self) -> None:
        """End all processes, whatever they do, for good."""


class LocalMachine(Machine):
    """This machine. ``memory_bytes`` is the limit of each process; ``threads`` of the last cores are those that the
    timing process runs on (0: there is none). What this process computes meanwhile takes ``turns`` with timing."""

    def __init__(self, name: str, jobs: int, threads: int, memory_bytes: int) -> None:
        super().__init__(name, jobs, threads > 0)
        self.turns = Turns()
        builder, cores = Settings(memory_bytes), sorted(os.sched_getaffinity(0))
        self.builders = [WorkerProcess("polycomp.tuner.builder_process", builder) for _ in range(jobs)]
        self.bench = WorkerProcess("polycomp.tuner.bench_process", Settings(memory_bytes, tuple(cores[-threads:])))

    def build(self, job: int, request: Any, seconds: float) -> Any:
        """Ask one of :attr:`builders`."""
        return self.builders[job].request(request, seconds)

    def time(self, request: Any, seconds: float) -> Any:
        """Ask :attr:`bench`: neither compile processes nor this one take cores or caches from it."""
        with self.turns.timing(), self._quiet():
            return self.bench.request(request, seconds)

    def close(self) -> None:
        """End the processes."""
        for process in (*self.builders, self.bench):
            process.close()

    @contextlib.contextmanager
    def _quiet(self) -> Iterator[None]:
        for process in self.builders:
            process.pause()
        try:
            yield
        finally:
            for process in self.builders:
                process.resume()
