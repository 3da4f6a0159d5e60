"""What the classes that schedule one stage have in common."""

from __future__ import annotations

from collections.abc import Sequence

from polycomp.decisions import Choice
from polycomp.schedules.schedule import Schedule
from polycomp.te import Tensor


class Deciding:
    """The steps of scheduling ``stage``, after which its decisions are named."""

    def __init__(self, schedule: Schedule, stage: Tensor) -> None:
        self.schedule = schedule
        self._stage = stage

    def _decide(self, what: str, value: Choice, alternatives: Sequence[Choice]) -> Choice:
        return self.schedule.decide(f"{self._stage.name}.{what}", value, alternatives)
