"""The one frozen record of how to compile, read once at the edge (CLI or API)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from polycomp.decisions import Decisions
from polycomp.dtypes import DType
from polycomp.errors import InputError
from polycomp.target import Target, check_threads, host_target

PRECISIONS = ("float32", "float16", "bfloat16")
"""What ``Options.precision`` may be."""


@dataclasses.dataclass(frozen=True)
class Options:
    """``threads`` the module will be run with (0: all that are available); ``shapes`` fixes input shapes by name;
    ``decisions`` are made otherwise than the schedule library would, by the symbol of the kernel; those of a tuning log
    are ``tuned``: they are left out, with a warning, where they do not fit; of these, kernels in ``tuned_near`` were
    measured on a near target. ``precision`` is the element type in which data of float32 is kept where that is safe
    (``passes/precision``), but for the operators and nodes that ``keep_float32`` names.
    Raises :class:`InputError` for what is no number of threads, no precision or no name."""

    target: Target = dataclasses.field(default_factory=host_target)
    threads: int = 0
    shapes: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    cache: bool = True
    jobs: int = 0  # compile processes; 0: one per available core
    verify: bool = False  # check every IR after every pass
    decisions: Mapping[str, Decisions] = dataclasses.field(default_factory=dict)
    tuned: Mapping[str, Decisions] = dataclasses.field(default_factory=dict)
    tuned_near: frozenset[str] = frozenset()
    precision: str = "float32"
    keep_float32: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_threads(self.threads)
        check_precision(self.precision, self.keep_float32)

    @property
    def narrow(self) -> DType | None:
        """The element type of 16 bits that data is kept in where that is safe; None: data is left as it is."""
        return None if self.precision == "float32" else DType(self.precision)

    @property
    def precision_key(self) -> str:
        """A text that is equal for equal precisions."""
        return f"{self.precision} {sorted(set(self.keep_float32))}"

    def decisions_for(self, symbol: str) -> Decisions:
        """Those for the kernel of that symbol."""
        return self.decisions.get(symbol) or self.tuned.get(symbol) or Decisions()

    def is_advised(self, symbol: str) -> bool:
        """Whether they are only advice, from a tuning log."""
        return symbol in self.tuned and symbol not in self.decisions

    @property
    def decisions_key(self) -> str:
        """A text that is equal for equal decisions."""
        both = (self.decisions, self.tuned)
        return repr([sorted((symbol, made.key) for symbol, made in those.items() if made) for those in both])

    @property
    def kernel_target(self) -> Target:
        """The target as schedules see it: a CPU's cores are those that the module will be run on."""
        if self.target.is_gpu or self.threads == 0:
            return self.target
        return dataclasses.replace(self.target, cores=self.threads)


def check_precision(precision: object, keep_float32: Iterable[object]) -> None:
    """Raise :class:`InputError` for a precision that there is not, and for names that mean nothing."""
    if precision not in PRECISIONS:
        raise InputError(f"precision is {precision!r}; give one of {', '.join(PRECISIONS)}")
    if isinstance(keep_float32, str) or not all(isinstance(name, str) and name for name in keep_float32):
        raise InputError(f"keep_float32 is {keep_float32!r}; give a sequence of names of operators or nodes")
    if precision == "float32" and keep_float32:
        raise InputError("keep_float32 is for what another precision leaves alone; give that, or leave it out")
