"""From a ModelProto to a Graph of canonical operators."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import onnx

from polycomp.errors import ModelError, ShapeError, UnsupportedOperatorError
from polycomp.graph import Graph, TensorType
from polycomp.importers.onnx import (
    elementwise,
    linear,
    movement,
    normalization,
    quantization,
    reductions,
    shapes,
    windows,
)
from polycomp.importers.onnx.builder import Builder, Value
from polycomp.importers.onnx.equalities import EqualSizes
from polycomp.importers.onnx.known import Array
from polycomp.importers.onnx.known_rules import evaluate
from polycomp.importers.onnx.names import node_names
from polycomp.importers.onnx.reader import DEFAULT_DOMAINS, LoadedModel, ModelLike, expand_functions, load_model
from polycomp.importers.onnx.schema import check_node, schema_of
from polycomp.importers.onnx.site import Handler, Site
from polycomp.importers.onnx.tensors import DTYPES, dtype_name, dtype_of, to_array
from polycomp.ops import operators
from polycomp.options import Options
from polycomp.te import Dim

HANDLERS: Mapping[str, Handler] = MappingProxyType(
    {
        **elementwise.HANDLERS,
        **linear.HANDLERS,
        **movement.HANDLERS,
        **normalization.HANDLERS,
        **quantization.HANDLERS,
        **reductions.HANDLERS,
        **shapes.HANDLERS,
        **windows.HANDLERS,
    }
)
"""How each ONNX operator of the default domain is imported."""


def import_onnx(model: ModelLike, options: Options | None = None) -> Graph:
    """The graph of an ONNX model: a path, the file's bytes, or a ModelProto.

    ``options.shapes`` fixes inputs' shapes by name. Raises ModelError for what is no valid model, ExternalDataError
    for weights that cannot be read, ShapeError and DTypeError for a node that does not fit its inputs, and
    UnsupportedOperatorError naming all nodes that cannot be compiled.
    """
    return _import(load_model(model), options or Options())


def _import(loaded: LoadedModel, options: Options) -> Graph:
    if not loaded.proto.graph.output:
        raise ModelError("the model's graph has no outputs")
    graph = expand_functions(loaded, HANDLERS)
    nodes = list(zip(graph.node, node_names(graph.node), strict=True))
    _check_supported(nodes, loaded.opset)
    _check_order(graph, nodes)
    arrays = _initializers(graph, loaded.folder)
    equal: dict[str, Dim] = {}
    while True:  # at most once more per open size
        try:
            return _build(graph, nodes, arrays, options, loaded.opset, Builder(operators(), equal))
        except EqualSizes as found:
            equal[found.name] = found.dim


def _build(
    graph: onnx.GraphProto,
    nodes: Sequence[tuple[onnx.NodeProto, str]],
    arrays: Mapping[str, Array],
    options: Options,
    opset: int,
    builder: Builder,
) -> Graph:
    values = {name: builder.constant(array, name) for name, array in arrays.items()}
    inputs = _inputs(graph, builder, options, set(values))
    values |= inputs
    for proto, name in nodes:
        values |= _import_node(proto, name, builder, values, opset)
    outputs = [(o.name, values[o.name]) for o in graph.output]
    return builder.finish(graph.name or "main", list(inputs), outputs)


def _check_supported(nodes: Sequence[tuple[onnx.NodeProto, str]], opset: int) -> None:
    """Raise one UnsupportedOperatorError that lists every operator that cannot be imported, with counts and nodes."""
    unknown: dict[str, list[str]] = {}
    for proto, name in nodes:
        domain = "" if proto.domain in DEFAULT_DOMAINS else f"{proto.domain}."
        reason = _why_unsupported(proto, domain, opset)
        if reason is not None:
            unknown.setdefault(f"{domain}{proto.op_type}{reason}", []).append(name)
    if unknown:
        lines = [f"{what} ({len(names)}: {_some(names)})" for what, names in sorted(unknown.items())]
        raise UnsupportedOperatorError(f"the model uses operators that are not supported: {'; '.join(lines)}")


def _why_unsupported(proto: onnx.NodeProto, domain: str, opset: int) -> str | None:
    """What to say after the operator's name, or None when it can be imported."""
    if any(a.HasField("g") or a.graphs for a in proto.attribute):
        return " with a subgraph"
    if domain or proto.op_type not in HANDLERS:
        return ""
    if schema_of(proto, opset) is None:
        return f", which opset {opset} does not have"
    codes = [a.i for a in proto.attribute if proto.op_type == "Cast" and a.name == "to"]
    wrong = [c for c in codes if c not in DTYPES]
    return f" to {dtype_name(wrong[0])}" if wrong else None


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(repr(n) for n in names[:4])
    return shown if len(names) <= 4 else f"{shown}, ..."


def _check_order(graph: onnx.GraphProto, nodes: Sequence[tuple[onnx.NodeProto, str]]) -> None:
    """Each value is made once, and before it is read."""
    made_by: dict[str, str] = {}
    known = {i.name for i in graph.input} | {t.name for t in graph.initializer}
    known |= {t.values.name for t in graph.sparse_initializer}
    later = {o for proto, _ in nodes for o in proto.output}
    for proto, name in nodes:
        for value in proto.input:
            if value and value not in known:
                why = "only by itself or a later node: the graph has a cycle or is not in order"
                raise ModelError(
                    f"{proto.op_type} node {name!r} reads {value!r}, which is made "
                    f"{why if value in later else 'nowhere in the model'}"
                )
        for value in filter(None, proto.output):
            if value in known:
                raise ModelError(
                    f"{proto.op_type} node {name!r} makes {value!r}, which "
                    f"{'node ' + repr(made_by[value]) if value in made_by else 'an input or initializer'} makes already"
                )
            known.add(value)
            made_by[value] = name
    _check_outputs(graph, known)


