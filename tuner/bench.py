"""What the timing process does: it runs candidates, checks what they compute, and times them beside the best so far.

There is one per machine, so that nothing else is timed at the same time.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from polycomp.driver.closeness import disagreement
from polycomp.runtime import Module, ModuleParts, dims, load_parts
from polycomp.tuner.serving import ProcessFailure
from polycomp.tuner.status import Status
from polycomp.tuner.timing import Effort, Run, best_round, compare

Array = np.ndarray[Any, Any]
Feed = Mapping[str, Array]

OPEN_SIZE = 64
"""What sizes that are bound at run time are while tuning, where their range allows."""

_KEPT = 4  # workloads whose inputs are kept at the same time
_MOST_COPIES = 16  # of a workload's constants
_ROUNDS = 15  # that tell the time of the reference
_SETTLING_SECONDS = 0.1  # until the system has given the threads of a new process cores of their own


@dataclasses.dataclass(frozen=True)
class Reference:
    """What candidates of the workload ``key`` are measured against.

    ``library`` is its kernel with the library's own schedule; ``plain`` one without a schedule, by which the former is
    checked (None: it was checked before); ``incumbent`` the best so far (None: the library's own). ``seconds`` are the
    times of the library's own and of the incumbent (None: to be found out). ``constants`` are the positions of inputs
    that are weights, and ``cache_bytes`` is the size of the cache in which these must not be found.
    """

    key: str
    threads: int
    library: ModuleParts
    plain: ModuleParts | None
    incumbent: ModuleParts | None
    seconds: tuple[float, float] | None
    constants: tuple[int, ...]
    cache_bytes: int


@dataclasses.dataclass(frozen=True)
class Measure:
    """A request to time ``parts``, a candidate of the workload ``key``."""

    key: str
    parts: ModuleParts


@dataclasses.dataclass(frozen=True)
class Measured:
    """``seconds``, corrected for drift, and ``samples``, where the library's own schedule takes ``library`` seconds;
    ``unknown`` when the reference must be sent first."""

    seconds: float = 0.0
    samples: tuple[float, ...] = ()
    library: float = 0.0
    unknown: bool = False


class Bench:
    """Candidates of a few workloads, each beside its incumbent."""

    def __init__(self, effort: Effort) -> None:
        self.effort = effort
        self._setups: OrderedDict[str, _Setup] = OrderedDict()

    def answer(self, request: Any) -> Measured:
        """Serve a :class:`Reference` or a :class:`Measure`. Raises :class:`ProcessFailure` for wrong results."""
        if isinstance(request, Reference):
            self._setups[request.key] = setup = _Setup(request, self.effort)
            while len(self._setups) > _KEPT:
                self._setups.popitem(last=False)
            return Measured(setup.library_seconds, library=setup.library_seconds)
        known = self._setups.get(request.key)
        if known is None:
            return Measured(unknown=True)
        self._setups.move_to_end(request.key)
        return known.measure(request.parts)


class _Setup:
    """Inputs and expected outputs of a workload, and its incumbent."""

    def __init__(self, reference: Reference, effort: Effort) -> None:
        self.effort, self.threads = effort, reference.threads
        library = load_parts(reference.library, reference.threads)
        self.feeds = feeds_of(library, reference.constants, reference.cache_bytes)
        self.expected = self._results(library)
        if reference.plain is not None:
            found, self.expected = self.expected, self._results(load_parts(reference.plain, 1))
            self._check(found, "of the schedule library ")
        self.library = library
        self.incumbent = library if reference.incumbent is None else load_parts(reference.incumbent, self.threads)
        self.library_seconds, self.seconds = reference.seconds or (self._usual_seconds(), math.inf)
        self.seconds = min(self.seconds, self.library_seconds)

    def measure(self, parts: ModuleParts) -> Measured:
        """Check and time a candidate, which becomes the incumbent if it is faster.

        One that seems to be is timed again, beside the library's own: the fastest of many is so partly by luck, and if
        each incumbent's time were told by that of the one before, luck would add up. It is as slow as the slower of
        the two comparisons tells.
        """
        module = load_parts(parts, self.threads)
        self._check(self._results(module), "")
        run = runner(module, self.feeds)
        found = compare(run, runner(self.incumbent, self.feeds), self.effort)
        seconds = found.ratio * self.seconds
        if found.ratio >= 1:
            return Measured(seconds, found.samples, self.library_seconds)
        found = compare(run, runner(self.library, self.feeds), self.effort.twice)
        seconds = max(seconds, found.ratio * self.library_seconds)
        if seconds < self.seconds:
            self.incumbent, self.seconds = module, seconds
        return Measured(seconds, found.samples, self.library_seconds)

    def _usual_seconds(self) -> float:
        """The library's time, by which all others are told: the best of some rounds, as in comparisons."""
        run = runner(self.library, self.feeds)
        begin = time.monotonic()
        while time.monotonic() - begin < _SETTLING_SECONDS:
            run()
        return best_round(run, _ROUNDS, self.effort)

    def _results(self, module: Module) -> Feed:
        """The outputs as vectors: schedules may merge dimensions."""
        outputs = module.run(_shaped(self.feeds[0], module))
        return {name: array.reshape(-1) for name, array in outputs.items()}

    def _check(self, found: Feed, whose: str) -> None:
        for name, wanted in self.expected.items():
            problem = disagreement(found[name], wanted)[1]
            if problem:
                raise ProcessFailure(Status.WRONG, f"the result {name} {whose}{problem}")


def runner(module: Module, feeds: Sequence[Feed]) -> Run:
    """What runs a kernel's module once on the next of ``feeds``, and tells the seconds that the kernel took."""
    turns: Iterator[Feed] = itertools.cycle([_shaped(feed, module) for feed in feeds])
    return lambda: module.run_profiled(next(turns))[1][0].nanoseconds * 1e-9


def _shapes(module: Module) -> dict[str, tuple[int, ...]]:
    """The shapes of the inputs, with open sizes chosen."""
    sizes = {s.name: _open_size(s.minimum, s.maximum) for s in module.manifest.symbols}
    return {spec.name: tuple(dims.evaluate(d, sizes) for d in spec.shape) for spec in module.inputs}


def _shaped(feed: Feed, module: Module) -> Feed:
    return {name: feed[name].reshape(shape) for name, shape in _shapes(module).items()}


def example_feed(module: Module) -> Feed:
    """Random inputs."""
    return _shaped(feeds_of(module, (), 0)[0], module)


def feeds_of(module: Module, constants: Sequence[int], cache_bytes: int) -> Sequence[Feed]:
    """Random inputs as vectors, several times: with the same activations, and constants of their own.

    All copies of the ``constants`` (positions of inputs) together are twice as large as a cache of ``cache_bytes``, as
    other layers' weights are in a model.
    """
    random, shapes = np.random.default_rng(0), _shapes(module)
    feed = {spec.name: _random(math.prod(shapes[spec.name]), spec.dtype, random) for spec in module.inputs}
    names = [module.inputs[i].name for i in constants]
    total = sum(feed[name].nbytes for name in names)
    copies = min(_MOST_COPIES, -(-2 * cache_bytes // total)) if total else 1
    return [feed, *({**feed, **{n: feed[n].copy() for n in names}} for _ in range(copies - 1))]


def _open_size(low: int, high: int | None) -> int:
    return max(low, min(OPEN_SIZE, OPEN_SIZE if high is None else high))


def _random(count: int, dtype: str, random: np.random.Generator) -> Array:
    """Normal floats; integers and bools are 0 or 1, which suits masks, token and class numbers alike."""
    if dtype.startswith("float"):
        return random.standard_normal(count).astype(dtype)
    return random.integers(0, 2, count).astype(dtype)
