"""From a model to a module: the stages of a compilation in order."""

from __future__ import annotations

import dataclasses

from polycomp.driver.cache import Cache, open_caches
from polycomp.driver.kernels import compile_kernels
from polycomp.driver.link import link_module
from polycomp.driver.lower import Lowered, lower_graph
from polycomp.driver.observe import Observer
from polycomp.driver.program import Layout, build_program, lay_out
from polycomp.driver.workers import FEW_KERNELS, Workers
from polycomp.graph.ir import Graph
from polycomp.importers.onnx import ModelLike, import_model
from polycomp.loops.program import Program
from polycomp.options import Options
from polycomp.passes import run_passes
from polycomp.target import available_cores


@dataclasses.dataclass(frozen=True)
class CompiledModel:
    """A compiled model in memory: what it was lowered to, where its values live, and its native code."""

    lowered: Lowered
    layout: Layout
    program: Program
    options: Options
    code: bytes


def compile_model(model: ModelLike, options: Options, observer: Observer | None = None) -> CompiledModel:
    """Compile an ONNX model: a path, its bytes or a ModelProto.

    Raises a PolycompError for a model that is damaged or uses what polycomp does not have.
    """
    watch = observer or Observer()
    graph = import_graph(model, options, watch)
    with _workers(options, graph) as workers:
        lowered = lower_model(graph, options, watch)
        watch.stage("kernels")
        kernels = compile_kernels(lowered.calls, options.target, _kernel_cache(options), workers, watch)
    watch.stage("link")
    layout = lay_out(lowered)
    program = build_program(lowered, layout, kernels)
    code = link_module(program, {symbol: kernel.object for symbol, kernel in kernels.items()}, options.target)
    return CompiledModel(lowered, layout, program, options, code)


def import_graph(model: ModelLike, options: Options, observer: Observer) -> Graph:
    """The model as a graph of canonical operators."""
    observer.stage("import")
    graph = import_model(model, options.shapes)
    observer.graph("import", graph)
    return graph


def lower_model(graph: Graph, options: Options, observer: Observer) -> Lowered:
    """The graph, optimised, as kernel calls."""
    observer.stage("passes")
    return lower_graph(run_passes(graph, options, observer.graph))


def _kernel_cache(options: Options) -> Cache | None:
    caches = open_caches() if options.cache else None
    return None if caches is None else caches[0]


def _workers(options: Options, graph: Graph) -> Workers:
    """The compile processes, started before the passes run so that their imports cost no time."""
    jobs = options.jobs or available_cores()
    return Workers(min(jobs, len(graph.nodes)) - 1 if len(graph.nodes) > FEW_KERNELS else 0)
