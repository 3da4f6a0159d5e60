"""What is compiled for, as users say it, and whether that can be run here."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from polycomp.errors import InputError, ModuleFileError, TargetError
from polycomp.runtime import Module, ModuleImage, StepProfile, load_image
from polycomp.runtime.binding import Shape
from polycomp.runtime.prepared import Prepared
from polycomp.target import Target, check_threads, parse_target


def as_target(target: str | Target, threads: object = 0) -> Target:
    """What ``target`` says, to run with ``threads``.

    Raises :class:`TargetError` for a target that there is not, and :class:`InputError` for a number of threads that is
    none, or is given for a GPU.
    """
    found = target if isinstance(target, Target) else parse_target(target)
    check_threads(threads)
    check_threads_are_for(found.is_gpu, threads)
    return found


def check_threads_are_for(is_gpu: bool, threads: object) -> None:
    """Raise :class:`InputError` where a number of threads is given for a GPU."""
    if is_gpu and threads:
        raise InputError(
            f"threads is {threads}, but that is for CPUs: how many threads a GPU runs is part of each kernel's "
            f"schedule; leave it out"
        )


def check_device(target: Target) -> None:
    """Raise :class:`TargetError` where ``target`` is a GPU, and this machine has none that can be used.

    For what compiles a model only to run it: better told before than after.
    """
    if target.is_gpu:
        importlib.import_module("polycomp.runtime.cuda.cupydevice").open_device()


def load_or_defer(image: ModuleImage, threads: int = 0) -> Module:
    """The module, loaded; one for a GPU that is not here is not yet: see :class:`DeferredModule`."""
    if image.manifest.device is None:
        return load_image(image, threads)
    try:
        return load_image(image)
    except (TargetError, ModuleFileError):
        return DeferredModule(image)


class DeferredModule(Module):
    """A module for GPUs, compiled where there is none, or another one: it can be looked at and saved.

    Each run tries to load it, and raises what :func:`polycomp.load` does: :class:`TargetError` says what is missing.
    """

    def __init__(self, image: ModuleImage) -> None:
        """Use :func:`load_or_defer` instead."""
        self.manifest = image.manifest  # not the base's, which loads the code
        self.threads = 1
        self._image = image
        self._loaded: Module | None = None

    def __repr__(self) -> str:
        name, architectures = self.manifest.name, ", ".join(self.manifest.features)
        return f"<DeferredModule {name!r} {list(self.inputs)} -> {list(self.outputs)} for {architectures}>"

    def run(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
        """See :meth:`Module.run`."""
        return self._load().run(inputs)

    def run_profiled(self, inputs: Mapping[str, Any]) -> tuple[dict[str, np.ndarray[Any, Any]], list[StepProfile]]:
        """See :meth:`Module.run_profiled`."""
        return self._load().run_profiled(inputs)

    def prepare(self, shapes: Sequence[Shape]) -> Prepared:
        """See :meth:`Module.prepare`."""
        return self._load().prepare(shapes)

    def _load(self) -> Module:
        if self._loaded is None:
            self._loaded = load_image(self._image)
        return self._loaded
