"""Whole models for GPUs, executed on the CPU with the threads forwards and backwards, against the CPU target."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from cuda_harness import sanitizers_available
from device_models import Trial, compile_for_races, expect_right
from encoder import encoder, sentences
from gpu_machine import needs_harness
from light_models import light_model
from separate_launches import compile_separately

pytestmark = needs_harness
needs_sanitizers = pytest.mark.skipif(not sanitizers_available(), reason="g++ has no sanitizers here")


def squeezenet(size: int = 224) -> tuple[onnx.ModelProto, dict[str, np.ndarray[Any, Any]]]:
    """The model, for images of ``size`` by ``size`` pixels, and one of them."""
    model = light_model("squeezenet")
    (image,) = [i for i in model.graph.input if i.name == "data_0"]
    for dim in image.type.tensor_type.shape.dim[2:]:
        dim.dim_value = size
    pixels = np.random.default_rng(1).standard_normal((1, 3, size, size)).astype(np.float32)
    return model, {"data_0": pixels}


def encoder_trial(dtype: str, *sizes: tuple[int, int]) -> Trial:
    """An encoder, with sentences of some batches and lengths."""
    return Trial(encoder(dtype=dtype), [sentences(batch, length) for batch, length in sizes])


def test_squeezenet() -> None:
    model, image = squeezenet()
    expect_right({"squeezenet": Trial(model, [image])})


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_encoder(dtype: str) -> None:
    expect_right({f"encoder {dtype}": encoder_trial(dtype, (1, 1), (2, 7), (3, 33), (1, 64))})


def test_squeezenet_has_no_races(request: pytest.FixtureRequest) -> None:
    model, image = squeezenet(224 if request.config.getoption("--all-conformance") else 64)
    expect_right({"squeezenet races": Trial(model, [image])}, compile_for_races)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_encoder_has_no_races(dtype: str) -> None:
    expect_right({f"encoder {dtype} races": encoder_trial(dtype, (1, 1), (2, 19))}, compile_for_races)


@needs_sanitizers
def test_squeezenet_stays_in_its_arrays() -> None:
    model, image = squeezenet()
    expect_right({"squeezenet memory": Trial(model, [image])}, compile_separately)


@needs_sanitizers
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_encoder_stays_in_its_arrays(dtype: str) -> None:
    expect_right({f"encoder {dtype} memory": encoder_trial(dtype, (1, 1), (3, 33))}, compile_separately)
