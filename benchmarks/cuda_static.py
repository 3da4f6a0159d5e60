"""What the compiler makes of models for GPUs, looked at without one: registers, spills, occupancy, instructions.

All models (the light ones of the onnx package, and those of --models) are compiled by polycomp's own pipeline, with the
user's cache of kernels. A row of the table is a model on one architecture: its kernels, the functions they are made of
and how often one run launches them; of the functions the most registers, shared memory and local memory (a thread's
arrays that are in memory), the lowest and median share of a multiprocessor's warps that are resident (occupancy), and
the bytes that spilled registers move; of its kernels for products and convolutions, how many have instructions of the
tensor cores (HMMA, HGMMA, ...), copies that run beside the arithmetic (LDGSTS, UTMALDG, ...) and accesses of 128 bits.
Instructions are found with nvdisasm, of the package nvidia-cuda-nvdisasm or on the PATH; without it, their columns say
so.

Only the shapes of the weights matter, so they are filled with a pattern. The exit status is 1 when a kernel does not
compile, spills, or takes more than a launch may have.

    python benchmarks/cuda_static.py [--models DIR] [--only resnet50,bert] [--arch sm_80+sm_90a] [--kernels] [--json]
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import dataclasses
import importlib.util
import json
import multiprocessing
import pathlib
import pickle
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import rich.console
import rich.table
from light_models import package_models
from onnx import helper, numpy_helper

from polycomp.codegen.cuda.occupancy import occupancy
from polycomp.driver.cache import Cache, open_caches
from polycomp.driver.device import DeviceKernel
from polycomp.driver.kernels import compile_kernels
from polycomp.driver.lower import Call
from polycomp.driver.observe import Observer
from polycomp.driver.pipeline import import_graph, lower_model
from polycomp.driver.workers import Workers
from polycomp.errors import PolycompError
from polycomp.options import Options
from polycomp.target import available_cores, parse_target
from polycomp.te import topological_order

Opcodes = Mapping[str, int]
"""How often each instruction occurs, with its modifiers: ``{"LDG.E.128": 4}``."""

PRODUCTS = re.compile(r"mat_?mul|gemm|conv|attention")
"""In the symbols of kernels that a GPU's matrix units are there for."""

KINDS: Mapping[str, re.Pattern[str]] = {
    "tensor": re.compile(r"(H|I|D|B|Q|O|HG|IG|BG|QG)MMA\b|UTC\w*MMA\b"),
    "async": re.compile(r"LDGSTS\b|UTMALDG\b|UTMASTG\b|UTMAREDG\b|UBLKCP\b|ARRIVES\.LDGSTSBAR"),
    "128-bit": re.compile(r"(LDG|LDS|STG|STS|LDGSTS|LD|ST)\b.*\.128\b"),
}
"""The instructions that are looked for, by what a column calls them."""

_FUNCTION = re.compile(r"^\.text\.(\w+):")
_INSTRUCTION = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)")
_WHEELS = ("cu13/bin/nvdisasm", "cuda_nvdisasm/bin/nvdisasm", "cuda_nvcc/bin/nvdisasm")  # in the folder "nvidia"
_LIGHT = "light:"


@dataclasses.dataclass(frozen=True, eq=False)
class Function:
    """One ``__global__`` function of a kernel on one architecture. ``shared_bytes`` are of both kinds, static and
    dynamic; ``local_bytes`` are a thread's arrays and values that are in memory instead of registers; ``opcodes`` is
    None where there was no disassembler or no need."""

    name: str
    arch: str
    block: int
    registers: int
    shared_bytes: int
    local_bytes: int
    spill_bytes: int
    occupancy: float
    opcodes: Opcodes | None = None

    @property
    def problem(self) -> str:
        """What is wrong with it; empty for nothing."""
        if self.spill_bytes:
            return f"{self.name} spills {self.spill_bytes} bytes on {self.arch}"
        return "" if self.occupancy else f"{self.name} takes more than a launch on {self.arch} may have"


@dataclasses.dataclass(frozen=True, eq=False)
class Kernel:
    """What became of one kernel: its ``functions`` on all architectures, or why it could not be compiled."""

    symbol: str
    functions: tuple[Function, ...] = ()
    failure: str = ""

    @property
    def is_product(self) -> bool:
        return PRODUCTS.search(self.symbol) is not None

    @property
    def problems(self) -> list[str]:
        found = [f"{self.symbol}: {self.failure}"] if self.failure else []
        return found + [f.problem for f in self.functions if f.problem]

    def on(self, arch: str) -> list[Function]:
        return [f for f in self.functions if f.arch == arch]

    def has(self, kind: str, arch: str) -> bool | None:
        """Whether instructions of a kind are there; None where that is not known."""
        known = [f.opcodes for f in self.on(arch) if f.opcodes is not None]
        return any(count_of(kind, opcodes) for opcodes in known) if known else None


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A model's kernels, each with the number of its calls in a run. ``failure`` says why there are none."""

    name: str
    kernels: Mapping[Kernel, int] = dataclasses.field(default_factory=dict)
    failure: str = ""

    @property
    def problems(self) -> list[str]:
        return [self.failure] if self.failure else [p for kernel in self.kernels for p in kernel.problems]


