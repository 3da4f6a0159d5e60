"""Values that lie in the memory of others: at the borders of the graph, and in the plan of the arena."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from polycomp.driver.compile import compile_model
from polycomp.options import Options
from polycomp.runtime import Module

Array = np.ndarray[Any, Any]


def compiled(nodes: Sequence[onnx.NodeProto], inputs: dict[str, list[Any]], outputs: Sequence[str]) -> Module:
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.array([n], np.int64), f"rows{n}") for n in (1, 3, 5)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    return compile_model(model, Options(cache=False, jobs=1)).module(1)


def kernels(module: Module) -> list[str]:
    """What the kernels of the module are called, without their keys."""
    return sorted(s.symbol.rpartition("_")[0] for s in module.manifest.steps)


def softmax(x: Array) -> Array:
    powers = np.exp(x - x.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True))


def data(*shape: int) -> Array:
    return np.random.default_rng(len(shape)).standard_normal(shape, np.float32)


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


def same(found: Array, wanted: Array) -> None:
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_a_joined_output_a_part_and_a_piece_of_it_are_all_written() -> None:
    nodes = [node("Softmax", "x", "s"), node("LogSoftmax", "x", "l"), node("Concat", "s l x s", "all", axis=0)]
    nodes += [node("Slice", "all rows1 rows3", "piece")]
    module = compiled(nodes, {"x": [4, 16]}, ["all", "s", "piece"])
    x = data(4, 16)
    found = module.run({"x": x})
    same(found["all"], np.concatenate([softmax(x), np.log(softmax(x)), x, softmax(x)]))
    same(found["s"], softmax(x))
    same(found["piece"], found["all"][1:3])
    assert not any("concat" in kernel for kernel in kernels(module))


def test_pieces_of_the_callers_array_are_read_where_they_are() -> None:
    nodes = [
        node("Slice", "x rows1 rows3", "a"),
        node("Slice", "x rows3 rows5", "b"),
        node("Add", "a b", "sum"),
        node("Softmax", "sum", "y"),
    ]
    module = compiled(nodes, {"x": [5, 5]}, ["y"])
    x = data(5, 5)
    same(module.run({"x": x})["y"], softmax(x[1:3] + x[3:]))
    assert kernels(module) == ["softmax_add"]


def test_a_block_that_grows_has_one_memory() -> None:
    """What DenseNets do: every layer's result is put behind all before it."""
    nodes, wanted, name = [], data(1, 4, 16), "x0"
    nodes.append(node("Softmax", "x", "x0"))
    x = wanted
    wanted = softmax(x)
    for layer in range(1, 5):
        nodes += [node("Softmax", name, f"n{layer}"), node("Concat", f"{name} n{layer}", f"x{layer}", axis=1)]
        wanted, name = np.concatenate([wanted, softmax(wanted)], 1), f"x{layer}"
    module = compiled([*nodes, node("ReduceSum", "x4", "y", keepdims=0)], {"x": [1, 4, 16]}, ["y"])
    same(module.run({"x": x})["y"], wanted.sum())
    assert {kernel.split("_")[0] for kernel in kernels(module)} == {"softmax", "reduce"}
    assert module.manifest.arena_bytes == wanted.nbytes


def test_sizes_that_are_bound_at_each_run() -> None:
    nodes = [node("Softmax", "x", "a"), node("LogSoftmax", "y", "b"), node("Concat", "a b", "ab", axis=0)]
    nodes += [node("Softmax", "ab", "c"), node("Concat", "c ab", "z", axis=0)]
    module = compiled(nodes, {"x": ["n", 16], "y": ["m", 16]}, ["z"])
    assert not any("concat" in kernel for kernel in kernels(module))
    for n, m in ((1, 1), (3, 5), (17, 2)):
        x, y = data(n, 16), data(m, 16)
        ab = np.concatenate([softmax(x), np.log(softmax(y))])
        same(module.run({"x": x, "y": y})["z"], np.concatenate([softmax(ab), ab]))