def _check_outputs(graph: onnx.GraphProto, known: set[str]) -> None:
    names = [o.name for o in graph.output]
    for name in names:
        if name not in known:
            raise ModelError(f"the model's output {name!r} is made by no node")
        if names.count(name) > 1:
            raise ModelError(f"the model names its output {name!r} twice")


def _initializers(graph: onnx.GraphProto, folder: pathlib.Path | None) -> dict[str, Array]:
    if graph.sparse_initializer:
        names = ", ".join(repr(t.values.name) for t in graph.sparse_initializer)
        raise UnsupportedOperatorError(f"the model keeps sparse initializers, which is not supported: {names}")
    arrays: dict[str, Array] = {}
    for tensor in graph.initializer:
        if not tensor.name or tensor.name in arrays:
            raise ModelError(f"the model has two initializers called {tensor.name!r}, or one without a name")
        arrays[tensor.name] = to_array(tensor, folder, f"initializer {tensor.name!r}")
    return arrays


def _inputs(graph: onnx.GraphProto, builder: Builder, options: Options, constants: set[str]) -> dict[str, Value]:
    """Graph inputs that are not initializers (old models list these too: they stay constants)."""
    real = [i for i in graph.input if i.name not in constants]
    names = [i.name for i in real]
    if len(set(names)) != len(names) or "" in names:
        raise ModelError(f"the model's inputs must have different names, but are {names}")
    unknown = sorted(set(options.shapes) - set(names))
    if unknown:
        raise ShapeError(f"a shape was given for {unknown[0]!r}, but the model's inputs are {_listed(real)}")
    return {i.name: builder.input(i.name, _input_type(i, builder, options, real)) for i in real}


def _listed(inputs: Sequence[onnx.ValueInfoProto]) -> str:
    return ", ".join(f"{i.name!r} [{', '.join(_dim_text(d) for d in i.type.tensor_type.shape.dim)}]" for i in inputs)


def _dim_text(dim: onnx.TensorShapeProto.Dimension) -> str:
    return str(dim.dim_value) if dim.HasField("dim_value") else dim.dim_param or "?"


def _input_type(
    info: onnx.ValueInfoProto, builder: Builder, options: Options, inputs: Sequence[onnx.ValueInfoProto]
) -> TensorType:
    if not info.type.HasField("tensor_type"):
        raise UnsupportedOperatorError(f"the model's input {info.name!r} is not a dense tensor, which is not supported")
    tensor = info.type.tensor_type
    dtype = dtype_of(tensor.elem_type, f"the model's input {info.name!r}")
    fixed = options.shapes.get(info.name)
    if not tensor.HasField("shape"):
        if fixed is None:
            raise ShapeError(
                f"the model does not say the shape of its input {info.name!r}; give one, in Python as "
                f"shapes={{{info.name!r}: (2, 3)}}, to the command as --shape {info.name}=2,3"
            )
        return TensorType(dtype, _checked_shape(info.name, fixed))
    dims = list(tensor.shape.dim)
    if fixed is not None:
        _check_fixed(info.name, fixed, dims, inputs)
        return TensorType(dtype, _checked_shape(info.name, fixed))
    return TensorType(dtype, tuple(_dim(info.name, i, d, builder) for i, d in enumerate(dims)))


def _checked_shape(name: str, shape: Sequence[int]) -> tuple[int, ...]:
    if any(d < 0 or d >= 2**40 for d in shape):
        raise ShapeError(f"the input {name!r} cannot have the shape {list(shape)}")
    return tuple(shape)


def _check_fixed(
    name: str,
    fixed: Sequence[int],
    dims: Sequence[onnx.TensorShapeProto.Dimension],
    inputs: Sequence[onnx.ValueInfoProto],
) -> None:
    agrees = all(not d.HasField("dim_value") or d.dim_value in (f, 0) for d, f in zip(dims, fixed, strict=False))
    if len(fixed) != len(dims) or not agrees:
        raise ShapeError(f"the shape {list(fixed)} does not fit the input {name!r}; the inputs are {_listed(inputs)}")


def _dim(name: str, position: int, dim: onnx.TensorShapeProto.Dimension, builder: Builder) -> Dim:
    if dim.HasField("dim_value"):
        return _checked_shape(name, (dim.dim_value,))[0]
    return builder.symbol(dim.dim_param or f"{name}_dim{position}")


def _import_node(
    proto: onnx.NodeProto, name: str, builder: Builder, values: Mapping[str, Value], opset: int
) -> dict[str, Value]:
    schema = schema_of(proto, opset)
    if schema is not None:
        check_node(proto, name, schema)
    inputs = tuple(values[i] if i else None for i in proto.input)
    site = Site(builder, proto, name, opset, inputs, {a.name: a for a in proto.attribute})
    known = evaluate(site)
    results = [known] if known is not None else HANDLERS[proto.op_type](site)
    return {o: v for o, v in zip(proto.output, results, strict=False) if o}
