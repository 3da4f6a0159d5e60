"""What is launched on a GPU, and what it takes of it, as a table of the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polycomp.codegen.cuda.nvrtc import Resources
from polycomp.codegen.cuda.occupancy import occupancy
from polycomp.driver.report import Section, number_text
from polycomp.errors import TargetError
from polycomp.runtime.cuda.plan import DevicePlan, LaunchSpec


def launches(plan: DevicePlan, resources: Mapping[str, Any]) -> Section:
    """Every function that runs on a GPU: its blocks and threads, and what it takes on each architecture.

    ``resources`` is what :func:`polycomp.driver.device.build_device_module` keeps of each kernel. ``occupancy`` is the
    share of the threads that a multiprocessor has room for; memory is in bytes, of a block (shared) or a thread.
    """
    steps = {step.symbol: step for step in plan.steps}.values()
    rows = [
        (
            launch.function,
            number_text(launch.grid),
            str(launch.block),
            arch,
            *_taken(found[launch.function], launch, arch),
        )
        for step in steps
        for arch, found in resources.get(step.symbol, {}).items()
        for launch in step.on(arch)
        if launch.function in found
    ]
    headings = ("function", "blocks", "threads", "on", "registers", "shared", "local", "spilt", "occupancy")
    return Section("Launches on the GPU", headings, tuple(rows), (*headings[1:3], *headings[4:]))


def _taken(used: Mapping[str, int], launch: LaunchSpec, arch: str) -> tuple[str, ...]:
    taken = Resources(**used)
    spilt = taken.spill_store_bytes + taken.spill_load_bytes
    figures = (taken.registers, taken.shared_bytes + launch.shared_bytes, taken.stack_bytes, spilt)
    return (*(f"{figure:,}" for figure in figures), _occupancy(taken, launch, arch))


def _occupancy(taken: Resources, launch: LaunchSpec, arch: str) -> str:
    try:
        return f"{occupancy(taken, launch.block, launch.shared_bytes, arch):.0%}"
    except TargetError:  # an architecture of which only the compiler of the module knew
        return ""
