"""Models of float32 in mixed precision: products on tensor cores, results as in float32 but for rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from cuda_harness.model import device_parts, run_on_harness
from encoder import encoder, sentences
from gpu_machine import needs_harness
from test_cuda_models import squeezenet

import polycomp

INSTRUCTION = {"float16": "pc_mma_half(", "bfloat16": "pc_mma_bfloat16("}
TOLERANCE = {"float16": 1e-2, "bfloat16": 5e-2}

Feeds = dict[str, np.ndarray[Any, Any]]


def sized_encoder(batch: int, length: int) -> tuple[onnx.ModelProto, Feeds]:
    """An encoder for sentences of one size, and some of these."""
    model = encoder(width=64, heads=2)
    for value in model.graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, (batch, length), strict=True):
            dim.dim_value = size
    return model, dict(sentences(batch, length))


def models() -> dict[str, tuple[onnx.ModelProto, Feeds]]:
    """With inputs."""
    return {"squeezenet": squeezenet(64), "encoder": sized_encoder(2, 16)}


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["squeezenet", "encoder"])
def test_all_products_are_on_tensor_cores(name: str, precision: str) -> None:
    model, _ = models()[name]
    _, sources = device_parts(model, precision)
    products = {symbol: text for symbol, text in sources.items() if symbol.startswith(("conv", "mat_mul"))}
    assert products
    assert [symbol for symbol, text in products.items() if INSTRUCTION[precision] not in text] == []


@needs_harness
@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["squeezenet", "encoder"])
def test_results_are_near_those_of_float32(name: str, precision: str) -> None:
    model, feeds = models()[name]
    right = polycomp.compile(model, threads=1, cache=False, jobs=1).run(feeds)
    got = run_on_harness(model, precision=precision).run(feeds)
    for output, wanted in right.items():
        assert got[output].dtype == wanted.dtype
        scale = float(np.max(np.abs(wanted)))
        np.testing.assert_allclose(got[output] / scale, wanted / scale, rtol=0, atol=TOLERANCE[precision])