# Models without their weights


def with_shapes_alone(path: pathlib.Path) -> onnx.ModelProto:
    """The model of a file, with left-out weights (see ``light_models.py``) that have their shape and any values."""
    model = onnx.load(path)
    graph = model.graph
    for tensor in graph.initializer:
        if tensor.doc_string.startswith(_LIGHT):
            dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
            tensor.CopyFrom(numpy_helper.from_array(_pattern(tensor.dims).astype(dtype), tensor.name))
    shapes = {t.name: numpy_helper.to_array(t).ravel() for t in graph.initializer if t.dims}
    for node in [n for n in graph.node if n.op_type == "ConstantOfShape" and n.input[0] in shapes]:
        graph.initializer.append(numpy_helper.from_array(_pattern(shapes[node.input[0]]), node.output[0]))
        graph.node.remove(node)
    return model


def _pattern(shape: Iterable[int]) -> np.ndarray[Any, Any]:
    """Positive values, not all equal, because the compiler makes use of what is."""
    return np.resize(np.linspace(0.5, 1.5, 4093, dtype=np.float32), tuple(map(int, shape)))


# Instructions


def find_nvdisasm() -> str | None:
    """The disassembler: what the PATH has, or that of an installed package; None when there is none."""
    spec = importlib.util.find_spec("nvidia")
    folders = spec.submodule_search_locations if spec is not None else None
    places = [pathlib.Path(folder) / wheel for folder in folders or () for wheel in _WHEELS]
    return shutil.which("nvdisasm") or next((str(p) for p in places if p.exists()), None)


def count_opcodes(text: str) -> dict[str, Opcodes]:
    """The instructions of each function in the output of ``nvdisasm -c``."""
    found: dict[str, collections.Counter[str]] = {}
    current: collections.Counter[str] = collections.Counter()
    for line in text.splitlines():
        if begins := _FUNCTION.match(line):
            current = found.setdefault(begins[1], collections.Counter())
        elif instruction := _INSTRUCTION.match(line):
            current[instruction[1]] += 1
    return {name: dict(counts) for name, counts in found.items()}


def count_of(kind: str, opcodes: Opcodes) -> int:
    """How many of the instructions are of a kind."""
    return sum(count for opcode, count in opcodes.items() if KINDS[kind].match(opcode))


