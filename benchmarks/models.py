"""polycomp against onnxruntime on whole models: correctness, latency, compile time, size and memory.

Every model is measured in processes of its own; latencies are medians over interleaved rounds, and a ratio below 1
means that polycomp is faster. The light models of the onnx package are always there; --models adds a folder of ONNX
files (light ones are filled with seeded weights). The exit status is 1 when a model failed or was wrong.

    python benchmarks/models.py --against onnxruntime [--models DIR] [--only resnet50] [--threads 1,2] [--json]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import onnx
import rich.console
import rich.table
from light_models import load_filled, package_models
from measure import geometric_mean

STEPS = pathlib.Path(__file__).with_name("steps.py")
PEAK_MEMORY = pathlib.Path(__file__).with_name("peak_memory.py")
MEGABYTE = 1e6
STEP_SECONDS = 1800
"""A step that takes longer has failed."""


@dataclasses.dataclass
class Row:
    """A model's figures: seconds, bytes; per thread count where a dict. ``failure`` says why the rest is missing."""

    model: str
    nodes: int = 0
    error: float | None = None
    ours: dict[int, float] = dataclasses.field(default_factory=dict)
    theirs: dict[int, float] = dataclasses.field(default_factory=dict)
    cold: float | None = None
    warm: float | None = None
    module_bytes: int | None = None
    peak_bytes: int | None = None
    peak_bytes_theirs: int | None = None
    failure: str = ""

    def ratio(self, threads: int) -> float | None:
        """Our latency by theirs."""
        return self.ours[threads] / self.theirs[threads] if threads in self.ours else None


class StepError(Exception):
    """A step's process reported an error or died."""


def measure_model(path: pathlib.Path, threads: Sequence[int], rounds: int) -> Row:
    """All figures of one model; what fails is told in the row."""
    row = Row(path.stem.removeprefix("light_"))
    with tempfile.TemporaryDirectory(prefix="polycomp-benchmark-") as name:
        folder = pathlib.Path(name)
        try:
            _measure(row, path, folder, threads, rounds)
        except StepError as error:
            row.failure = str(error)
    return row


def _measure(row: Row, path: pathlib.Path, folder: pathlib.Path, threads: Sequence[int], rounds: int) -> None:
    onnx.save(load_filled(path), folder / "model.onnx")
    common: dict[str, Any] = {
        "model": str(folder / "model.onnx"),
        "module": str(folder / "model.pcm"),
        "rounds": rounds,
    }
    common |= {"feeds": str(folder / "feeds.npz"), "threads": max(threads)}
    prepared = _step("prepare", common, folder)
    row.nodes, common["inputs"] = prepared["nodes"], prepared["inputs"]
    compiled = _step("compile_model", common, folder)
    row.cold, row.module_bytes = compiled["seconds"], compiled["bytes"]
    row.warm = _step("compile_model", common, folder)["seconds"]
    for count in threads:
        figures = _step("latency", common | {"threads": count}, folder)
        row.ours[count], row.theirs[count] = figures["ours"], figures["theirs"]
        row.error = max(row.error or 0.0, figures["error"])
    row.peak_bytes = _peak("polycomp_peer", common | {"file": common["module"]}, folder)
    row.peak_bytes_theirs = _peak("onnxruntime_peer", common | {"file": common["model"]}, folder)


def _peak(peer: str, arguments: dict[str, Any], folder: pathlib.Path) -> int:
    return int(_step(peer, arguments, folder, PEAK_MEMORY)["bytes"])


def _step(name: str, arguments: dict[str, Any], folder: pathlib.Path, script: pathlib.Path = STEPS) -> dict[str, Any]:
    """Run a script's step, with a cache of kernels in ``folder`` that is empty at first."""
    result = folder / "result.json"
    result.unlink(missing_ok=True)
    command = [sys.executable, str(script), name, json.dumps(arguments), str(result)]
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=STEP_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise StepError(f"{name}: not done after {STEP_SECONDS} s") from None
    if not result.exists():
        raise StepError(f"{name}: {_how_it_ended(done)}")
    figures: dict[str, Any] = json.loads(result.read_text())
    if "failure" in figures:
        raise StepError(f"{name}: {figures['failure']}")
    return figures


