"""One specialisation of a jit function: traced, compiled and ready to be called."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from polycomp.driver.pipeline import compile_graph
from polycomp.driver.targets import check_device
from polycomp.dtypes import as_dtype
from polycomp.errors import ArgumentError
from polycomp.functions.arguments import ArrayLeaf, CallKey, StaticLeaf
from polycomp.functions.pytree import Structure, flatten, paths, unflatten
from polycomp.graph import Graph, TensorType
from polycomp.ops import operators
from polycomp.options import Options
from polycomp.runtime import ArgumentPlan, Module
from polycomp.runtime.direct import declined
from polycomp.tracing import Size, Tensor, Trace, Value

Array = np.ndarray[Any, Any]
Run = Callable[[Sequence[Array]], list[Array]]


@dataclasses.dataclass(frozen=True)
class Traced:
    """What a function did on a call's arguments.

    ``results`` has an index into the graph's outputs for each leaf that is computed, and the leaf itself for others.
    ``used`` are the positions of the arrays that the graph reads; ``minimums`` the least open sizes that it is for.
    """

    graph: Graph
    structure: Structure
    results: tuple[Any, ...]
    used: tuple[int, ...]
    minimums: Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class _Output:
    """The place of a computed result."""

    index: int


def trace_call(function: Callable[..., Any], key: CallKey, names: Sequence[str], invoke: Callable[..., Any]) -> Traced:
    """Run ``function`` on traced tensors. ``invoke`` calls it with arguments by parameter."""
    trace = Trace(function.__name__, operators(), Tensor)
    leaves = [_argument(trace, leaf, name) for leaf, name in zip(key.leaves, names, strict=True)]
    result = invoke(function, key.arguments(leaves))
    found: list[Any] = []
    structure = flatten(result, found)
    labels = tuple(paths(structure, f"the result of {function.__name__!r}"))
    outputs: list[Value] = []
    results = tuple(_result(v, label, outputs) for v, label in zip(found, labels, strict=True))
    graph = trace.finish(outputs)
    return _pruned(graph, structure, results)


def _argument(trace: Trace, leaf: ArrayLeaf | StaticLeaf, name: str) -> Any:
    if isinstance(leaf, StaticLeaf):
        return leaf.value
    shape = tuple(trace.symbol(d) if isinstance(d, str) else d for d in leaf.shape)
    return trace.input(name, TensorType(as_dtype(leaf.dtype), shape), leaf.weak)


def _result(value: Any, label: str, outputs: list[Value]) -> Any:
    if isinstance(value, Size):
        value = value.tensor()
    if isinstance(value, Value):
        outputs.append(value)
        return _Output(len(outputs) - 1)
    if value is None or isinstance(value, bool | int | float | str | np.generic | np.ndarray):
        return value
    raise ArgumentError(
        f"{label} is a {type(value).__name__}; a jit function returns tensors, arrays, numbers, None, or "
        f"tuples, lists and dicts of them"
    )


def _pruned(graph: Graph, structure: Structure, results: tuple[Any, ...]) -> Traced:
    """Arguments that no node reads are no inputs of the module, unless an open size is known by them alone."""
    read = {name for node in graph.nodes for name in node.inputs}
    open_sizes = any(not graph.types[name].is_static for name in graph.inputs)
    used = tuple(p for p, name in enumerate(graph.inputs) if name in read or open_sizes)
    inputs = tuple(graph.inputs[p] for p in used)
    minimums = {s.var.name: s.minimum for s in graph.symbols}
    return Traced(dataclasses.replace(graph, inputs=inputs), structure, results, used, minimums)


class Specialisation:
    """The compiled code of one :class:`~polycomp.functions.arguments.CallKey`."""

    def __init__(self, traced: Traced, options: Options) -> None:
        self.traced = traced
        self.module: Module | None = None
        if traced.graph.outputs:
            check_device(options.target)
            self.module = compile_graph(traced.graph, options).module(options.threads)

    def direct(self, arrays: Sequence[Array]) -> Callable[..., Any]:
        """A function of arrays like these that declines all others: it returns NotImplemented.

        ``arrays`` are all arguments of the call, native and of type :class:`numpy.ndarray` exactly.
        """
        traced = self.traced
        if self.module is None or self.module.manifest.device is not None:
            return declined
        places = {position: place for place, position in enumerate(traced.used)}
        plans = [ArgumentPlan(a.dtype, a.shape, places.get(i, -1)) for i, a in enumerate(arrays)]
        prepared = self.module.prepare([arrays[p].shape for p in traced.used])
        if self._returns_array():
            return prepared.direct(plans, as_tuple=False)
        call = prepared.direct(plans, as_tuple=True)
        return call if call is declined or self._returns_tuple() else _restructured(call, traced)

    def _returns_array(self) -> bool:
        traced = self.traced
        return traced.results == (_Output(0),) and isinstance(unflatten(traced.structure, iter([0])), int)

    def _returns_tuple(self) -> bool:
        """Whether the result is the outputs in a tuple, each once, in order."""
        traced, plain = self.traced, tuple(range(len(self.traced.graph.outputs)))
        computed = tuple(r.index for r in traced.results if isinstance(r, _Output))
        return (
            computed == plain
            and len(traced.results) == len(plain)
            and unflatten(traced.structure, iter(plain)) == plain
        )

    def prepare(self, shapes: Sequence[tuple[int, ...]]) -> Callable[[Sequence[Array]], Any]:
        """A function of the call's arrays, which have these shapes."""
        traced = self.traced
        if self.module is None:
            return lambda arrays: unflatten(traced.structure, map(_fresh, traced.results))
        run: Run = self.module.prepare([shapes[p] for p in traced.used])
        if len(traced.used) < len(shapes):
            run = _selecting(run, traced.used)
        if self._returns_array():
            return lambda arrays: run(arrays)[0]
        return lambda arrays: unflatten(traced.structure, iter(_filled(traced.results, run(arrays))))


def _selecting(run: Run, used: Sequence[int]) -> Run:
    return lambda arrays: run([arrays[p] for p in used])


def _restructured(call: Callable[..., Any], traced: Traced) -> Callable[..., Any]:
    def restructured(*arrays: Any) -> Any:
        outputs = call(*arrays)
        if outputs is NotImplemented:
            return outputs
        return unflatten(traced.structure, iter(_filled(traced.results, outputs)))

    return restructured


def _filled(results: Sequence[Any], outputs: Sequence[Array]) -> list[Any]:
    return [outputs[r.index] if isinstance(r, _Output) else _fresh(r) for r in results]


def _fresh(value: Any) -> Any:
    """An array that was returned as it was found belongs to the function: its caller gets a copy."""
    return value.copy() if isinstance(value, np.ndarray) else value
