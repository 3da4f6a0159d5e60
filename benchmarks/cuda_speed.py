"""Modules for NVIDIA GPUs: are they right, and how fast, against torch and against what the GPU can do.

Sections, one table each (--only takes some of them, by name):

- peaks: the bandwidth of a copy, and torch's products of matrices in TFLOP/s;
- memory: kernels that do little arithmetic, as a share of a copy of as many bytes;
- gemm: products of matrices, as a share of torch's speed;
- models: whole models, their error against polycomp's CPU target, and the latency for 1 and 32 samples;
- eager: those models that ``torch_models.py`` has, against torch as it is called and against its calls as one graph;
- compile: the same against torch.compile.

Times are the GPU's own, from events around replays of a whole run as one graph, and medians over rounds that all
competitors have their turn in. They are without copies of inputs and outputs, except where a column is called "call".
The sections share --seconds: one that takes longer than its share is cut, and has the rows that it had until then.

Needs a GPU, torch with CUDA and cupy; the exit status is 2, and a sentence says what is missing, where they are not
there. It is 1 when something failed or is wrong.

    python benchmarks/cuda.py [--only models,gemm] [--models DIR] [--pick resnet50,bert] [--precision float16]
                              [--seconds 450] [--json]
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import functools
import importlib
import importlib.util
import json
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import rich.console
from batched import with_batch
from cuda_operators import MEMORY, MemoryBound, matmul_model, product_operands
from cuda_timing import Column, Outcome, Replay, Row, Section, Subject, race, run_sections, torch_calls, torch_graph
from light_models import load_filled, package_models, random_feeds
from measure import Array, geometric_mean, relative_error

import polycomp as pc
from polycomp.codegen.cuda.nvrtc import find_nvrtc, supported_archs
from polycomp.errors import PolycompError
from polycomp.runtime.cuda.cupydevice import open_device

TOLERANCE = {"float32": 1e-3, "tf32": 2e-2, "float16": 3e-2, "bfloat16": 2e-1}
"""The largest relative error of a model that passes, by what its products are computed in."""

PRODUCT_TOLERANCE = {"float32": 1e-5, "tf32": 2e-3, "float16": 2e-3, "bfloat16": 2e-2}
"""The same of a single product, by its type."""

COMPARED = (
    "resnet50",
    "bert_base_s128",
    "vit_b16",
    "gpt2_s64",
    "mobilenet_v2",
    "minilm_l6_s128",
    "squeezenet",
    "vgg19",
)
"""The models that there are in ``torch_models.py`` too. They are measured first, as time may run out."""

SIZES = {"batch": 1, "seq": 128}
"""What symbolic dimensions are by their name."""

BATCH = 32
MEGABYTE, GIGABYTE, TERA = 1e6, 1e9, 1e12
MILLISECOND = 1e-3

_PEAK_BYTES = 1 << 30
_PRODUCT_SIZES = (4096, 8192)
_CHECKED_ROWS = 16
_CALLS = 20


@dataclasses.dataclass
class Bench:
    """What the sections share. ``replays`` are of models, by name and number of samples, as far as there are any."""

    torch: Any
    arguments: argparse.Namespace
    target: str
    replays: dict[tuple[str, int], Replay] = dataclasses.field(default_factory=dict)
    feeds: dict[tuple[str, int], Mapping[str, Array]] = dataclasses.field(default_factory=dict)

    @property
    def precision(self) -> str:
        return str(self.arguments.precision)

    def compile(self, model: onnx.ModelProto, precision: str) -> Any:
        """A module for this GPU. Raises a PolycompError."""
        if precision == "tf32":  # how products of float32 are computed
            return pc.compile(model, target=f"{self.target},math=tf32")
        return pc.compile(model, target=self.target, precision=precision)

    def race(self, subjects: Mapping[str, Subject]) -> dict[str, float]:
        return race(subjects, self.arguments.rounds)

    def use_tf32(self, wanted: bool) -> None:
        """Whether torch may round operands of float32 for the tensor cores."""
        self.torch.backends.cuda.matmul.allow_tf32 = wanted
        self.torch.backends.cudnn.allow_tf32 = wanted


def told(error: BaseException) -> str:
    """An error in a line."""
    return str(error) if isinstance(error, PolycompError) else f"{type(error).__name__}: {error}"


# What the GPU can do


def measure_peaks(bench: Bench) -> Iterator[Row]:
    """Copies within the GPU's memory, counted once read and once written, and torch's products."""
    torch = bench.torch
    source = torch.zeros(_PEAK_BYTES // 4, device="cuda")
    target = torch.empty_like(source)
    copies = {"copy": lambda: target.copy_(source), "copy by a kernel": lambda: torch.add(source, 1.0, out=target)}
    seconds = bench.race({name: torch_graph(torch, run) for name, run in copies.items()})
    for name, taken in seconds.items():
        yield {"name": name, "bytes_per_second": 2 * _PEAK_BYTES / taken}
    size = _PRODUCT_SIZES[-1]
    for dtype in PRODUCT_TOLERANCE:
        a, b = (torch_operand(torch, array) for array in product_operands(size, dtype))
        run = torch_product(bench, a, b, dtype)
        yield {"name": f"torch {dtype} {size}", "flops": 2 * size**3 / bench.race({"torch": run})["torch"]}


PEAK_COLUMNS = (
    Column("what", "name"),
    Column("GB/s", "bytes_per_second", ".0f", GIGABYTE),
    Column("TFLOP/s", "flops", ".1f", TERA),
)


# Products of matrices


def torch_operand(torch: Any, array: Array) -> Any:
    """A matrix on the GPU, whose type numpy may not have."""
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16).cuda()
    return torch.from_numpy(array).cuda()


def torch_product(bench: Bench, a: Any, b: Any, dtype: str) -> Subject:
    """torch's product, captured with TF32 where ``dtype`` says so."""
    bench.use_tf32(dtype == "tf32")
    out = bench.torch.empty((a.shape[0], b.shape[1]), dtype=a.dtype, device="cuda")
    return torch_graph(bench.torch, lambda: bench.torch.matmul(a, b, out=out))


