"""Modules for GPUs that are compiled where there is none."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import onnx
import pytest
from gpu_machine import Machine, machine, needs_harness, needs_nvrtc, no_gpu
from onnx import TensorProto, helper

import polycomp as pc
from polycomp.driver.targets import DeferredModule
from polycomp.errors import TargetError
from polycomp.runtime import read_module_file
from polycomp.runtime.cuda import module

__all__ = ["machine", "no_gpu"]

pytestmark = needs_nvrtc


def doubling() -> onnx.ModelProto:
    """``y = x + x`` for vectors of ``n`` floats."""
    nodes = [helper.make_node("Add", ["x", "x"], ["y"], "twice")]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy")
    return helper.make_model(helper.make_graph(nodes, "doubling", [x], [y]), ir_version=8)


def test_it_can_be_looked_at_and_saved(no_gpu: None, tmp_path: pathlib.Path) -> None:
    made = pc.compile(doubling(), target="cuda,arch=sm_80", cache=False)
    assert isinstance(made, DeferredModule)
    assert repr(made) == "<DeferredModule 'doubling' [x: float32[n]] -> [y: float32[n]] for sm_80>"
    assert made.manifest.device is not None
    made.save(tmp_path / "doubling.pcm")
    assert read_module_file(tmp_path / "doubling.pcm").manifest == made.manifest


@pytest.mark.parametrize(
    "run", [lambda m, x: m.run({"x": x}), lambda m, x: m.run_profiled({"x": x}), lambda m, x: m.prepare([x.shape])]
)
def test_running_it_says_what_is_missing(no_gpu: None, run: Any) -> None:
    made = pc.compile(doubling(), target="cuda,arch=sm_80", cache=False)
    with pytest.raises(TargetError, match="cupy, which is not installed"):
        run(made, np.ones(3, np.float32))


def test_one_for_another_gpu_can_be_saved_too(machine: Machine) -> None:
    made = pc.compile(doubling(), target="cuda,arch=sm_120", cache=False)  # the machine's is sm_90
    assert isinstance(made, DeferredModule)
    with pytest.raises(pc.PolycompError, match="compile the model again for it, with --target cuda,arch=sm_90"):
        made.run({"x": np.ones(3, np.float32)})


@needs_harness
def test_it_runs_once_there_is_a_gpu(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise TargetError("there is no GPU yet")

    with monkeypatch.context() as before:
        before.setattr(module, "open_device", none)
        made = pc.compile(doubling(), target="cuda,arch=sm_80", cache=False)
    assert isinstance(made, DeferredModule)
    for n in (1, 100, 1000):
        x = np.arange(n, dtype=np.float32)
        np.testing.assert_array_equal(made.run({"x": x})["y"], x + x)
    assert len(machine.devices) == 1
