"""The schedule language, and the library of schedules written in it."""

from polycomp.schedules.schedule import Explanation, LoopRef, Schedule, Stage, Step, Trace

__all__ = ["Explanation", "LoopRef", "Schedule", "Stage", "Step", "Trace"]
