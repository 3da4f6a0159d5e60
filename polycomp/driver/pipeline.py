"""From a model to a module: the stages of a compilation in order."""

from __future__ import annotations

from collections.abc import Mapping

from polycomp.driver.cache import Cache, key_of, open_caches
from polycomp.driver.compile import CompiledModel, found_or_made
from polycomp.driver.describe import module_metadata
from polycomp.driver.device import build_device_module, warn_of_spills
from polycomp.driver.digests import content_digest
from polycomp.driver.kernels import compile_kernels
from polycomp.driver.link import build_module
from polycomp.driver.lower import Lowered, lower_graph
from polycomp.driver.manifest import ModuleInfo
from polycomp.driver.modules import keep_parts
from polycomp.driver.observe import Observer
from polycomp.driver.precision import with_kept_nodes
from polycomp.driver.program import Layout, build_program, lay_out
from polycomp.driver.versions import compiler_version
from polycomp.driver.workers import FEW_KERNELS, Workers
from polycomp.graph import Graph, to_text
from polycomp.importers.onnx import import_onnx
from polycomp.importers.onnx.reader import ModelLike
from polycomp.options import Options
from polycomp.passes import run_passes
from polycomp.runtime import ModuleParts
from polycomp.target import available_cores


def compile_parts(model: ModelLike, options: Options, cache: Cache | None, watch: Observer) -> ModuleParts:
    """Compile an ONNX model, with kernels that ``cache`` has. Raises a PolycompError when it cannot be."""
    imported = import_graph(model, options, watch)
    with _workers(options, imported) as workers:
        lowered = lower_model(imported, options, watch)
        return _finish(imported, lowered, options, cache, workers, watch)


def compile_graph(graph: Graph, options: Options, observer: Observer | None = None) -> CompiledModel:
    """Compile a graph of canonical operators, as tracing makes it. Raises a PolycompError when it cannot be."""
    watch = observer or Observer()
    kernels, modules = (options.cache and open_caches()) or (None, None)
    key = _graph_key(graph, options) if modules is not None else None
    return found_or_made(modules, key, watch, lambda: _compile(graph, options, kernels, watch), keep_parts)


def _compile(graph: Graph, options: Options, cache: Cache | None, watch: Observer) -> ModuleParts:
    lowered = lower_model(graph, options, watch)
    # A traced function is often one kernel, which is compiled before a worker process has started.
    few = len({call.symbol for call in lowered.calls}) <= FEW_KERNELS
    with Workers(0) if few else _workers(options, graph) as workers:
        return _finish(graph, lowered, options, cache, workers, watch)


def _graph_key(graph: Graph, options: Options) -> str:
    """What a module made of ``graph`` is kept under: its text and the content of its constants."""
    arrays = graph.constants.values()
    constants = [part for array in arrays for part in (str(array.dtype), content_digest(array.tobytes()))]
    sources = "\n".join(source for node in graph.nodes for source in node.sources)
    settings = (options.target.module_key, str(options.threads), options.decisions_key, options.precision_key)
    return key_of("graph", to_text(graph), sources, *settings, compiler_version(), *constants)


def _finish(
    imported: Graph, lowered: Lowered, options: Options, cache: Cache | None, workers: Workers, watch: Observer
) -> ModuleParts:
    """Kernels and link."""
    watch.stage("kernels")
    kernels = compile_kernels(lowered.calls, options, cache, workers, watch)
    watch.stage("link")
    layout = lay_out(lowered)
    program = build_program(lowered, layout, kernels)
    refused = {symbol for symbol, kernel in kernels.items() if kernel.refused}
    decided = sorted({*kernels, *(site.problem for site in lowered.graph.sites)} - refused)
    tuned = {s: "near" if s in options.tuned_near else "exact" for s in decided if options.is_advised(s)}
    info = _module_info(imported, lowered, layout, options, tuned)
    device = {symbol: kernel.device for symbol, kernel in kernels.items() if kernel.device is not None}
    if options.target.is_gpu:
        warn_of_spills(device)
        return build_device_module(program, device, layout.weights, layout.weight_bytes, info, options.target)
    objects = {symbol: kernel.object for symbol, kernel in kernels.items()}
    return build_module(program, objects, layout.weights, layout.weight_bytes, info, options.target)


def import_graph(model: ModelLike, options: Options, observer: Observer) -> Graph:
    """The model as a graph of canonical operators."""
    observer.stage("import")
    graph = import_onnx(model, options)
    _show("import", graph, observer)
    return graph


def lower_model(graph: Graph, options: Options, observer: Observer) -> Lowered:
    """The graph, optimised, as kernel calls."""
    observer.stage("passes")
    optimised = run_passes(graph, with_kept_nodes(graph, options), lambda name, made: _show(name, made, observer))
    return lower_graph(optimised, mixed=options.narrow is not None)


def _show(name: str, graph: Graph, observer: Observer) -> None:
    if observer.wants_graphs:
        observer.graph(name, to_text(graph))


def _module_info(
    imported: Graph, lowered: Lowered, layout: Layout, options: Options, tuned: Mapping[str, str]
) -> ModuleInfo:
    types = lowered.graph.types
    return ModuleInfo(
        inputs={name: types[name] for name in lowered.graph.inputs},
        outputs={imported.published.get(name, name): types[name] for name in imported.outputs},
        symbols=lowered.graph.symbols,
        conditions=imported.conditions,
        threads=options.threads,
        metadata=module_metadata(imported, lowered, layout, tuned) | _precision(options),
    )


def _precision(options: Options) -> dict[str, str]:
    """What a module says of it, where it is not that of the model."""
    return {} if options.narrow is None else {"precision": options.precision}


def _workers(options: Options, graph: Graph) -> Workers:
    """The compile processes, started before the passes run so that their imports cost no time."""
    jobs = options.jobs or available_cores()
    return Workers(min(jobs, len(graph.nodes)) - 1 if len(graph.nodes) > FEW_KERNELS else 0)
