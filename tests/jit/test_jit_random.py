"""Random small functions of random dtypes and shapes against numpy.

Each example is one function of several random expressions, so that one compilation checks many operations.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from jit_oracle import Array, compare, numbers

import polycomp as pc
from polycomp.functions import specialise
from polycomp.functions.arguments import Parameters
from polycomp.graph import Graph, verify
from polycomp.ops import operators
from polycomp.te import placeholder
from polycomp.te.evaluate import evaluate

DTYPES = ("float32", "float32", "float64", "float16", "int32", "int64", "int8", "uint8", "uint16", "bool")
SIZES = (1, 2, 3, 5, 8)


@dataclasses.dataclass(frozen=True)
class Step:
    """One operation: applied to earlier values, by number."""

    apply: Callable[..., Any]
    operands: tuple[int, ...]


def _reduction(pick: random.Random, x: Array) -> Callable[..., Any]:
    name = pick.choice(["sum", "mean", "max", "min", "any", "all", "argmax", "prod", "std", "cumsum"])
    if name == "prod" and x.dtype.kind == "f":
        name = "sum"
    if name == "std" and x.dtype == np.float16:
        name = "mean"
    axis = pick.randrange(-x.ndim, x.ndim) if x.ndim else None
    if name == "cumsum":
        return lambda a: np.cumsum(a, axis=axis)
    keepdims = pick.random() < 0.5
    return lambda a: getattr(np, name)(a, axis=axis, keepdims=keepdims)


def _movement(pick: random.Random, x: Array) -> Callable[..., Any]:
    axis = pick.randrange(x.ndim)
    order = list(range(x.ndim))
    pick.shuffle(order)
    shift = pick.randint(-4, 4)
    start, stop = sorted((pick.randint(-3, 6), pick.randint(-3, 6)))
    step = pick.choice([-3, -2, -1, 1, 2])
    choices: list[Callable[..., Any]] = [
        lambda a: np.transpose(a, order),
        lambda a: a.reshape(-1),
        lambda a: np.roll(a, shift, axis=axis),
        lambda a: a[..., start:stop],
        lambda a: a[(slice(None),) * axis + (slice(None, None, step),)],
        lambda a: a[None, ...],
        lambda a: a[(slice(None),) * axis + (-1,)],
        lambda a: np.concatenate([a, a[::-1]], axis=0),
        lambda a: np.stack([a, a], axis=-1),
        lambda a: np.pad(a, 1),
        lambda a: np.repeat(a, 2, axis=axis),
        lambda a: np.tile(a, 2),
        lambda a: np.flip(a, axis=axis),
        lambda a: np.broadcast_to(a, (2, *a.shape)),
        lambda a: np.moveaxis(a, 0, -1),
        lambda a: np.tril(a[None], 1) if a.ndim < 2 else np.tril(a, 1),
        lambda a: np.diff(a, axis=axis),
        lambda a: np.take(a, [0, -1], axis=axis),
        lambda a: a[np.arange(a.shape[0])[::-1]],
    ]
    return pick.choice(choices)


_ON_NUMBERS = (
    np.negative, np.abs, np.square, np.sign, np.floor, np.isnan, np.isfinite,
    lambda a: a + 1, lambda a: 2 * a, lambda a: a // 3, lambda a: a % 5, lambda a: a / 2, lambda a: a > 0,
    lambda a: a**2, lambda a: np.clip(a, -2, 3), lambda a: np.where(a > 1, a, -a),
    lambda a: a.astype(np.float32), lambda a: np.zeros_like(a) + a.dtype.type(1), lambda a: 1.5 - a,
)  # fmt: skip
_ON_FLOATS = (np.exp, np.tanh, np.sin, np.cos, np.arctan, np.log1p, np.expm1, np.rint, np.trunc, np.exp2)
_ON_INTEGERS = (np.invert, lambda a: a & 3, lambda a: a | 4, lambda a: a ^ 1, lambda a: a >> 1, lambda a: a << 1)
_PAIRS = (
    np.add, np.subtract, np.multiply, np.maximum, np.minimum, np.less, np.equal, np.greater_equal, np.not_equal,
    np.logical_and, np.logical_or, np.true_divide, np.floor_divide, np.remainder, np.fmax,
)  # fmt: skip


def _unary(pick: random.Random, x: Array) -> Callable[..., Any]:
    if x.dtype == bool:
        return pick.choice([np.logical_not, lambda a: a + 1, lambda a: a * 2.0, lambda a: a & True, np.abs])
    extra = _ON_FLOATS if x.dtype.kind == "f" else _ON_INTEGERS
    return pick.choice([*_ON_NUMBERS, *extra])


def _is_bounded(value: Any) -> bool:
    """Small enough, and far from where rounding or overflow decide."""
    if not isinstance(value, np.ndarray | np.generic) or value.size > 500 or value.ndim > 5:
        return False
    if value.dtype == np.float16 and np.any(np.abs(value.astype(np.float32)) > 200):
        return False
    with np.errstate(all="ignore"):
        return bool(np.all(np.isfinite(value))) and (value.dtype.kind != "f" or bool(np.all(np.abs(value) < 1e4)))


def _is_stable(apply: Callable[..., Any], values: list[Any], result: Any) -> bool:
    """Whether other last digits of the operands leave the result nearly as it is: no step at a comparison."""
    for sign in (1, -1):
        moved = [v * (1 + sign * _EPSILON[v.dtype.name]) if v.dtype.kind == "f" else v for v in values]
        moved = [m.astype(v.dtype) for m, v in zip(moved, values, strict=True)]
        other = np.asarray(apply(*moved))
        tolerance = 100 * _EPSILON.get(other.dtype.name, 0)
        if not np.allclose(other, result, rtol=tolerance, atol=tolerance):
            return False
    return True


_EPSILON = {"float16": 2e-3, "float32": 1e-6, "float64": 1e-12}


def random_function(seed: int, steps: int = 10) -> tuple[list[Array], list[Step]]:
    """Inputs, and steps that numpy can do on them."""
    pick = random.Random(seed)
    shape = tuple(pick.choice(SIZES) for _ in range(pick.randint(1, 3)))
    inputs = [numbers(*shape, dtype=pick.choice(DTYPES), seed=seed + i) for i in range(3)]
    inputs[2] = inputs[2][:1]  # broadcast against the others
    values: list[Any] = list(inputs)
    found: list[Step] = []
    for _ in range(20 * steps):
        if len(found) == steps:
            break
        step = _random_step(pick, values)
        operands = [values[i] for i in step.operands]
        try:
            with np.errstate(all="ignore"):
                result = step.apply(*operands)
                fine = _is_bounded(result) and _is_stable(step.apply, operands, result)
        except (TypeError, ValueError, IndexError):
            continue
        if fine and result.size:
            found.append(step)
            values.append(np.asarray(result))
    return inputs, found


def _random_step(pick: random.Random, values: list[Any]) -> Step:
    i = pick.randrange(len(values))
    kind = pick.random()
    if kind < 0.3:
        return Step(_unary(pick, values[i]), (i,))
    if kind < 0.5:
        return Step(pick.choice(_PAIRS), (i, pick.randrange(len(values))))
    if kind < 0.7 or not values[i].ndim:
        return Step(_reduction(pick, values[i]), (i,))
    return Step(_movement(pick, values[i]), (i,))


def run(steps: list[Step], inputs: Any) -> tuple[Any, ...]:
    """The function itself, on arrays or on traced tensors."""
    values = list(inputs)
    for step in steps:
        values.append(step.apply(*[values[i] for i in step.operands]))
    return tuple(values[len(inputs) :])


@pytest.mark.parametrize("seed", range(12))
def test_compiled_functions_agree_with_numpy(seed: int) -> None:
    inputs, steps = random_function(seed)

    def function(a: Any, b: Any, c: Any) -> tuple[Any, ...]:
        return run(steps, (a, b, c))

    with np.errstate(all="ignore"):
        wanted = function(*inputs)
    for got, want in zip(pc.jit(function)(*inputs), wanted, strict=True):
        compare(got, np.asarray(want))


@pytest.mark.parametrize("seed", range(100, 500, 20))
def test_traced_graphs_mean_what_numpy_does(seed: int) -> None:
    """Hundreds of functions, their graphs evaluated by definition: what the code should do, without compiling it."""
    for number in range(seed, seed + 20):
        inputs, steps = random_function(number)

        def function(a: Any, b: Any, c: Any, steps: list[Step] = steps) -> tuple[Any, ...]:
            return run(steps, (a, b, c))

        with np.errstate(all="ignore"):
            wanted = function(*inputs)
        found = _by_definition(function, inputs)
        for got, want in zip(found, wanted, strict=True):
            compare(got, np.asarray(want))


def _by_definition(function: Callable[..., Any], inputs: list[Array]) -> list[Array]:
    parameters = Parameters(function, (), ())
    call = parameters.call(inputs, {})
    traced = specialise.trace_call(function, call.key, call.names, lambda f, a: f(**a))
    verify(traced.graph, operators())
    values = {name: inputs[p] for name, p in zip(traced.graph.inputs, traced.used, strict=True)}
    results = _values(traced.graph, values)
    return [results[name] for name in traced.graph.outputs]


def _values(graph: Graph, inputs: dict[str, Array]) -> dict[str, Array]:
    values = {**graph.constants, **inputs}
    for node in graph.nodes:
        tensors = [placeholder(graph.types[i].shape, graph.types[i].dtype, i) for i in node.inputs]
        results = operators()[node.op].lower(graph.call(node), tensors)
        feeds = {t: values[t.name] for t in tensors}
        values.update(zip(node.outputs, evaluate(results, feeds), strict=True))
    return values