def measure_products(bench: Bench) -> Iterator[Row]:
    for size in _PRODUCT_SIZES:
        for dtype in PRODUCT_TOLERANCE:
            yield _product_row(bench, size, dtype)


def _product_row(bench: Bench, size: int, dtype: str) -> Row:
    row: dict[str, Any] = {"name": f"{size} x {size} x {size}", "dtype": dtype}
    try:
        a, b = product_operands(size, dtype)
        left, right = torch_operand(bench.torch, a), torch_operand(bench.torch, b)
        subjects = {"torch": torch_product(bench, left, right, dtype)}
        module = bench.compile(matmul_model(a, b), "tf32" if dtype == "tf32" else "float32")
        ours = Replay(module, {"a": a, "b": b})
        row |= _checked(bench, ours.outputs["y"], left, right, dtype)
        subjects["polycomp"] = ours.seconds
        seconds = bench.race(subjects)
        row |= {name: 2 * size**3 / taken for name, taken in seconds.items()}
        if "polycomp" in seconds:
            row["share"] = seconds["torch"] / seconds["polycomp"]
    except Exception as error:  # noqa: BLE001 - whatever went wrong is told in the row
        row["failure"] = told(error)
    return row


def _checked(bench: Bench, found: Array, a: Any, b: Any, dtype: str) -> Row:
    """The error of some of a product's rows against float64."""
    rows = np.linspace(0, found.shape[0] - 1, _CHECKED_ROWS).astype(int)
    exact = (a[bench.torch.from_numpy(rows).cuda()].double() @ b.double()).cpu().numpy()
    error = relative_error([found[rows]], [exact])
    wrong = {} if error <= PRODUCT_TOLERANCE[dtype] else {"failure": f"{dtype} is wrong: relative error {error:.1e}"}
    return {"error": error, **wrong}


