"""The one frozen record of how to compile, read once at the edge (CLI or API)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from polycomp.target import Target, host_target


@dataclasses.dataclass(frozen=True)
class Options:
    """``threads`` the module will be run with (0: all that are available); ``shapes`` fixes input shapes by name."""

    target: Target = dataclasses.field(default_factory=host_target)
    threads: int = 0
    shapes: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    cache: bool = True
    jobs: int = 0  # compile processes; 0: one per available core
    verify: bool = False  # check every IR after every pass
