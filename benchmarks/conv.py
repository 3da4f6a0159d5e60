"""Convolutions, layer by layer: polycomp against onnxruntime (and OpenVINO, MNN), in GFLOP/s of a direct convolution.

The layers are all distinct convolutions of the onnx package's nine image networks, each as a model of one Conv with a
bias. Both compilers convert such a model's input and output to their own layouts and back, which a real network pays
once and not per layer; so two times are shown:

- kernel: what the convolution's own steps take, as both profilers report them (polycomp's steps without ToBlocked and
  FromBlocked, onnxruntime's Conv node without its reorders). The ratio and the geometric mean are made of these;
- call: the whole call from Python with the conversions, for all competitors alike.

Ratios above 1 mean that polycomp is faster. Errors are relative to a convolution in float64 of some of the channels.

    python benchmarks/conv.py [--only 3x3] [--only vgg19] [--threads 1] [--rounds 12] [--against openvino] [--json]
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import math
import pathlib
import re
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import rich.console
import rich.table
from light_models import package_models
from measure import Array, Peer, geometric_mean, interleaved, relative_error
from onnx import TensorProto, helper, numpy_helper

import polycomp as pc

_BORDERS = ("to_blocked", "from_blocked", "copy")
_CHECKED_CHANNELS = 8
_PROFILED_SECONDS = 0.015
"""Aim for the profiled calls of one competitor in one round: short, so that both meet a machine of the same speed."""


@dataclasses.dataclass(frozen=True)
class Layer:
    """One convolution: shapes as ONNX has them, pads as (top, left, bottom, right)."""

    data: tuple[int, ...]
    weights: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    group: int

    @property
    def name(self) -> str:
        kernel = "x".join(map(str, self.weights[2:]))
        kind = "" if self.group == 1 else " depthwise" if self.group == self.data[1] else f" {self.group} groups"
        return f"{kernel} s{self.strides[0]} {self.data[1]}->{self.weights[0]} {self.data[2]}x{self.data[3]}{kind}"

    @property
    def output(self) -> tuple[int, ...]:
        """The output's shape."""
        height, width = (
            (n + self.pads[d] + self.pads[d + 2] - k) // s + 1
            for d, (n, k, s) in enumerate(zip(self.data[2:], self.weights[2:], self.strides, strict=True))
        )
        return (self.data[0], self.weights[0], height, width)

    @property
    def flops(self) -> int:
        """Of a direct convolution."""
        return 2 * math.prod(self.output) * math.prod(self.weights[1:])

    def model(self, weights: Array, bias: Array) -> onnx.ModelProto:
        """A model of this layer alone."""
        attributes = {"strides": self.strides, "pads": self.pads, "group": self.group}
        node = helper.make_node("Conv", ["x", "w", "b"], ["y"], kernel_shape=self.weights[2:], **attributes)
        ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, self.data)]
        ends.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, self.output))
        constants = [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(bias, "b")]
        graph = helper.make_graph([node], "conv", ends[:1], ends[1:], constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def model_layers() -> dict[Layer, list[str]]:
    """The distinct convolutions of the package's models, each with the models that contain it."""
    found: dict[Layer, list[str]] = {}
    for path in package_models():
        model = onnx.shape_inference.infer_shapes(onnx.load(path), data_prop=True)
        values = [*model.graph.value_info, *model.graph.input, *model.graph.output]
        shapes = {v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in values}
        for node in model.graph.node:
            if node.op_type == "Conv":
                models = found.setdefault(_layer(node, shapes), [])
                models += [path.stem.removeprefix("light_")] * (path.stem.removeprefix("light_") not in models)
    return found


def _layer(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> Layer:
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    data, weights = (shapes[name] for name in node.input[:2])
    strides, pads = tuple(attributes.get("strides", (1, 1))), tuple(attributes.get("pads", (0,) * 4))
    return Layer(data, weights, strides, pads, int(attributes.get("group", 1)))


def convolve_exactly(layer: Layer, x: Array, w: Array, b: Array, channels: Sequence[int]) -> Array:
    """Some output channels of the layer in float64, [N, len(channels), H, W], as a sum over the kernel's taps."""
    _, _, height, width = layer.output
    top, left, bottom, right = layer.pads
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (top, bottom), (left, right)))
    depth, per_group = layer.weights[1], layer.weights[0] // layer.group
    result = np.empty((x.shape[0], len(channels), height, width))
    for position, channel in enumerate(channels):
        first = channel // per_group * depth
        total = np.full((x.shape[0], height, width), float(b[channel]))
        for i, j in np.ndindex(*layer.weights[2:]):
            rows = slice(i, i + (height - 1) * layer.strides[0] + 1, layer.strides[0])
            columns = slice(j, j + (width - 1) * layer.strides[1] + 1, layer.strides[1])
            part = padded[:, first : first + depth, rows, columns]
            total += np.tensordot(part, w[channel, :, i, j].astype(np.float64), (1, 0))
        result[:, position] = total
    return result