def _disassemble(cubin: bytes, nvdisasm: str) -> dict[str, Opcodes]:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [nvdisasm, "--print-code", "--no-dataflow", file.name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    return count_opcodes(done.stdout) if done.returncode == 0 else {}


# Compiling


@dataclasses.dataclass(frozen=True)
class Task:
    """A kernel to compile in another process. ``call`` is pickled: the tensors of a long chain, one after the other
    ahead of what uses them, because pickling it from its end would recurse too deeply."""

    symbol: str
    call: bytes
    options: Options
    nvdisasm: str | None


def task_of(call: Call, options: Options, nvdisasm: str | None) -> Task:
    return Task(call.symbol, pickle.dumps((topological_order(call.kernel.outputs), call)), options, nvdisasm)


def examine(task: Task) -> Kernel:
    """Compile one kernel and look at it; whatever goes wrong is told in the result."""
    _, call = pickle.loads(task.call)
    try:
        kernels = compile_kernels([call], task.options, _kernel_cache(), Workers(0), Observer())
        device = kernels[task.symbol].device
        assert device is not None
        return Kernel(task.symbol, tuple(_functions(device, task.nvdisasm)))
    except Exception as error:  # noqa: BLE001 - the other kernels are of interest all the same
        told = str(error) if isinstance(error, PolycompError) else f"{type(error).__name__}: {error}"
        return Kernel(task.symbol, failure=told)


def _kernel_cache() -> Cache | None:
    caches = open_caches()
    return caches[0] if caches else None


def _functions(kernel: DeviceKernel, nvdisasm: str | None) -> Iterator[Function]:
    for arch, made in kernel.by_architecture.items():
        resources, cubin = made.code.resources[arch], made.code.cubins[arch]
        opcodes = _disassemble(cubin, nvdisasm) if nvdisasm else {}
        for launch in made.launches:
            used = resources[launch.function]
            yield Function(
                name=launch.function,
                arch=arch,
                block=launch.block,
                registers=used.registers,
                shared_bytes=used.shared_bytes + launch.shared_bytes,
                local_bytes=used.stack_bytes,
                spill_bytes=used.spill_store_bytes + used.spill_load_bytes,
                occupancy=occupancy(used, launch.block, launch.shared_bytes, arch),
                opcodes=opcodes.get(launch.function),
            )


class Examiner:
    """Compiles models' kernels in processes of their own; a kernel that several models have, once."""

    def __init__(self, options: Options, nvdisasm: str | None, every_kernel: bool) -> None:
        """``every_kernel`` is disassembled, or only products: the disassembler takes longer than the compiler."""
        self._options = options
        self._nvdisasm = nvdisasm
        self._every_kernel = every_kernel
        self._known: dict[str, Kernel] = {}

    def model(self, path: pathlib.Path) -> Model:
        """All about the model of a file."""
        name = path.stem.removeprefix("light_")
        try:
            graph = import_graph(with_shapes_alone(path), self._options, Observer())
            calls = lower_model(graph, self._options, Observer()).calls
        except Exception as error:  # noqa: BLE001 - the other models are of interest all the same
            return Model(name, failure=f"{type(error).__name__}: {error}")
        self._examine({call.symbol: call for call in calls if call.symbol not in self._known})
        counts = collections.Counter(call.symbol for call in calls)
        return Model(name, {self._known[symbol]: count for symbol, count in counts.items()})

    def _examine(self, calls: Mapping[str, Call]) -> None:
        tasks = [task_of(call, self._options, self._tool(symbol)) for symbol, call in calls.items()]
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(min(available_cores(), len(tasks) or 1), context) as pool:
            futures = {pool.submit(examine, task): task.symbol for task in tasks}
            for future in concurrent.futures.as_completed(futures):
                self._known[futures[future]] = _result(future, futures[future])

    def _tool(self, symbol: str) -> str | None:
        return self._nvdisasm if self._every_kernel or PRODUCTS.search(symbol) else None


def _result(future: concurrent.futures.Future[Kernel], symbol: str) -> Kernel:
    try:
        return future.result()
    except concurrent.futures.BrokenExecutor:
        return Kernel(symbol, failure="a compile process died, of this kernel or of one beside it")


# Tables


def show(models: Sequence[Model], archs: Sequence[str], nvdisasm: str | None, every_kernel: bool) -> None:
    """Print the table, one line per function where that is wanted, and what is wrong."""
    console = rich.console.Console(width=None if sys.stdout.isatty() else 170)
    if every_kernel:
        console.print(_kernel_table(models, nvdisasm))
    console.print(_model_table(models, archs, nvdisasm))
    if nvdisasm is None:
        console.print("Instructions were not looked at: pip install nvidia-cuda-nvdisasm for that.", style="yellow")
    for model in models:
        for problem in model.problems:
            console.print(f"{model.name}: {problem}", style="red", markup=False)


def _model_table(models: Sequence[Model], archs: Sequence[str], nvdisasm: str | None) -> rich.table.Table:
    table = rich.table.Table(title="Kernels for GPUs (occupancy in % of the warps that a multiprocessor holds)")
    table.add_column("model", no_wrap=True)
    table.add_column("arch", no_wrap=True)
    heads = [
        "kernels",
        "failed",
        "functions",
        "launches",
        "registers",
        "shared KB",
        "lowest",
        "median",
        "local B",
        "spilled B",
    ]
    for head in [*heads, "products", *KINDS]:
        table.add_column(head, justify="right")
    for model in models:
        for arch in archs:
            table.add_row(model.name, arch, *model_cells(model, arch, nvdisasm is not None))
    return table


def model_cells(model: Model, arch: str, has_nvdisasm: bool) -> list[str]:
    """The figures of a model on one architecture, as the table has them."""
    figures = model_figures(model, arch)
    if not figures["functions"]:
        return [str(figures["kernels"]), str(figures["failed"])]
    kinds = [str(figures[kind]) if has_nvdisasm else "no nvdisasm" for kind in KINDS]
    counts = [str(figures[name]) for name in ("kernels", "failed", "functions", "launches", "registers")]
    shares = [f"{100 * figures[name]:.0f}" for name in ("lowest_occupancy", "median_occupancy")]
    shared = f"{figures['shared_bytes'] / 1024:.1f}"
    return [
        *counts,
        shared,
        *shares,
        *(str(figures[name]) for name in ("local_bytes", "spill_bytes", "products")),
        *kinds,
    ]


def model_figures(model: Model, arch: str) -> dict[str, Any]:
    """The figures of a model on one architecture; those of its functions only where it has some."""
    functions = [f for kernel in model.kernels for f in kernel.on(arch)]
    products = [k for k in model.kernels if k.is_product and not k.failure]
    figures: dict[str, Any] = {
        "kernels": len(model.kernels),
        "failed": sum(bool(kernel.failure) for kernel in model.kernels),
        "functions": len(functions),
        "launches": sum(count * len(kernel.on(arch)) for kernel, count in model.kernels.items()),
        "products": len(products),
    }
    if not functions:
        return figures
    shares = [f.occupancy for f in functions]
    return figures | {
        "registers": max(f.registers for f in functions),
        "shared_bytes": max(f.shared_bytes for f in functions),
        "lowest_occupancy": min(shares),
        "median_occupancy": statistics.median(shares),
        "local_bytes": max(f.local_bytes for f in functions),
        "spill_bytes": sum(f.spill_bytes for f in functions),
        **{kind: sum(bool(kernel.has(kind, arch)) for kernel in products) for kind in KINDS},
    }


def _kernel_table(models: Sequence[Model], nvdisasm: str | None) -> rich.table.Table:
    table = rich.table.Table(title="Functions")
    table.add_column("function", no_wrap=True)
    table.add_column("arch", no_wrap=True)
    for head in ("block", "registers", "shared B", "local B", "spilled B", "occupancy %"):
        table.add_column(head, justify="right")
    table.add_column("instructions" if nvdisasm else "instructions (no nvdisasm)")
    for kernel in dict.fromkeys(kernel for model in models for kernel in model.kernels):
        for f in kernel.functions:
            numbers = (f.block, f.registers, f.shared_bytes, f.local_bytes, f.spill_bytes, f"{100 * f.occupancy:.0f}")
            table.add_row(f.name, f.arch, *map(str, numbers), opcode_text(f.opcodes))
    return table


def opcode_text(opcodes: Opcodes | None) -> str:
    """The instructions of all kinds that are looked for, with their numbers."""
    found = [(o, n) for o, n in (opcodes or {}).items() if any(kind.match(o) for kind in KINDS.values())]
    return ", ".join(f"{number} {opcode}" for opcode, number in sorted(found, key=lambda pair: -pair[1]))


def as_json(models: Sequence[Model], archs: Sequence[str]) -> str:
    """All figures, by model, with those of every function and its instructions."""
    records = []
    for model in models:
        kernels = [dataclasses.asdict(kernel) | {"calls": count} for kernel, count in model.kernels.items()]
        figures = {arch: model_figures(model, arch) for arch in archs}
        records.append({"model": model.name, "failure": model.failure, "figures": figures, "kernels": kernels})
    return json.dumps(records, indent=1)


def find_models(folder: pathlib.Path | None, only: Sequence[str]) -> list[pathlib.Path]:
    """The package's light models and those of ``folder``, restricted to names that contain one of ``only``."""
    paths = package_models() + (sorted(folder.glob("*.onnx")) if folder else [])
    return [p for p in paths if not only or any(part in p.stem for part in only)]


def make_options(target: str, precision: str) -> Options:
    """Those of a compilation; "tf32" is how products of float32 are computed. Raises :class:`PolycompError` for a
    target or a precision that there is not."""
    if precision == "tf32":
        return Options(parse_target(f"{target},math=tf32"))
    return Options(parse_target(target), precision=precision)


def main() -> int:
    arguments = _arguments()
    progress = rich.console.Console(stderr=True)
    options = make_options(f"cuda,arch={arguments.arch}", arguments.precision)
    nvdisasm = find_nvdisasm()
    examiner = Examiner(options, nvdisasm, arguments.kernels or arguments.json)
    models = []
    for path in find_models(arguments.models, arguments.only):
        progress.print(f"{path.stem} ...", style="dim")
        models.append(examiner.model(path))
    if arguments.json:
        print(as_json(models, options.target.features))
    else:
        show(models, options.target.features, nvdisasm, arguments.kernels)
    return 1 if any(model.problems for model in models) or not models else 0


def _names(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def _arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--models", type=pathlib.Path, metavar="DIR", help="a folder with more ONNX files")
    add("--only", type=_names, default=[], metavar="NAME,...", help="models whose name contains one of these")
    add("--arch", default="sm_80+sm_90a", help="architectures (sm_80+sm_90a)")
    kinds = ["float32", "tf32", "float16", "bfloat16"]
    add("--precision", choices=kinds, default="float32", help="what products are computed in")
    add("--kernels", action="store_true", help="print a line per function as well")
    add("--json", action="store_true", help="print JSON instead of tables")
    return parser.parse_args(given)


if __name__ == "__main__":
    sys.exit(main())
