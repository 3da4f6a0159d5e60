"""The benchmarks for GPUs, as far as they go without one: what they count, how they share time, what they print."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import json
import math
import pathlib
import signal
import subprocess
import sys
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

TESTS = pathlib.Path(__file__).parents[1]
BENCHMARKS = TESTS.parent / "benchmarks"
MODULES = ("batched", "cuda_operators", "cuda_speed", "cuda_static", "cuda_timing", "light_models", "torch_models")

CODE = """
	.target	sm_90a
	.section	.text.gemm_0,"ax",@progbits
gemm_0:
.text.gemm_0:
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/                   LDG.E.128.CONSTANT R4, desc[UR4][R2.64] ;
        /*0020*/               @P0 LDGSTS.E.BYPASS.128 [R5], desc[UR4][R2.64] ;
        /*0030*/              @!P1 HMMA.16816.F32 R8, R4, R6, R8 ;
        /*0040*/                   HMMA.16816.F32 R12, R4, R7, R12 ;
.L_x_1:
        /*0050*/             @!UP0 UTMALDG.2D [UR8], [UR10] ;
        /*0060*/                   BRA `(.L_x_1);
.text.add_0:
        /*0000*/                   LDG.E R4, desc[UR4][R2.64] ;
        /*0010*/                   STS.128 [R5], R4 ;
        /*0020*/                   IMMA.16832.S8.S8 R8, R4.ROW, R6.COL, R8 ;
"""


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a benchmark anew."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture
def static(load: Any) -> ModuleType:
    return load("cuda_static")


@pytest.fixture
def speed(load: Any) -> ModuleType:
    return load("cuda_speed")


@pytest.fixture
def timing(load: Any) -> ModuleType:
    return load("cuda_timing")


@pytest.mark.parametrize("name", ["cuda_static", "cuda_speed", "cuda_timing", "cuda_operators"])
def test_imported_without_torch_and_cupy(name: str, load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for absent in ("torch", "cupy"):
        monkeypatch.setitem(sys.modules, absent, None)
    assert load(name).__doc__


def test_the_name_cuda_is_still_that_of_a_package(tmp_path: pathlib.Path) -> None:
    """The scripts' folder comes first where Python looks: cupy and torch find cuda.py there, and NVIDIA's by it."""
    assert not {"cupy", "torch", "onnx", "numpy"} & {path.stem for path in BENCHMARKS.glob("*.py")}
    (tmp_path / "cuda").mkdir()
    (tmp_path / "cuda" / "pathfinder.py").write_text("found = True")
    folders = [str(BENCHMARKS), str(tmp_path)]
    code = f"import sys; sys.path[:0] = {folders!r}; import cuda.pathfinder as p; print(p.found)"
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert ran.stdout == "True\n"


# Instructions


def test_instructions_are_counted_by_function(static: ModuleType) -> None:
    counted = static.count_opcodes(CODE)
    assert list(counted) == ["gemm_0", "add_0"]
    assert counted["gemm_0"]["HMMA.16816.F32"] == 2
    assert counted["gemm_0"]["LDGSTS.E.BYPASS.128"] == counted["gemm_0"]["UTMALDG.2D"] == 1
    assert sum(counted["gemm_0"].values()) == 7
    kinds = {name: [static.count_of(kind, o) for kind in static.KINDS] for name, o in counted.items()}
    assert kinds == {"gemm_0": [2, 2, 2], "add_0": [1, 0, 1]}


@pytest.mark.parametrize(
    ("opcode", "kinds"),
    [
        ("HGMMA.64x128x16.F32.BF16", ["tensor"]),
        ("DMMA.8x8x4", ["tensor"]),
        ("UTCHMMA", ["tensor"]),
        ("FFMA", []),
        ("HFMA2.MMA", []),
        ("LDG.E.64", []),
        ("LDSM.16.M88.4", []),
        ("LDS.U.128", ["128-bit"]),
        ("STG.E.128", ["128-bit"]),
        ("LDGSTS.E.64", ["async"]),
        ("LDGDEPBAR", []),
        ("UBLKCP", ["async"]),
    ],
)
def test_kinds_of_instructions(static: ModuleType, opcode: str, kinds: list[str]) -> None:
    assert [kind for kind in static.KINDS if static.count_of(kind, {opcode: 1})] == kinds


# Figures


def function(static: ModuleType, name: str, **changes: Any) -> Any:
    figures = {"arch": "sm_80", "block": 256, "registers": 40, "shared_bytes": 2048, "local_bytes": 0}
    return static.Function(name, **(figures | {"spill_bytes": 0, "occupancy": 0.5, "opcodes": None} | changes))


def test_figures_of_a_model(static: ModuleType) -> None:
    gemm = static.Kernel(
        "mat_mul_1",
        (
            function(static, "mat_mul_1_0", opcodes={"HMMA.16816.F32": 4}, registers=128, occupancy=0.25),
            function(static, "mat_mul_1_1"),
        ),
    )
    add = static.Kernel("add_2", (function(static, "add_2_0", occupancy=1.0),))
    failed = static.Kernel("conv_3", failure="too hard")
    model = static.Model("tiny", {gemm: 3, add: 2, failed: 1})
    figures = static.model_figures(model, "sm_80")
    assert figures == {
        "kernels": 3, "failed": 1, "functions": 3, "launches": 8, "products": 1, "registers": 128, "shared_bytes": 2048,
        "lowest_occupancy": 0.25, "median_occupancy": 0.5, "local_bytes": 0, "spill_bytes": 0, "tensor": 1, "async": 0,
        "128-bit": 0,
    }  # fmt: skip
    cells = static.model_cells(model, "sm_80", True)
    assert cells == ["3", "1", "3", "8", "128", "2.0", "25", "50", "0", "0", "1", "1", "0", "0"]
    assert static.model_cells(model, "sm_80", False)[-3:] == ["no nvdisasm"] * 3
    assert static.model_cells(model, "sm_90a", True) == ["3", "1"]
    assert model.problems == ["conv_3: too hard"]
    assert json.loads(static.as_json([model], ["sm_80"]))[0]["figures"]["sm_80"] == figures


def test_problems_of_a_kernel(static: ModuleType) -> None:
    spills, refused = function(static, "a_0", spill_bytes=16), function(static, "a_1", occupancy=0.0)
    kernel = static.Kernel("a", (function(static, "a_2"), spills, refused))
    assert kernel.problems == ["a_0 spills 16 bytes on sm_80", "a_1 takes more than a launch on sm_80 may have"]


def test_what_is_shown(static: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    kernel = static.Kernel("conv_1", (function(static, "conv_1_0", opcodes={"HMMA.1688.F32": 2, "FFMA": 9}),))
    static.show(
        [static.Model("tiny", {kernel: 1}), static.Model("none", failure="no such operator")], ["sm_80"], None, True
    )
    shown = capsys.readouterr().out
    for text in ("conv_1_0", "2 HMMA.1688.F32", "pip install nvidia-cuda-nvdisasm", "none: no such operator"):
        assert text in shown
    assert "FFMA" not in shown


def test_weights_have_their_shape_alone(static: ModuleType, load: Any) -> None:
    (path,) = [p for p in load("light_models").package_models() if p.stem == "light_squeezenet"]
    ours, filled = static.with_shapes_alone(path), load("light_models").load_filled(path)
    assert shapes(ours) == shapes(filled)
    assert [n.op_type for n in ours.graph.node] == [n.op_type for n in filled.graph.node]


def shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    return {t.name: tuple(t.dims) for t in model.graph.initializer}


def test_options(static: ModuleType) -> None:
    given = static._arguments(["--only", "bert,vgg", "--arch", "sm_80", "--kernels"])
    assert (given.only, given.arch, given.kernels, given.json) == (["bert", "vgg"], "sm_80", True, False)
    assert static.make_options("cuda,arch=sm_80", "float32").target.features == ("sm_80",)


# Several samples


def test_a_model_for_several_samples(load: Any) -> None:
    nodes = [
        helper.make_node("Reshape", ["w", "flat"], ["scale"]),
        helper.make_node("Mul", ["x", "scale"], ["scaled"]),
        helper.make_node("Reshape", ["scaled", "rows"], ["y"]),
    ]
    constants = {"w": np.arange(6.0, dtype=np.float32), "flat": np.array([1, 2, 3]), "rows": np.array([1, 6])}
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", (1, 2, 3)), ("y", (1, 6)))]
    weights = [numpy_helper.from_array(a, n) for n, a in constants.items()]
    model = helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], weights))
    several = load("batched").with_batch(model, 4)
    x = np.random.default_rng(0).standard_normal((4, 2, 3), np.float32)
    (found,) = ReferenceEvaluator(several).run(None, {"x": x})
    single = ReferenceEvaluator(model)
    np.testing.assert_array_equal(found, np.concatenate([single.run(None, {"x": x[i : i + 1]})[0] for i in range(4)]))


def test_operators_that_wait_for_memory(load: Any) -> None:
    for operator in load("cuda_operators").MEMORY:
        model = operator.model()
        onnx.checker.check_model(model)
        assert [i.name for i in model.graph.input] == [f"x{n}" for n in range(operator.inputs)]
        assert 64e6 < operator.bytes < 512e6
        onnx.shape_inference.infer_shapes(model, data_prop=True, strict_mode=True)  # raises for another result


# Time


def section(timing: ModuleType, name: str, weight: float, rows: Any) -> Any:
    return timing.Section(name, name, weight, [timing.Column("name", "name")], lambda: rows)


def endless() -> Any:
    yield {"name": "first"}
    signal.pause()
    yield {"name": "never"}


def failing() -> Any:
    yield {"name": "first"}
    raise ValueError("no memory")


def test_a_section_is_cut_and_keeps_its_rows(timing: ModuleType) -> None:
    sections = [section(timing, "endless", 1, endless()), section(timing, "failing", 1e6, failing())]
    cut, failed = timing.run_sections(sections, 100.0)
    assert cut.rows == failed.rows == [{"name": "first"}]
    assert "cut after" in cut.note and failed.note == "ended by ValueError: no memory"
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_what_a_section_leaves_is_for_those_behind(timing: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = []
    limit = timing.time_limit
    monkeypatch.setattr(timing, "time_limit", lambda seconds: (limits.append(seconds), limit(1e6))[1])
    clock = itertools.chain([0.0, 0.0, 10.0, 40.0]).__next__  # at the start, and when each section begins
    sections = [section(timing, name, weight, []) for name, weight in (("a", 1), ("b", 1), ("c", 2))]
    assert [o.note for o in timing.run_sections(sections, 100.0, clock)] == ["", "", ""]
    assert limits == [25.0, 30.0, 60.0]


def test_subjects_take_turns(timing: ModuleType) -> None:
    calls: list[str] = []
    answers = {"a": itertools.cycle([1.0, 2.0, 9.0]), "b": itertools.cycle([4.0])}

    def subject(name: str) -> Any:
        return lambda count: (calls.append(name), next(answers[name]))[1]

    assert timing.race({name: subject(name) for name in "ab"}, 3) == {"a": 2.0, "b": 4.0}
    assert calls == list("aabb" + "ab" + "ba" + "ab")
    assert timing.race({}, 3) == {}


def test_columns(timing: ModuleType) -> None:
    column = timing.Column("ms", "seconds", ".2f", 1e-3)
    assert [column.cell(row) for row in ({"seconds": 0.0125}, {})] == ["12.50", "-"]
    assert timing.Column("samples", "batch").cell({"batch": 32}) == "32"


def test_a_replay_on_a_gpu_of_numpy(timing: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TESTS / "runtime"))
    fake = importlib.import_module("fake_cuda")
    gpu = fake.FakeDevice()
    module = fake.cuda_module(fake.tiny_parts(), gpu)
    x = np.ones(40, np.float32)
    replay = timing.Replay(module, {"x": x, "y": x})
    np.testing.assert_array_equal(replay.outputs["out"], 2 + np.arange(40, dtype=np.float32))
    graphs = gpu.count("graph")
    assert replay.seconds(4) == pytest.approx(250e-9)  # the fake's clock goes on by a microsecond per event
    assert gpu.count("graph") == graphs + 4


# The script


def test_sections_are_chosen_by_name(speed: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert speed._arguments(["--only", "gemm,models"]).only == ["gemm", "models"]
    assert speed._arguments([]).only == list(speed.SECTIONS)
    with pytest.raises(SystemExit):
        speed._arguments(["--only", "gem"])
    assert "there is no section 'gem'; there are peaks, memory" in capsys.readouterr().err


def test_what_is_missing_is_said(
    speed: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["cuda_speed.py"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert speed.main() == 2
    assert capsys.readouterr().err == "This needs torch and cupy, which are not installed.\n"


def test_what_is_shown_of_a_section(speed: ModuleType, timing: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"name": "softmax", "bytes": 2e8, "polycomp": 2e12, "share": 0.5}, {"name": "sum", "failure": "it spills"}]
    measured = timing.Section("memory", "Memory", 1, speed.MEMORY_COLUMNS, lambda: rows)
    outcome = timing.Outcome(measured, rows, "cut after 3 s: the rest is missing")
    speed.show(outcome, speed.rich.console.Console(width=140))
    shown = capsys.readouterr().out
    for text in ("softmax", "2000", "0.50", "cut after 3 s", "geometric mean 0.50, lowest 0.50", "sum: it spills"):
        assert text in shown
    stored = json.loads(speed.as_json([outcome], {"device": "none"}))
    assert stored["sections"]["memory"] == {"rows": rows, "note": outcome.note}


def test_wrong_outputs_are_told(speed: ModuleType) -> None:
    right = {"y": np.ones(3, np.float32)}
    assert speed.error_figures(right, right, 1e-3) == {"error": 0.0}
    assert speed.error_figures({"y": np.full(3, 1.5, np.float32)}, right, 1e-3) == {
        "error": 0.5,
        "failure": "it is wrong: relative error 5.0e-01",
    }


# torch


EXPORTED = {
    "mobilenet_v2": 3_487_816, "minilm_l6_s128": 22_565_376, "bert_base_s128": 108_891_648, "vit_b16": 85_798_656,
    "gpt2_s64": 163_037_184,
}  # fmt: skip
"""Weights of the ONNX files that the onnx package has not; those that exporters found equal are counted each."""


def test_networks_of_torch_have_as_many_weights(load: Any) -> None:
    torch = pytest.importorskip("torch")
    networks = load("torch_models")
    expected = dict(EXPORTED)
    for path in load("light_models").package_models():
        name = path.stem.removeprefix("light_")
        if name in networks.MODELS:
            expected[name] = count_weights(onnx.load(path))
    with torch.device("meta"):
        counts = {name: networks.weight_count(make()) for name, make in networks.MODELS.items()}
    assert counts == expected
    assert sorted(counts) == sorted(load("cuda_speed").COMPARED)


def count_weights(model: onnx.ModelProto) -> int:
    """Numbers in the weights of one of the package's models, the largest of which are made by nodes."""
    graph = model.graph
    made = {t.name: numpy_helper.to_array(t) for t in graph.initializer if t.data_type == TensorProto.INT64}
    large = sum(math.prod(made[n.input[0]].tolist()) for n in graph.node if n.op_type == "ConstantOfShape")
    # One of a single element is left over from the export.
    small = sum(
        math.prod(t.dims) for t in graph.initializer if t.data_type == TensorProto.FLOAT and math.prod(t.dims) > 1
    )
    return large + small
