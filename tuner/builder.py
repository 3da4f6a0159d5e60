"""What the tuner's compile processes do: they make modules of workloads with decisions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from polycomp import te
from polycomp.decisions import Decisions
from polycomp.native import build
from polycomp.runtime import ModuleParts
from polycomp.schedules import Schedule
from polycomp.target import host_target
from polycomp.te import topological_order
from polycomp.tuner.pruning import check_resources
from polycomp.tuner.workload import Workload

Builder = Callable[[Workload, Decisions], ModuleParts]
"""Makes a module of a workload's kernel. It must be found by its name when it travels in a pickle."""


def build_candidate(workload: Workload, decisions: Decisions) -> ModuleParts:
    """The module of a workload with ``decisions``.

    Raises :class:`ScheduleError` where they do not fit, are hopeless, or cannot be proven to compute the same.
    """
    schedule = workload.schedule(decisions)
    if decisions:  # the library's own choice is never hopeless
        check_resources(schedule, workload.target)
    return build(schedule, workload.target, workload.target.cores).parts


def build_plain(workload: Workload, decisions: Decisions) -> ModuleParts:
    """The module of a workload's definition, with no schedule."""
    return build(workload.plain(), workload.target, 1).parts


def request_of(builder: Builder, workload: Workload, decisions: Decisions) -> Any:
    """The message that asks for ``builder(workload, decisions)``.

    Tensors go ahead of what uses them: a long chain pickled from its end would recurse too deeply.
    """
    return topological_order(workload.outputs), builder, workload, decisions


def answer(request: Any) -> ModuleParts:
    """Serve such a message."""
    _, builder, workload, decisions = request
    parts: ModuleParts = builder(workload, decisions)
    return parts


def warm_up() -> None:
    """Make a first module, in which LLVM registers its targets and what all modules share is compiled: that is no
    candidate's time."""
    x = te.placeholder((1,), name="x")
    y = te.compute((1,), lambda i: x[i] + 1.0, "y")
    build(Schedule(y), host_target(), 1).parts  # noqa: B018  (made when it is asked for)
