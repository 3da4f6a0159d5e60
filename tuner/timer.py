"""Timing candidates on one machine, which is told what they are measured against when it has to know."""

from __future__ import annotations

import dataclasses
import warnings

from polycomp.runtime import ModuleParts
from polycomp.tuner.bench import Measure, Measured, Reference
from polycomp.tuner.machine import Machine
from polycomp.tuner.serving import ProcessFailure
from polycomp.tuner.status import Status
from polycomp.tuner.workload import Workload


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
class Standing:
    """What candidates of a workload are measured against, on any machine.

    ``library`` is the kernel with the library's own schedule, ``plain`` one without a schedule, as long as the former
    was not compared with it.
    """

    library: ModuleParts
    plain: ModuleParts | None


@dataclasses.dataclass
class _Known:
    """What a machine found out about a workload: the seconds of the library's own schedule and of the best so far."""

    library: float
    best: float
    incumbent: ModuleParts | None = None


class Timer:
    """The timing process of ``machine``. Used from one thread."""

    def __init__(self, machine: Machine, limits: Limits) -> None:
        self._machine, self._limits = machine, limits
        self._known: dict[str, _Known] = {}

    def time(self, workload: Workload, standing: Standing, parts: ModuleParts) -> Measured:
        """Check and time a candidate. Raises :class:`ProcessFailure`, and :class:`MachineLostError`."""
        measured = self._ask(Measure(workload.key, parts))
        if measured.unknown:
            self._send_reference(workload, standing)
            measured = self._ask(Measure(workload.key, parts))
        known = self._known[workload.key]
        if measured.seconds < known.best:
            known.best, known.incumbent = measured.seconds, parts
        return measured

    def _ask(self, request: Measure) -> Measured:
        measured: Measured = self._machine.time(request, self._limits.run_seconds)
        return measured

    def _send_reference(self, workload: Workload, standing: Standing) -> None:
        """Tell the timing process, which may be a new one, what the workload's candidates are measured against."""
        try:
            measured = self._tell(workload, standing)
        except ProcessFailure as failure:
            if standing.plain is None or failure.status is Status.WRONG:
                raise ProcessFailure(failure.status, f"the library's own schedule: {failure.reason}") from failure
            warnings.warn(
                f"the library's own schedule of {workload.symbol} is proven, but its results were not compared with "
                f"those of plain loops: {failure.reason}",
                stacklevel=2,
            )
            standing.plain = None
            measured = self._tell(workload, standing)
        standing.plain = None
        self._known.setdefault(workload.key, _Known(measured.seconds, measured.seconds))

    def _tell(self, workload: Workload, standing: Standing) -> Measured:
        target, known = workload.target, self._known.get(workload.key)
        incumbent, seconds = (None, None) if known is None else (known.incumbent, (known.library, known.best))
        references = (standing.library, standing.plain, incumbent, seconds)
        request = Reference(workload.key, target.cores, *references, workload.constants, target.l2_bytes)
        measured: Measured = self._machine.time(request, self._limits.reference_seconds)
        return measured
