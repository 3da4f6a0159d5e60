"""Runs for known shapes, with as little between the call and the native code as Python allows."""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from polycomp.errors import ExecutionError
from polycomp.runtime.direct import ArgumentPlan, declined, direct_call
from polycomp.runtime.frame import Array, Frames, RunPlan, WrongIndex
from polycomp.runtime.image import ModuleImage
from polycomp.runtime.library import Library, SharedPool
from polycomp.runtime.manifest import Manifest

_DIRECT_SCRATCH = 1 << 20
"""Bytes. A run with more takes so long that microseconds before it do not count."""


@dataclasses.dataclass(frozen=True, eq=False)
class LoadedCode:
    """What all runs of a module share. ``entry`` is its ``polycomp_run``; ``image`` owns the weights."""

    manifest: Manifest
    library: Library
    entry: Callable[..., int]
    pools: SharedPool
    image: ModuleImage


class Prepared(Protocol):
    """What :meth:`Module.prepare` returns: call it with arrays of exactly the prepared shapes and the module's dtypes.

    ``sizes`` are the values of the module's symbols, ``threads`` is how many it uses; for ``direct`` see
    :func:`polycomp.runtime.direct.direct_call`.
    """

    @property
    def threads(self) -> int: ...

    @property
    def sizes(self) -> tuple[int, ...]: ...

    def direct(self, arguments: Sequence[ArgumentPlan], as_tuple: bool) -> Callable[..., Any]: ...

    def __call__(self, arrays: Sequence[Any], /) -> list[Any]: ...


class PreparedRun:
    """Call it with arrays of exactly the prepared shapes and the module's dtypes: new arrays come back.

    Nothing of that is checked. ``threads`` is how many it uses. May be called from several threads.
    """

    def __init__(self, code: LoadedCode, plan: RunPlan, frames: Frames) -> None:
        """Use :meth:`Module.prepare` instead."""
        self._code = code
        self._plan = plan
        self._frames = frames
        self.threads = frames.threads

    @property
    def sizes(self) -> tuple[int, ...]:
        """The values of the module's symbols."""
        return self._plan.binding.sizes

    def direct(self, arguments: Sequence[ArgumentPlan], as_tuple: bool) -> Callable[..., Any]:
        """See :func:`polycomp.runtime.direct.direct_call`. The function keeps scratch memory of its own."""
        plan, code = self._plan, self._code
        if plan.arena_bytes + plan.workspace_bytes > _DIRECT_SCRATCH:
            return declined
        frame = self._frames.make()
        frame.prepare(plan)
        cell = ctypes.addressof(code.pools.cell) if self.threads > 1 else 0
        return direct_call(code.library, frame, arguments, plan.binding.outputs, cell, as_tuple, code.image)

    def __call__(self, arrays: Sequence[Array], timings: int = 0) -> list[Array]:
        """``timings`` is the address of an array for the steps' times, or 0.

        Raises :class:`ExecutionError` when an index lies outside of its tensor, or memory is short.
        """
        code = self._code
        frame = self._frames.take(self._plan)
        try:
            frame.pass_inputs(arrays)
            results = frame.new_outputs(self._plan.binding.outputs)
            # The pool must outlive the run, even when another thread makes a larger one.
            pool = code.pools.get(self.threads, code.library) if self.threads > 1 else None
            frame.begin(pool, timings)
            if code.entry(*frame.arguments):
                raise ExecutionError(failure_text(code.manifest, frame.wrong_index()))
        finally:
            self._frames.put_back(frame)
        return results


def failure_text(manifest: Manifest, wrong: WrongIndex) -> str:
    """What a run that took an element at a wrong index is said to have failed of."""
    step = manifest.steps[wrong.step]
    tensors, nodes = " or ".join(map(repr, step.chosen_from)), ", ".join(map(repr, step.sources))
    return (
        f"a run of {manifest.name!r} failed: the index {wrong.index} is outside of a dimension of size {wrong.size}"
        f"{f' of {tensors}' if tensors else ''}{f', in {nodes}' if nodes else ''}; give indices within it"
    )
