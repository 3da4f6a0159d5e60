"""The one frozen record of how to compile, read once at the edge (CLI or API)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from polycomp.decisions import Decisions
from polycomp.target import Target, host_target


@dataclasses.dataclass(frozen=True)
class Options:
    """``threads`` the module will be run with (0: all that are available); ``shapes`` fixes input shapes by name;
    ``decisions`` are made otherwise than the schedule library would, by the symbol of the kernel."""

    target: Target = dataclasses.field(default_factory=host_target)
    threads: int = 0
    shapes: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    cache: bool = True
    jobs: int = 0  # compile processes; 0: one per available core
    verify: bool = False  # check every IR after every pass
    decisions: Mapping[str, Decisions] = dataclasses.field(default_factory=dict)

    def decisions_for(self, symbol: str) -> Decisions:
        """Those for the kernel of that symbol."""
        return self.decisions.get(symbol, Decisions())

    @property
    def decisions_key(self) -> str:
        """A text that is equal for equal decisions."""
        return repr(sorted((symbol, made.key) for symbol, made in self.decisions.items() if made))

    @property
    def kernel_target(self) -> Target:
        """The target as schedules see it: its cores are those that the module will be run on."""
        return dataclasses.replace(self.target, cores=self.threads) if self.threads > 0 else self.target
