"""Normalisations and activations that a model spells out as many nodes, recognised as one."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from polycomp.graph import Graph, Node
from polycomp.graph.verify import same_type
from polycomp.options import Options
from polycomp.passes.patterns import Any, Known, Match, Number, Op, Pattern, match, op
from polycomp.passes.rewrite import Editor, Rule, apply_rules

_X, _EPSILON = Any("x"), Number(name="epsilon")


def recognise(graph: Graph, options: Options) -> Graph:
    """Replace decomposed GELU, LayerNormalization, RMSNormalization and their like by the operator itself."""
    return apply_rules(graph, RULES, last_first=True)


@dataclasses.dataclass(frozen=True)
class Idiom:
    """``pattern`` is what ``rewrite`` replaces; it returns the new value, or None when details do not fit."""

    pattern: Op
    rewrite: Callable[[Editor, Node, Match], str | None]


def _products(*factors: Pattern | float) -> Iterator[Op]:
    """Every way to multiply three factors pairwise (patterns try both orders of each product themselves)."""
    for alone in range(3):
        first, second = [f for i, f in enumerate(factors) if i != alone]
        yield op("Mul", factors[alone], op("Mul", first, second))


def _erf_arguments() -> Iterator[Op]:
    yield op("Div", _X, math.sqrt(2))
    yield op("Mul", _X, 1 / math.sqrt(2))


def _tanh_arguments() -> Iterator[Op]:
    cubes = (
        op("Pow", _X, 3),
        op("Mul", _X, op("Mul", _X, _X)),
        op("Mul", op("Mul", _X, _X), _X),
        op("Mul", op("Pow", _X, 2), _X),
    )
    for cube in cubes:
        yield op("Mul", op("Add", _X, op("Mul", cube, 0.044715)), math.sqrt(2 / math.pi))
    square = (op("Mul", op("Mul", _X, 0.044715), _X), op("Mul", op("Mul", _X, _X), 0.044715))
    for inner in square:
        yield op("Mul", op("Mul", _X, math.sqrt(2 / math.pi)), op("Add", inner, 1))


def _gelu_idioms() -> Iterator[Idiom]:
    for argument in _erf_arguments():
        for pattern in _products(_X, op("Add", op("Erf", argument), 1), 0.5):
            yield Idiom(pattern, _activation("Gelu", approximate="none"))
    for argument in _tanh_arguments():
        for pattern in _products(_X, op("Add", op("Tanh", argument), 1), 0.5):
            yield Idiom(pattern, _activation("Gelu", approximate="tanh"))


def _activation(name: str, **attributes: object) -> Callable[[Editor, Node, Match], str | None]:
    def rewrite(editor: Editor, node: Node, found: Match) -> str | None:
        x = found.values["x"]
        if not same_type(editor.type(x), editor.type(node.outputs[0])):
            return None
        return editor.emit(name, (x,), attributes, node)

    return rewrite


def _normalized() -> Iterator[Op]:
    """(x - mean) / sqrt(variance + epsilon)."""
    centred = op("Sub", _X, op("ReduceMean", _X, bind="mean"), bind="centred")
    for square in (op("Pow", centred, 2), op("Mul", centred, centred)):
        deviation = op("Sqrt", op("Add", op("ReduceMean", square, bind="variance"), _EPSILON))
        yield op("Div", centred, deviation)
        yield op("Mul", centred, op("Reciprocal", deviation))


def _root_mean_square() -> Iterator[Op]:
    """x / sqrt(mean(x**2) + epsilon)."""
    for square in (op("Pow", _X, 2), op("Mul", _X, _X)):
        deviation = op("Sqrt", op("Add", op("ReduceMean", square, bind="variance"), _EPSILON))
        yield op("Div", _X, deviation)
        yield op("Mul", _X, op("Reciprocal", deviation))


def _normalization_idioms() -> Iterator[Idiom]:
    for core in _normalized():
        scaled = op("Mul", core, Known("scale"))
        yield Idiom(op("Add", scaled, Known("bias")), _layer_normalization)
        yield Idiom(scaled, _layer_normalization)
        yield Idiom(core, _layer_normalization)
    for core in _root_mean_square():
        yield Idiom(op("Mul", core, Known("scale")), _rms_normalization)
        yield Idiom(core, _rms_normalization)


def _layer_normalization(editor: Editor, node: Node, found: Match) -> str | None:
    axis = _trailing_axis(editor, found, ("mean", "variance"))
    scale, bias = (_parameter(editor, found, n, axis) for n in ("scale", "bias"))
    if axis is None or scale is None or bias is None:
        return None
    inputs = (found.values["x"], scale, bias)
    return editor.emit("LayerNormalization", inputs, {"axis": axis, "epsilon": _epsilon(editor, found)}, node)


def _rms_normalization(editor: Editor, node: Node, found: Match) -> str | None:
    axis = _trailing_axis(editor, found, ("variance",))
    scale = _parameter(editor, found, "scale", axis)
    if axis is None or scale is None:
        return None
    inputs = (found.values["x"], scale)
    return editor.emit("RMSNormalization", inputs, {"axis": axis, "epsilon": _epsilon(editor, found)}, node)


def _epsilon(editor: Editor, found: Match) -> float:
    return editor.scalar(found.values["epsilon"]) or 0.0


def _trailing_axis(editor: Editor, found: Match, means: Sequence[str]) -> int | None:
    """The first of the dimensions up to the last that all the means are taken over; None when they do not agree."""
    rank = len(editor.shape(found.values["x"]))
    axes = {tuple(found.node_of(m).attributes["axes"]) for m in means}
    kept = all(found.node_of(m).attributes["keepdims"] for m in means)
    (first, *others) = axes
    if others or not kept or not first or first != tuple(range(first[0], rank)):
        return None
    return int(first[0])


def _parameter(editor: Editor, found: Match, name: str, axis: int | None) -> str | None:
    """A scale or bias in the shape of the normalised dimensions, "" where there is none; None when it differs."""
    if axis is None or not editor.type(found.values["x"]).is_static:
        return None
    x = editor.type(found.values["x"])
    shape = tuple(int(d) for d in x.shape[axis:])  # type: ignore[arg-type]
    array = editor.constant(found.values.get(name, ""))
    if array is None:
        return ""
    if array.ndim > len(shape) and set(array.shape[: -len(shape)]) != {1}:
        return None
    tail = array.reshape(array.shape[-len(shape) :]) if array.ndim > len(shape) else array
    if any(d not in (1, s) for d, s in zip(tail.shape[::-1], shape[::-1], strict=False)):
        return None
    return editor.add_constant(np.ascontiguousarray(np.broadcast_to(tail, shape)), name)


def _softmax_idioms() -> Iterator[Idiom]:
    """exp(x - max(x)) / sum(exp(x - max(x)))."""
    powers = op("Exp", op("Sub", _X, op("ReduceMax", _X, bind="largest")), bind="powers")
    yield Idiom(op("Div", powers, op("ReduceSum", powers, bind="total")), _softmax)


def _softmax(editor: Editor, node: Node, found: Match) -> str | None:
    reductions = [found.node_of(name).attributes for name in ("largest", "total")]
    axes = {tuple(r["axes"]) for r in reductions}
    (first, *others) = axes
    if others or len(first) != 1 or not all(r["keepdims"] for r in reductions):
        return None
    return editor.emit("Softmax", (found.values["x"],), {"axis": first[0]}, node)


def _sigmoid_idioms() -> Iterator[Idiom]:
    yield Idiom(op("Mul", _X, op("Sigmoid", _X)), _activation("Swish", alpha=1.0))
    yield Idiom(op("Mul", _X, op("HardSigmoid", _X, bind="gate")), _hard_swish)
    yield Idiom(op("Mul", _X, op("Tanh", op("Softplus", _X))), _activation("Mish"))


def _hard_swish(editor: Editor, node: Node, found: Match) -> str | None:
    gate = found.node_of("gate").attributes
    if not math.isclose(gate["alpha"], 1 / 6, rel_tol=1e-3) or gate["beta"] != 0.5:
        return None
    return editor.emit("HardSwish", (found.values["x"],), {}, node)


def _rule(idiom: Idiom) -> Rule:
    def rule(editor: Editor, node: Node) -> bool:
        found = match(editor, node, idiom.pattern)
        value = idiom.rewrite(editor, node, found) if found is not None else None
        if value is None:
            return False
        editor.replace(node, value)
        return True

    return rule


IDIOMS: tuple[Idiom, ...] = (*_normalization_idioms(), *_gelu_idioms(), *_softmax_idioms(), *_sigmoid_idioms())
RULES: Mapping[str, Sequence[Rule]] = MappingProxyType(
    {
        root: tuple(_rule(i) for i in idioms)
        for root, idioms in (
            (root, list(group))
            for root, group in itertools.groupby(sorted(IDIOMS, key=lambda i: i.pattern.op), lambda i: i.pattern.op)
        )
    }
)