class _Profiled:
    """onnxruntime writing a profile: the microseconds of its Conv nodes in each run."""

    def __init__(self, model: bytes, feeds: Mapping[str, Array], threads: int, folder: pathlib.Path) -> None:
        self.session = _session(model, threads, folder / "profile")
        self.feeds = dict(feeds)

    def run(self) -> None:
        self.session.run(None, self.feeds)

    def microseconds(self) -> list[float]:
        events = json.loads(pathlib.Path(self.session.end_profiling()).read_text())
        kernels = [e for e in events if e.get("cat") == "Node" and e["name"].endswith("_kernel_time")]
        return [float(e["dur"]) for e in kernels if "Conv" in e["args"]["op_name"]]


def _session(model: bytes, threads: int, profile: pathlib.Path | None = None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@dataclasses.dataclass
class Row:
    """A layer's figures: seconds of the convolution alone and of the whole call, by competitor."""

    name: str
    models: list[str]
    flops: int
    algorithm: str = ""
    kernel: dict[str, float] = dataclasses.field(default_factory=dict)
    call: dict[str, float] = dataclasses.field(default_factory=dict)
    error: float | None = None
    failure: str = ""

    @property
    def ratio(self) -> float | None:
        """onnxruntime's time by ours, of the convolution alone."""
        return self.kernel["onnxruntime"] / self.kernel["polycomp"] if "polycomp" in self.kernel else None

    @property
    def call_ratios(self) -> dict[str, float]:
        """The competitors' times of a call by ours."""
        ours = self.call.get("polycomp")
        return {} if ours is None else {name: t / ours for name, t in self.call.items() if name != "polycomp"}


def measure(layer: Layer, models: list[str], arguments: argparse.Namespace) -> Row:
    """All competitors on one layer; what fails is told in the row."""
    row = Row(layer.name, models, layer.flops)
    generator = np.random.default_rng(0)
    x = generator.standard_normal(layer.data, dtype=np.float32)
    w = generator.standard_normal(layer.weights, dtype=np.float32) / np.float32(math.sqrt(math.prod(layer.weights[1:])))
    b = generator.standard_normal(layer.weights[0], dtype=np.float32)
    model = layer.model(w, b)
    try:
        module = pc.compile(model, target="cpu", threads=arguments.threads)
        channels = list(range(0, layer.weights[0], -(-layer.weights[0] // _CHECKED_CHANNELS)))
        found = module.run({"x": x})["y"][:, channels]
        row.error = relative_error([found], [convolve_exactly(layer, x, w, b, channels)])
        _time(row, module, model.SerializeToString(), {"x": x}, arguments)
    except Exception as problem:  # noqa: BLE001 - whatever went wrong is told in the row
        row.failure = f"{type(problem).__name__}: {problem}"
    return row


def _time(row: Row, module: pc.Module, model: bytes, feeds: dict[str, Array], arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="polycomp-benchmark-") as name:
        folder = pathlib.Path(name)
        _time_kernels(row, module, _Profiled(model, feeds, arguments.threads, folder), feeds, arguments)
        if arguments.call or arguments.against:
            session = _session(model, arguments.threads)
            runs: dict[str, Callable[[], object]] = {
                "polycomp": lambda: module.run(feeds),
                "onnxruntime": lambda: session.run(None, feeds),
            }
            for peer in arguments.against:
                runs[peer] = _open_peer(peer, model, feeds, arguments.threads, folder).run
            row.call = interleaved(runs, arguments.rounds)


def _time_kernels(
    row: Row, module: pc.Module, theirs: _Profiled, feeds: dict[str, Array], arguments: argparse.Namespace
) -> None:
    """Alternate between blocks of profiled calls of both."""
    theirs.run()
    _, steps = module.run_profiled(feeds)
    row.algorithm = " + ".join(dict.fromkeys(_stem(s.symbol) for s in steps if not _is_border(s.symbol)))
    seconds = max(1e-9 * sum(s.nanoseconds for s in steps), 1e-5)
    calls = max(2, min(200, round(_PROFILED_SECONDS / seconds)))
    ours: list[int] = []
    for _ in range(arguments.rounds):
        for _ in range(calls):
            _, steps = module.run_profiled(feeds)
            ours.append(sum(s.nanoseconds for s in steps if not _is_border(s.symbol)))
        for _ in range(calls):
            theirs.run()
    durations = theirs.microseconds()[1:]
    row.kernel = {"polycomp": 1e-9 * statistics.median(ours), "onnxruntime": 1e-6 * statistics.median(durations)}


def _stem(symbol: str) -> str:
    return re.sub(r"_[0-9a-f]{16}$", "", symbol)


def _is_border(symbol: str) -> bool:
    return _stem(symbol) in _BORDERS


def _open_peer(name: str, model: bytes, feeds: dict[str, Array], threads: int, folder: pathlib.Path) -> Peer:
    """Another competitor, whose package need not be installed."""
    path = folder / "model.onnx"
    path.write_bytes(model)
    module = importlib.import_module(f"{name}_peer")
    peer: Peer = module.open_peer(module.convert(path, folder) if name == "mnn" else path, feeds, threads)
    return peer


def show(rows: Sequence[Row], arguments: argparse.Namespace) -> None:
    """Print a table, the geometric mean of the ratios and the lowest one."""
    title = f"convolutions, {arguments.threads} thread(s), GFLOP/s; ratios above 1: polycomp is faster"
    table = rich.table.Table(title=title)
    peers = list(dict.fromkeys(name for row in rows for name in row.call_ratios))
    for head in ("layer", "algorithm"):
        table.add_column(head, no_wrap=True)
    for head in ("polycomp", "onnxruntime", "ratio", *(f"call: {p}" for p in peers), "rel. error"):
        table.add_column(head, justify="right")
    for row in rows:
        speeds = [_text(row.flops * 1e-9 / t) if (t := row.kernel.get(n)) else "failed" for n in _KERNELS]
        calls = [_text(row.call_ratios.get(p), ".2f") for p in peers]
        table.add_row(row.name, row.algorithm, *speeds, _text(row.ratio, ".2f"), *calls, _text(row.error, ".0e"))
    console = rich.console.Console(width=None if sys.stdout.isatty() else 130)
    console.print(table)
    measured = [(row.ratio, row.name) for row in rows if row.ratio is not None]
    if measured:
        below = sum(ratio < 0.95 for ratio, _ in measured)
        mean = geometric_mean(ratio for ratio, _ in measured)
        lowest, name = min(measured)
        console.print(
            f"{len(measured)} layers: geometric mean {mean:.3f}, lowest {lowest:.2f} ({name}), {below} below 0.95"
        )
    for peer in peers:
        mean = geometric_mean(r.call_ratios[peer] for r in rows if peer in r.call_ratios)
        console.print(f"whole call against {peer}: geometric mean {mean:.3f}")
    for row in rows:
        if row.failure:
            console.print(f"{row.name}: {row.failure}", style="red", markup=False)


_KERNELS = ("polycomp", "onnxruntime")


def _text(value: float | None, form: str = ".1f") -> str:
    return "failed" if value is None else format(value, form)


def select(only: Sequence[str]) -> dict[Layer, list[str]]:
    """The layers whose name or one of whose models contains one of ``only``; all when it is empty."""
    found = model_layers()
    return {k: v for k, v in found.items() if not only or any(part in " ".join([k.name, *v]) for part in only)}


def main() -> int:
    arguments = _arguments()
    progress = rich.console.Console(stderr=True)
    rows = []
    for layer, models in select(arguments.only).items():
        progress.print(f"{layer.name} ...", style="dim")
        rows.append(measure(layer, models, arguments))
    if arguments.json:
        records: list[dict[str, Any]] = [dataclasses.asdict(r) | {"ratio": r.ratio} for r in rows]
        print(json.dumps(records, indent=1))
    else:
        show(rows, arguments)
    return 1 if any(r.failure or r.error is None or r.error > arguments.tolerance for r in rows) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", default=[], metavar="TEXT", help="layers or models containing TEXT")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=12, help="interleaved rounds per layer (12)")
    parser.add_argument("--call", action="store_true", help="time whole calls as well")
    parser.add_argument(
        "--against", action="append", default=[], choices=["mnn", "openvino"], help="another competitor"
    )
    parser.add_argument("--tolerance", type=float, default=1e-4, help="largest relative error that passes (1e-4)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
