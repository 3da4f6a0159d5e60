"""Models whose products have kernels of their own on sm_90a, executed on the CPU as either GPU would."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from cuda_harness import HarnessDevice, harness_available
from cuda_harness.model import device_parts, kernels_of
from onnx import TensorProto, helper, numpy_helper

from polycomp.runtime.cuda.module import CudaModule
from polycomp.runtime.image import assemble

pytestmark = pytest.mark.skipif(not harness_available(), reason="needs g++ 12 or later")

ROWS, DEPTH, COLUMNS = 768, 64, 768


def weights() -> np.ndarray:
    return np.random.default_rng(1).integers(-4, 5, (DEPTH, COLUMNS)).astype(np.float32)


def product() -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [ROWS, DEPTH])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [ROWS, COLUMNS])
    nodes = [helper.make_node("MatMul", ["x", "w"], ["p"], "product"), helper.make_node("Relu", ["p"], ["y"], "relu")]
    graph = helper.make_graph(nodes, "product", [x], [y], [numpy_helper.from_array(weights(), "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(("architectures", "gpu"), [("sm_90a", "sm_90"), ("sm_80+sm_90a", "sm_80")])
def test_each_gpu_executes_the_launches_that_are_for_it(architectures: str, gpu: str) -> None:
    parts, sources = device_parts(product(), "float16", architectures)
    kernels = kernels_of(sources)
    module = CudaModule(assemble(parts), HarnessDevice({"model": kernels}, gpu))  # the last of the sources kept
    x = np.random.default_rng(0).integers(-4, 5, (ROWS, DEPTH)).astype(np.float32)
    found = module.run({"x": x})["y"]
    # Whole numbers, rounded to 11 bits on their way out.
    np.testing.assert_array_equal(found, np.maximum(x @ weights(), 0).astype(np.float16).astype(np.float32))
    uses = any("pc_multiply_half" in source for source in sources.values())
    assert uses == (gpu == "sm_90")
    assert parts.manifest.device is not None
    special = [step.special for step in parts.manifest.device.steps if step.special]
    assert [list(launches) for launches in special] == [["sm_90a"]]
