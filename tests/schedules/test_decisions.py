"""Decisions of schedules: they are told, they can be made otherwise, and every alternative computes the same."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np
import pytest
from onnx import TensorProto, helper

from polycomp import te
from polycomp.decisions import Decision, Decisions, Value
from polycomp.driver.compile import compile_model
from polycomp.errors import ScheduleError
from polycomp.expr import maximum
from polycomp.loops import lower_kernel
from polycomp.loops.interpreter import interpret
from polycomp.options import Options
from polycomp.poly.legality import verify_kernel
from polycomp.schedules import Schedule
from polycomp.schedules.library.choose import build_schedule
from polycomp.target import Target
from polycomp.te import Tensor
from polycomp.te.evaluate import evaluate

SMALL = Target("cpu", "x86_64-unknown-linux-gnu", "x86-64", (), vector_bytes=16, vector_registers=8, l2_bytes=2048)


def product(rows: int, columns: int, depth: int) -> tuple[list[Tensor], list[Tensor]]:
    a, b = te.placeholder((rows, depth), name="a"), te.placeholder((depth, columns), name="b")
    k = te.reduce_axis(depth, "k")
    c = te.compute((rows, columns), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), "c")
    return [a, b], [te.compute((rows, columns), lambda i, j: maximum(c[i, j], 0.0), "o")]


def built(inputs: Sequence[Tensor], outputs: Sequence[Tensor], decisions: Decisions | None = None) -> Schedule:
    return build_schedule("k", inputs, outputs, {}, SMALL, decisions or Decisions())


def panels(rows: int, columns: int, depth: int, width: int) -> tuple[list[Tensor], list[Tensor]]:
    """A product with a matrix that lies in panels of ``width`` columns."""
    a, b = te.placeholder((rows, depth), name="a"), te.placeholder((-(-columns // width), depth, width), name="b")
    k = te.reduce_axis(depth, "k")
    c = te.compute((rows, columns), lambda i, j: te.sum(a[i, k] * b[j // width, k, j % width], axis=k), "c")
    return [a, b], [c]


INPUTS, OUTPUTS = product(24, 21, 9)
MADE = built(INPUTS, OUTPUTS).decided
DEFINITIONS = {"product": (INPUTS, OUTPUTS), "panels": panels(23, 19, 9, 8), "row": product(1, 40, 12)}


def test_a_product_tells_its_decisions() -> None:
    assert {d.name for d in MADE} >= {"c.tile", "c.pack", "c.panels_per_block", "c.prefetch"}
    for decision in MADE:
        assert decision.value in decision.alternatives
        assert len(set(decision.alternatives)) == len(decision.alternatives)


def some(decision: Decision) -> list[Value]:
    """Up to five other alternatives, from one end to the other."""
    others = [a for a in decision.alternatives if a != decision.value]
    return others[:: max(1, len(others) // 4)]


CHANGES = [(kind, d.name, v) for kind, made in DEFINITIONS.items() for d in built(*made).decided for v in some(d)]


@pytest.mark.parametrize(("kind", "name", "value"), CHANGES)
def test_every_alternative_computes_the_same(kind: str, name: str, value: Value) -> None:
    inputs, outputs = DEFINITIONS[kind]
    schedule = built(inputs, outputs, Decisions().replace(name, value))
    assert next(d for d in schedule.decided if d.name == name).value == value
    assert verify_kernel(schedule.kernel).violation is None
    random = np.random.default_rng(0)
    feeds = [random.standard_normal(t.shape).astype(np.float32) for t in inputs]
    nest = lower_kernel(schedule.kernel)
    merged = [f.reshape(b.shape) for f, b in zip(feeds, nest.inputs, strict=True)]
    (found,) = interpret(nest, merged, {})
    (expected,) = evaluate(outputs, dict(zip(inputs, feeds, strict=True)), {})
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=2e-5, atol=2e-5)


def test_the_loops_of_panels_can_be_in_another_order() -> None:
    inputs, outputs = DEFINITIONS["panels"]
    traces = {str(built(inputs, outputs, Decisions().replace("c.panels_per_block", n)).trace) for n in (0, 2, 3)}
    assert len(traces) == 3


def test_other_decisions_make_another_schedule() -> None:
    (tile,) = [d for d in MADE if d.name == "c.tile"]
    other = built(INPUTS, OUTPUTS, Decisions().replace(tile.name, some(tile)[0]))
    assert str(other) != str(built(INPUTS, OUTPUTS))
    assert str(built(INPUTS, OUTPUTS, Decisions().replace(tile.name, tile.value))) == str(built(INPUTS, OUTPUTS))


def test_what_is_no_alternative_is_refused() -> None:
    with pytest.raises(ScheduleError, match=r"'c.tile' cannot be \(99, 99, 99\); the alternatives are \("):
        built(INPUTS, OUTPUTS, Decisions().replace("c.tile", (99, 99, 99)))


def test_what_is_no_decision_is_refused() -> None:
    known = "its decisions are: 'c.streamed', 'c.tile'"
    with pytest.raises(ScheduleError, match=rf"this schedule has no decision 'c.colour'; {known}"):
        built(INPUTS, OUTPUTS, Decisions().replace("c.colour", 3))


def test_repeated_names_are_made_unique() -> None:
    schedule = Schedule(OUTPUTS, decisions=Decisions().replace("n#2", 7))
    assert [schedule.decide("n", 5, [5, 7]), schedule.decide("n", 5, [5, 7])] == [5, 7]
    assert schedule.decided == (Decision("n", 5, (5, 7)), Decision("n#2", 7, (5, 7)))


def test_decisions_as_text() -> None:
    decisions = Decisions().replace("tile", (1, 6, 2)).replace("order", "rows").replace("pack", False)
    assert decisions.to_json() == '{"order": "rows", "pack": false, "tile": [1, 6, 2]}'
    assert Decisions.from_json(decisions.to_json()) == decisions
    assert not Decisions()


@pytest.mark.parametrize("text", ["", "[1]", '{"tile": [1.5]}', '{"tile": null}'])
def test_what_is_no_text_of_decisions(text: str) -> None:
    with pytest.raises(ScheduleError, match=r"these are no decisions as Decisions.to_json writes them"):
        Decisions.from_json(text)


def test_options_carry_decisions_to_kernels(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["a", "b"], ["c"])],
        "product",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("a", [40, 33]), ("b", [33, 64]))],
        [helper.make_tensor_value_info("c", TensorProto.FLOAT, [40, 64])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()
    options = Options(jobs=1, threads=1)
    usual = compile_model(model, options)
    symbol = usual.manifest.steps[0].symbol
    other = dataclasses.replace(options, decisions={symbol: Decisions().replace("t2.tile", (1, 2, 1))})
    tuned = compile_model(model, other)
    assert tuned.parts.shared_object != usual.parts.shared_object
    assert compile_model(model, options).parts.shared_object == usual.parts.shared_object
    random = np.random.default_rng(0)
    feeds = {n: random.standard_normal(s).astype(np.float32) for n, s in (("a", (40, 33)), ("b", (33, 64)))}
    np.testing.assert_allclose(tuned.module(1).run(feeds)["c"], feeds["a"] @ feeds["b"], rtol=1e-4, atol=1e-4)