PRODUCT_COLUMNS = (
    Column("M x K x N", "name"),
    Column("type", "dtype"),
    Column("polycomp TFLOP/s", "polycomp", ".1f", TERA),
    Column("torch TFLOP/s", "torch", ".1f", TERA),
    Column("share of torch", "share", ".2f"),
    Column("error", "error", ".0e"),
)


# Kernels that wait for memory


def measure_memory(bench: Bench) -> Iterator[Row]:
    for operator in MEMORY:
        yield _memory_row(bench, operator)


def _memory_row(bench: Bench, operator: MemoryBound) -> Row:
    torch = bench.torch
    row: dict[str, Any] = {
        "name": operator.name,
        "shape": " x ".join(map(str, operator.shape)),
        "bytes": operator.bytes,
    }
    try:
        feeds = operator.feeds()
        ours = Replay(bench.compile(operator.model(), "float32"), feeds)
        tensors = [torch.from_numpy(array).cuda() for array in feeds.values()]
        run = functools.partial(operator.torch_function(torch), *tensors)
        row["error"] = relative_error([ours.outputs["y"]], [run().cpu().numpy()])
        if row["error"] > TOLERANCE["float32"]:
            row["failure"] = f"it is wrong: relative error {row['error']:.1e}"
        source = torch.zeros(operator.bytes // 8, device="cuda")  # half of the bytes is read, half is written
        target = torch.empty_like(source)
        copy = torch_graph(torch, lambda: target.copy_(source))
        seconds = bench.race({"polycomp": ours.seconds, "torch": torch_graph(torch, run), "copy": copy})
        row |= {name: operator.bytes / taken for name, taken in seconds.items()}
        row["share"] = seconds["copy"] / seconds["polycomp"]
    except Exception as error:  # noqa: BLE001 - whatever went wrong is told in the row
        row["failure"] = told(error)
    return row


MEMORY_COLUMNS = (
    Column("kernel", "name"),
    Column("shape", "shape"),
    Column("MB", "bytes", ".0f", MEGABYTE),
    Column("polycomp GB/s", "polycomp", ".0f", GIGABYTE),
    Column("torch GB/s", "torch", ".0f", GIGABYTE),
    Column("copy GB/s", "copy", ".0f", GIGABYTE),
    Column("share of copy", "share", ".2f"),
    Column("error", "error", ".0e"),
)


# Whole models


def find_models(folder: pathlib.Path | None, pick: Sequence[str]) -> list[pathlib.Path]:
    """The package's light models and those of ``folder``, restricted to names that contain one of ``pick``; first those
    of :data:`COMPARED`."""
    paths = package_models() + (sorted(folder.glob("*.onnx")) if folder else [])
    places = {name: place for place, name in enumerate(COMPARED)}
    paths.sort(key=lambda path: places.get(model_name(path), len(places)))
    return [p for p in paths if not pick or any(part in p.stem for part in pick)]


def model_name(path: pathlib.Path) -> str:
    return path.stem.removeprefix("light_")


def loaded_ahead(paths: Sequence[pathlib.Path]) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Models, filled; the next one is being filled while one is in use, because that takes seconds."""
    pool = concurrent.futures.ThreadPoolExecutor(1)
    try:
        coming = [pool.submit(load_filled, path) for path in paths[:1]]
        for number, path in enumerate(paths):
            coming += [pool.submit(load_filled, after) for after in paths[number + 1 : number + 2]]
            yield model_name(path), coming.pop(0).result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def measure_models(bench: Bench) -> Iterator[Row]:
    for name, model in loaded_ahead(find_models(bench.arguments.models, bench.arguments.pick)):
        yield _model_row(bench, name, model)


def _model_row(bench: Bench, name: str, model: onnx.ModelProto) -> Row:
    row: dict[str, Any] = {"name": name}
    for figures in (_single_figures, _batch_figures, _latencies):
        try:
            row = figures(bench, name, model) | row  # of several failures the first one is told
        except Exception as error:  # noqa: BLE001 - whatever went wrong is told in the row
            row.setdefault("failure", told(error))
    return row


def _single_figures(bench: Bench, name: str, model: onnx.ModelProto) -> dict[str, Any]:
    """The figures for 1 sample, whose outputs must be those of the CPU target."""
    ours, feeds = open_model(bench, name, model, 1), bench.feeds[name, 1]
    launches = sum(len(step.launches) for step in ours.module.manifest.device.steps)
    expected = pc.compile(model, target="cpu").run(feeds)
    figures = error_figures(ours.outputs, expected, TOLERANCE[bench.precision])
    return {"launches": launches, "call": _seconds_of_call(ours.module, feeds), **figures}


def _batch_figures(bench: Bench, name: str, model: onnx.ModelProto) -> dict[str, Any]:
    """The figures for :data:`BATCH` samples, whose outputs must be those of single ones."""
    ours, feeds = open_model(bench, name, model, BATCH), bench.feeds[name, BATCH]
    last = {key: array[-1:] for key, array in feeds.items()}
    found = {key: array[-1:] for key, array in ours.outputs.items()}
    figures = error_figures(found, bench.replays[name, 1].module.run(last), TOLERANCE[bench.precision])
    failure = {"failure": f"{BATCH} samples: {figures['failure']}"} if "failure" in figures else {}
    return {"batch_error": figures["error"], **failure}


def _latencies(bench: Bench, name: str, model: onnx.ModelProto) -> dict[str, Any]:
    subjects = {str(n): bench.replays[name, n].seconds for n in (1, BATCH) if (name, n) in bench.replays}
    return {f"seconds_{n}": taken for n, taken in bench.race(subjects).items()}


def open_model(bench: Bench, name: str, model: onnx.ModelProto, batch: int) -> Replay:
    """The replay of a model for ``batch`` samples, which ``bench`` has from then on."""
    module, feeds = _for_batch(bench, model, batch)
    bench.feeds[name, batch] = feeds
    bench.replays[name, batch] = Replay(module, feeds)
    return bench.replays[name, batch]


def _for_batch(bench: Bench, model: onnx.ModelProto, batch: int) -> tuple[Any, dict[str, Array]]:
    sized = model if batch == 1 or has_symbolic_batch(model) else with_batch(model, batch)
    return bench.compile(sized, bench.precision), random_feeds(sized, SIZES | {"batch": batch})


def has_symbolic_batch(model: onnx.ModelProto) -> bool:
    """Whether the first dimension of the inputs is bound at run time."""
    weights = {t.name for t in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in weights]
    return all(i.type.tensor_type.shape.dim[0].dim_param == "batch" for i in inputs)


def error_figures(found: Mapping[str, Array], expected: Mapping[str, Array], tolerance: float) -> dict[str, Any]:
    """The largest relative error of any output, and what is wrong when it is too large."""
    error = relative_error([found[name] for name in expected], list(expected.values()))
    return {"error": error} | ({} if error <= tolerance else {"failure": f"it is wrong: relative error {error:.1e}"})


def _seconds_of_call(module: Any, feeds: Mapping[str, Array]) -> float:
    """The median time of a call from Python, from arrays of the host to arrays of the host."""
    times = []
    for _ in range(_CALLS):
        start = time.perf_counter()
        module.run(feeds)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


MODEL_COLUMNS = (
    Column("model", "name"),
    Column("launches", "launches"),
    Column("ms, 1 sample", "seconds_1", ".3f", MILLISECOND),
    Column("call ms", "call", ".3f", MILLISECOND),
    Column(f"ms, {BATCH} samples", f"seconds_{BATCH}", ".3f", MILLISECOND),
    Column("error", "error", ".0e"),
    Column(f"error, {BATCH} samples", "batch_error", ".0e"),
)


# Against torch


def measure_torch(bench: Bench, compiled: bool) -> Iterator[Row]:
    """Models of torch for 1 sample, then for :data:`BATCH`; ``compiled`` by torch, or as they are."""
    models = importlib.import_module("torch_models")  # imports torch
    paths = [p for p in find_models(bench.arguments.models, bench.arguments.pick) if model_name(p) in COMPARED]
    for batch in (1, BATCH):
        needed = [p for p in paths if (model_name(p), batch) not in bench.replays]
        coming = loaded_ahead(needed)
        for path in paths:
            model = next(coming)[1] if path in needed else None
            yield _torch_row(bench, models, model_name(path), batch, model, compiled)


def _torch_row(bench: Bench, models: Any, name: str, batch: int, model: onnx.ModelProto | None, compiled: bool) -> Row:
    """``model`` is given where it is not open yet."""
    row: dict[str, Any] = {"name": name, "batch": batch}
    torch = bench.torch
    try:
        if model is not None:
            open_model(bench, name, model, batch)
        bench.use_tf32(bench.precision == "tf32")
        with torch.inference_mode():
            run = _torch_run(bench, models, name, batch)
            subjects: dict[str, Subject] = {"polycomp": bench.replays[name, batch].seconds}
            if compiled:
                torch.compiler.reset()  # which gives up after some networks, as if they were one that varies
                faster = torch.compile(run, mode="reduce-overhead", dynamic=False)
                for _ in range(3):  # compiled, captured, and replayed
                    faster()
                subjects["torch"] = torch_calls(torch, faster)
            else:
                subjects |= {"calls": torch_calls(torch, run), "torch": torch_graph(torch, run)}
            row |= bench.race(subjects)
        row["ratio"] = row["torch"] / row["polycomp"]
    except Exception as error:  # noqa: BLE001 - whatever went wrong is told in the row
        row["failure"] = told(error)
    return row


def _torch_run(bench: Bench, models: Any, name: str, batch: int) -> Callable[[], Any]:
    """torch's network on the inputs that polycomp's has, in the type that products are computed in."""
    torch = bench.torch
    dtype = getattr(torch, bench.precision, torch.float32)
    module = models.MODELS[name]().eval().to("cuda", dtype)
    inputs = models.as_tensors(list(bench.feeds[name, batch].values()), dtype, "cuda")
    if dtype != torch.float32:  # the layout that tensor cores want
        module = module.to(memory_format=torch.channels_last)
        inputs = [t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t for t in inputs]
    return lambda: module(*inputs)


EAGER_COLUMNS = (
    Column("model", "name"),
    Column("samples", "batch"),
    Column("polycomp ms", "polycomp", ".3f", MILLISECOND),
    Column("torch ms", "calls", ".3f", MILLISECOND),
    Column("torch as a graph ms", "torch", ".3f", MILLISECOND),
    Column("times as fast as the graph", "ratio", ".2f"),
)

COMPILED_COLUMNS = (
    Column("model", "name"),
    Column("samples", "batch"),
    Column("polycomp ms", "polycomp", ".3f", MILLISECOND),
    Column("torch.compile ms", "torch", ".3f", MILLISECOND),
    Column("times as fast", "ratio", ".2f"),
)


# All of it

SECTIONS: Mapping[str, tuple[str, float, Sequence[Column], Callable[[Bench], Iterator[Row]]]] = {
    "peaks": ("What the GPU can do", 15, PEAK_COLUMNS, measure_peaks),
    "memory": ("Kernels that wait for memory", 30, MEMORY_COLUMNS, measure_memory),
    "gemm": ("Products of matrices", 55, PRODUCT_COLUMNS, measure_products),
    "models": ("Models", 190, MODEL_COLUMNS, measure_models),
    "eager": ("Against torch", 40, EAGER_COLUMNS, functools.partial(measure_torch, compiled=False)),
    "compile": ("Against torch.compile", 120, COMPILED_COLUMNS, functools.partial(measure_torch, compiled=True)),
}
"""By name: title, share of the time, columns, and what yields the rows."""


def missing() -> str:
    """What is not there that this needs, as a sentence; empty when all is."""
    absent = [name for name in ("torch", "cupy") if importlib.util.find_spec(name) is None]
    if absent:
        return f"This needs {' and '.join(absent)}, which {'is' if len(absent) == 1 else 'are'} not installed."
    if find_nvrtc() is None:
        return "This needs NVRTC, which is not installed: pip install 'polycomp[cuda]'."
    try:
        open_device()
    except PolycompError as error:
        return f"This needs a GPU: {error}."
    torch = importlib.import_module("torch")
    return "" if torch.cuda.is_available() else "This needs torch with CUDA, and the one that is installed sees no GPU."


def device_target() -> str:
    """The target that is compiled for: the GPU's own architecture, with all its special instructions."""
    own = open_device().architecture
    return f"cuda,arch={own}a" if f"{own}a" in supported_archs() else f"cuda,arch={own}"


def show(outcome: Outcome, console: rich.console.Console) -> None:
    """Print a section's table, the geometric mean of what it compares, and what failed."""
    console.print(outcome.table())
    ratios = [row[key] for row in outcome.rows for key in ("ratio", "share") if key in row]
    if ratios:
        console.print(f"geometric mean {geometric_mean(ratios):.2f}, lowest {min(ratios):.2f}")
    for failure in outcome.failures:
        console.print(failure, style="red", markup=False)


def as_json(outcomes: Sequence[Outcome], about: Mapping[str, Any]) -> str:
    """All figures, in seconds, bytes and operations per second."""
    sections = {o.section.name: {"rows": o.rows, "note": o.note} for o in outcomes}
    return json.dumps({**about, "sections": sections}, indent=1)


def main() -> int:
    arguments = _arguments()
    problem = missing()
    if problem:
        print(problem, file=sys.stderr)
        return 2
    torch = importlib.import_module("torch")
    bench = Bench(torch, arguments, device_target())
    about = {"device": torch.cuda.get_device_name(), "target": bench.target, "torch": torch.__version__}
    console = rich.console.Console(width=None if sys.stdout.isatty() else 140, stderr=arguments.json)
    console.print(f"{about['device']}, {bench.target}, {bench.precision}, torch {about['torch']}", highlight=False)
    sections = [
        Section(name, title, weight, columns, functools.partial(measure, bench))
        for name, (title, weight, columns, measure) in SECTIONS.items()
        if name in arguments.only
    ]
    outcomes = []
    for outcome in run_sections(sections, arguments.seconds):
        outcomes.append(outcome)
        show(outcome, console)
    if arguments.json:
        print(as_json(outcomes, about))
    return 1 if any(o.failures or not o.rows for o in outcomes) else 0


def _names(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def _sections(text: str) -> list[str]:
    unknown = [name for name in _names(text) if name not in SECTIONS]
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no section {unknown[0]!r}; there are {', '.join(SECTIONS)}")
    return _names(text)


def _arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--only", type=_sections, default=list(SECTIONS), metavar="SECTION,...", help=f"some of {','.join(SECTIONS)}")
    add("--models", type=pathlib.Path, metavar="DIR", help="a folder with more ONNX files")
    add("--pick", type=_names, default=[], metavar="NAME,...", help="models whose name contains one of these")
    add("--precision", choices=list(TOLERANCE), default="float32", help="what the models' products are computed in")
    add("--rounds", type=int, default=7, help="interleaved rounds (7)")
    add("--seconds", type=float, default=450, help="for all sections together (450)")
    add("--json", action="store_true", help="print JSON, and tables to the standard error")
    return parser.parse_args(given)


if __name__ == "__main__":
    sys.exit(main())
