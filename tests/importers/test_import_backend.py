"""The ONNX node tests: each is imported, optimised and evaluated by its definition, or is refused in clear words."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import onnx
import pytest
from graph_oracle import evaluate_graph

from polycomp.dtypes import DType
from polycomp.errors import ModelError, UnsupportedOperatorError
from polycomp.graph import Graph
from polycomp.importers.onnx import import_onnx
from polycomp.options import Options
from polycomp.passes import run_passes

EXPECTED = 950
"""At least so many of the node tests pass with the onnx package this was written against."""


@pytest.fixture(scope="module")
def cases() -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        node = pytest.importorskip("onnx.backend.test.case.node")
        return list(node.collect_testcases(None))


def _graph(case: Any) -> Graph | None:
    """The optimised graph; None where the model is out of reach for a reason that is told."""
    try:
        return run_passes(import_onnx(case.model), Options(verify=True))
    except UnsupportedOperatorError as error:
        assert "support" in str(error) or "could not be expanded" in str(error)
        return None
    except ModelError as error:
        assert "opset" in str(error), case.name  # models of other domains alone
        return None


def _agrees(case: Any, graph: Graph) -> bool:
    names = [i.name for i in case.model.graph.input]
    for inputs, outputs in case.data_sets:
        if any(isinstance(value, onnx.TensorProto) for value in (*inputs, *outputs)):
            return False  # element types that numpy lacks
        feeds = {n: np.asarray(a) for n, a in zip(names, inputs, strict=False) if n in graph.inputs}
        found = evaluate_graph(graph, feeds)
        for info, expected in zip(case.model.graph.output, outputs, strict=False):
            rtol = 2e-2 if np.asarray(expected).dtype == DType.BFLOAT16.numpy else 2e-3
            np.testing.assert_allclose(found[info.name], expected, rtol=rtol, atol=1e-4, err_msg=case.name)
    return True


def test_node_tests(cases: list[Any]) -> None:
    agreed = 0
    for case in cases:
        graph = _graph(case)
        if graph is not None:
            agreed += _agrees(case, graph)
    assert agreed >= EXPECTED
