"""From a model to a module: the stages of a compilation in order."""

from __future__ import annotations

import dataclasses
import os
import pathlib

from polycomp.driver.cache import Cache, open_caches
from polycomp.driver.describe import module_metadata
from polycomp.driver.files import copy_file
from polycomp.driver.kernels import compile_kernels
from polycomp.driver.link import build_module
from polycomp.driver.lower import Lowered, lower_graph
from polycomp.driver.manifest import ModuleInfo
from polycomp.driver.modules import find_module, graph_key, keep_module, keep_parts, model_key
from polycomp.driver.observe import Observer
from polycomp.driver.program import Layout, build_program, lay_out
from polycomp.driver.workers import FEW_KERNELS, Workers
from polycomp.graph.ir import Graph
from polycomp.importers.onnx import import_onnx
from polycomp.importers.onnx.reader import ModelLike
from polycomp.options import Options
from polycomp.passes import run_passes
from polycomp.runtime import Manifest, Module, ModuleImage, ModuleParts, load_parts, write_module_file
from polycomp.target import available_cores


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
        """Load the module, to run with ``threads`` (0: as many as it was compiled for)."""
        return Module(self.image, threads) if self.image is not None else load_parts(self.parts, threads)


def compile_model(model: ModelLike, options: Options, observer: Observer | None = None) -> CompiledModel:
    """Compile an ONNX model: a path, its bytes or a ModelProto.

    Raises a PolycompError for a model that is damaged or uses what polycomp does not have.
    """
    watch = observer or Observer()
    kernels, modules = (options.cache and open_caches()) or (None, None)
    key = model_key(model, options) if modules is not None else None
    if modules is None or key is None:
        return CompiledModel(_compile(model, options, kernels, watch))
    found = None if watch.wants_graphs else find_module(modules, key)
    if found is not None:
        return CompiledModel(found.parts, found, modules.path(key))
    parts = _compile(model, options, kernels, watch)
    keep_module(modules, key, model, parts)
    return CompiledModel(parts)


def compile_graph(graph: Graph, options: Options, observer: Observer | None = None) -> CompiledModel:
    """Compile a graph of canonical operators, as tracing makes it. Raises a PolycompError when it cannot be."""
    watch = observer or Observer()
    kernels, modules = (options.cache and open_caches()) or (None, None)
    key = graph_key(graph, options) if modules is not None else ""
    found = None if modules is None or watch.wants_graphs else find_module(modules, key)
    if modules is not None and found is not None:
        return CompiledModel(found.parts, found, modules.path(key))
    lowered = lower_model(graph, options, watch)
    # A traced function is often one kernel, which is compiled before a worker process has started.
    few = len({call.symbol for call in lowered.calls}) <= FEW_KERNELS
    with Workers(0) if few else _workers(options, graph) as workers:
        parts = _finish(graph, lowered, options, kernels, workers, watch)
    if modules is not None:
        keep_parts(modules, key, parts)
    return CompiledModel(parts)


def _compile(model: ModelLike, options: Options, cache: Cache | None, watch: Observer) -> ModuleParts:
    imported = import_graph(model, options, watch)
    with _workers(options, imported) as workers:
        lowered = lower_model(imported, options, watch)
        return _finish(imported, lowered, options, cache, workers, watch)


def _finish(
    imported: Graph, lowered: Lowered, options: Options, cache: Cache | None, workers: Workers, watch: Observer
) -> ModuleParts:
    """Kernels and link."""
    watch.stage("kernels")
    kernels = compile_kernels(lowered.calls, options.target, cache, workers, watch)
    watch.stage("link")
    layout = lay_out(lowered)
    program = build_program(lowered, layout, kernels)
    objects = {symbol: kernel.object for symbol, kernel in kernels.items()}
    info = _module_info(imported, lowered, layout, options)
    return build_module(program, objects, layout.weights, layout.weight_bytes, info, options.target)


def import_graph(model: ModelLike, options: Options, observer: Observer) -> Graph:
    """The model as a graph of canonical operators."""
    observer.stage("import")
    graph = import_onnx(model, options)
    observer.graph("import", graph)
    return graph


def lower_model(graph: Graph, options: Options, observer: Observer) -> Lowered:
    """The graph, optimised, as kernel calls."""
    observer.stage("passes")
    return lower_graph(run_passes(graph, options, observer.graph))


def _module_info(imported: Graph, lowered: Lowered, layout: Layout, options: Options) -> ModuleInfo:
    types = lowered.graph.types
    return ModuleInfo(
        inputs={name: types[name] for name in lowered.graph.inputs},
        outputs={imported.published.get(name, name): types[name] for name in imported.outputs},
        symbols=lowered.graph.symbols,
        conditions=imported.conditions,
        threads=options.threads,
        metadata=module_metadata(imported, lowered, layout),
    )


def _workers(options: Options, graph: Graph) -> Workers:
    """The compile processes, started before the passes run so that their imports cost no time."""
    jobs = options.jobs or available_cores()
    return Workers(min(jobs, len(graph.nodes)) - 1 if len(graph.nodes) > FEW_KERNELS else 0)