def _how_it_ended(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode < 0:
        return f"killed by {signal.Signals(-done.returncode).name}"
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"exit status {done.returncode}"


def find_models(folder: pathlib.Path | None, only: Sequence[str]) -> list[pathlib.Path]:
    """The package's light models and those of ``folder``, restricted to names that contain one of ``only``."""
    paths = package_models() + (sorted(folder.glob("*.onnx")) if folder else [])
    return [p for p in paths if not only or any(part in p.stem for part in only)]


def show(rows: Sequence[Row], threads: Sequence[int]) -> None:
    """Print a table with geometric means below it."""
    table = rich.table.Table(title="polycomp against onnxruntime (ratio below 1: polycomp is faster)")
    table.add_column("model", no_wrap=True)
    heads = ["rel. error"]
    for count in threads:
        heads += [f"ms, {count} thr.", "onnxruntime", "ratio"]
    for head in [*heads, "cold s", "warm s", "module MB", "peak MB", "onnxruntime"]:
        table.add_column(head, justify="right")
    for row in rows:
        table.add_row(row.model, *_cells(row, threads))
    table.add_section()
    table.add_row("geometric mean", *_means(rows, threads))
    console = rich.console.Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)
    for row in rows:
        if row.failure:
            console.print(f"{row.model}: {row.failure}", style="red", markup=False)


def _cells(row: Row, threads: Sequence[int]) -> list[str]:
    cells = [_text(row.error, ".1e")]
    for count in threads:
        times = [row.ours.get(count), row.theirs.get(count)]
        cells += [*(_text(t, ".2f", 1e-3) for t in times), _text(row.ratio(count), ".3f")]
    sizes = [row.module_bytes, row.peak_bytes, row.peak_bytes_theirs]
    return [*cells, _text(row.cold, ".1f"), _text(row.warm, ".2f"), *(_text(s, ".1f", MEGABYTE) for s in sizes)]


def _text(value: float | None, form: str, unit: float = 1.0) -> str:
    if value is None:
        return "failed"
    return "" if math.isnan(value) else format(value / unit, form)


def _means(rows: Sequence[Row], threads: Sequence[int]) -> list[str]:
    cells = [""]
    for count in threads:
        cells += ["", "", _text(geometric_mean(_ratios(rows, count)), ".3f")]
    seconds = [[r.cold for r in rows], [r.warm for r in rows]]
    return [*cells, *(_text(geometric_mean(s for s in column if s), ".2f") for column in seconds), "", "", ""]


def _ratios(rows: Sequence[Row], threads: int) -> list[float]:
    return [ratio for row in rows if (ratio := row.ratio(threads)) is not None]


def as_json(rows: Sequence[Row], threads: Sequence[int]) -> str:
    means = {count: geometric_mean(_ratios(rows, count)) for count in threads}
    models = [dataclasses.asdict(r) | {"ratio": {c: r.ratio(c) for c in r.ours}} for r in rows]
    return json.dumps({"models": models, "geometric_mean_of_ratios": means}, indent=1)


def main() -> int:
    arguments = _arguments()
    threads = [int(t) for t in arguments.threads.split(",")]
    paths = find_models(arguments.models, arguments.only)
    progress = rich.console.Console(stderr=True)
    rows = []
    for path in paths:
        progress.print(f"{path.stem} ...", style="dim")
        rows.append(measure_model(path, threads, arguments.rounds))
    if arguments.json:
        print(as_json(rows, threads))
    else:
        show(rows, threads)
    wrong = [r for r in rows if r.failure or r.error is None or r.error > arguments.tolerance]
    return 1 if wrong or not rows else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", choices=["onnxruntime"], default="onnxruntime")
    parser.add_argument("--models", type=pathlib.Path, metavar="DIR", help="a folder with more ONNX files")
    parser.add_argument("--threads", default="1,2", metavar="N,N", help="thread counts to measure with (1,2)")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="models whose name contains NAME")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds per thread count (5)")
    parser.add_argument("--tolerance", type=float, default=1e-3, help="largest relative error that passes (1e-3)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
