"""The one frozen record of how to compile, read once at the edge (CLI or API)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from polycomp.decisions import Decisions
from polycomp.target import Target, check_threads, host_target


@dataclasses.dataclass(frozen=True)
class Options:
    """``threads`` the module will be run with (0: all that are available); ``shapes`` fixes input shapes by name;
    ``decisions`` are made otherwise than the schedule library would, by the symbol of the kernel; those of a tuning log
    are ``tuned``: they are left out, with a warning, where they do not fit; of these, kernels in ``tuned_near`` were
    measured on a near target. Raises :class:`InputError` for what is no number of threads."""

    target: Target = dataclasses.field(default_factory=host_target)
    threads: int = 0
    shapes: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    cache: bool = True
    jobs: int = 0  # compile processes; 0: one per available core
    verify: bool = False  # check every IR after every pass
    decisions: Mapping[str, Decisions] = dataclasses.field(default_factory=dict)
    tuned: Mapping[str, Decisions] = dataclasses.field(default_factory=dict)
    tuned_near: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        check_threads(self.threads)

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
        """The target as schedules see it: its cores are those that the module will be run on."""
        return dataclasses.replace(self.target, cores=self.threads) if self.threads > 0 else self.target
