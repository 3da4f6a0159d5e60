"""The schedule language, and the library of schedules written in it."""

from polycomp.schedules.schedule import LoopRef, Schedule, Stage, Step

__all__ = ["LoopRef", "Schedule", "Stage", "Step"]
