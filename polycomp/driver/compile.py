"""From a model to a module that was made before, or is made now.

Finding one imports nothing of the compiler, so that the second time takes a moment.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import os
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from polycomp.driver.cache import Cache, open_caches
from polycomp.driver.files import copy_file
from polycomp.driver.modules import find_module, keep_module, model_key
from polycomp.driver.observe import Observer
from polycomp.driver.targets import load_or_defer
from polycomp.options import Options
from polycomp.runtime import Manifest, Module, ModuleImage, ModuleParts, write_module_file
from polycomp.runtime.image import assemble

if TYPE_CHECKING:
    from polycomp.importers.onnx.reader import ModelLike


@dataclasses.dataclass(frozen=True)
class CompiledModel:
    """A compiled model: the ``parts`` of its module, with the ``image`` and the ``file`` of it where it was compiled
    before."""

    parts: ModuleParts
    image: ModuleImage | None = None
    file: pathlib.Path | None = None

    @property
    def manifest(self) -> Manifest:
        return self.parts.manifest

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the module file, which is complete or absent. Raises ModuleFileError or OSError when that fails."""
        if self.file is not None and self.file.exists():
            copy_file(self.file, pathlib.Path(path))
        else:
            write_module_file(path, self.parts)

    def module(self, threads: int = 0) -> Module:
        """Load the module, to run with ``threads`` (0: as many as it was compiled for). One for GPUs is there to be
        saved where there is none, and says what is missing when it is run."""
        return load_or_defer(self.image if self.image is not None else assemble(self.parts), threads)


def compile_model(model: ModelLike, options: Options, observer: Observer | None = None) -> CompiledModel:
    """Compile an ONNX model: a path, its bytes or a ModelProto.

    Raises a PolycompError for a model that is damaged or uses what polycomp does not have.
    """
    watch = observer or Observer()
    kernels, modules = (options.cache and open_caches()) or (None, None)
    key = model_key(model, options, kernels) if kernels is not None else None
    keep = functools.partial(keep_module, model=model)
    return found_or_made(modules, key, watch, lambda: _compile(model, options, kernels, watch), keep)


def found_or_made(
    modules: Cache | None,
    key: str | None,
    watch: Observer,
    make: Callable[[], ModuleParts],
    keep: Callable[[Cache, str, ModuleParts], None],
) -> CompiledModel:
    """The module that ``modules`` has under ``key``, or else the one that ``make`` returns, which ``keep`` then keeps.

    It is always made where nothing can be kept, or where the graphs on the way are asked for.
    """
    if modules is None or key is None:
        return CompiledModel(make())
    found = None if watch.wants_graphs else find_module(modules, key)
    if found is not None:
        return CompiledModel(found.parts, found, modules.path(key))
    parts = make()
    keep(modules, key, parts)
    return CompiledModel(parts)


def _compile(model: ModelLike, options: Options, cache: Cache | None, watch: Observer) -> ModuleParts:
    pipeline = importlib.import_module("polycomp.driver.pipeline")  # the compiler, with isl, LLVM and onnx
    parts: ModuleParts = pipeline.compile_parts(model, options, cache, watch)
    return parts
