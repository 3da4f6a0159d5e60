"""How long polycomp takes to start: importing, loading a module, compiling with an empty and with a full cache.

Imports and loads are medians over fresh processes; a compile time is that of the whole ``polycomp compile`` command,
Python's start included, with a cache folder of its own. bert_base is measured when --models names a folder that has it.

    python benchmarks/startup.py [--models DIR] [--only squeezenet] [--processes 9]
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping

import onnx
import rich.console
import rich.table
from light_models import light_model, load_filled

IMPORT = "import time; t = time.perf_counter(); import polycomp; print(time.perf_counter() - t)"
IMPORT_FOR_LOADING = IMPORT.replace("import polycomp;", "import polycomp; polycomp.load;")
LOAD = "import sys, time, polycomp as pc; f = pc.load; t = time.perf_counter(); f(sys.argv[1]); "
LOAD += "print(time.perf_counter() - t)"

IMPORT_GOAL, LOAD_GOAL, WARM_GOAL = 0.3, 0.05, 1.0
COLD_GOALS = {"squeezenet": 4.0, "resnet50": 12.0, "densenet121": 12.0, "bert_base": 12.0}


@dataclasses.dataclass(frozen=True)
class Figure:
    """Seconds that something took, and that it should take at most."""

    what: str
    seconds: float
    goal: float


def median_of_processes(script: str, processes: int, *arguments: str) -> float:
    """The median of what ``script`` prints in each of some fresh processes, the first of which only warms up."""
    command = [sys.executable, "-c", script, *arguments]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(processes + 1)]
    return statistics.median(float(run.stdout) for run in runs[1:])


def compile_seconds(model: pathlib.Path, module: pathlib.Path, cache: pathlib.Path) -> float:
    """How long the command takes."""
    command = [sys.executable, "-m", "polycomp", "compile", str(model), "-o", str(module)]
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"XDG_CACHE_HOME": str(cache)})
    return time.perf_counter() - begin


def models(folder: pathlib.Path | None) -> Mapping[str, pathlib.Path | None]:
    """The models to compile: None for one of the onnx package, otherwise its file."""
    found: dict[str, pathlib.Path | None] = dict.fromkeys(["squeezenet", "resnet50", "densenet121"])
    for path in sorted(folder.glob("bert_base*.onnx")) if folder else []:
        found["bert_base"] = path
    return found


def figures(folder: pathlib.Path | None, only: str, processes: int) -> Iterator[Figure]:
    """All figures, as they are found."""
    yield Figure("import polycomp", median_of_processes(IMPORT, processes), IMPORT_GOAL)
    yield Figure(
        "import polycomp, with what load needs", median_of_processes(IMPORT_FOR_LOADING, processes), IMPORT_GOAL
    )
    with tempfile.TemporaryDirectory(prefix="polycomp-startup-") as name:
        for model, path in models(folder).items():
            if only in model:
                yield from _model_figures(model, path, pathlib.Path(name), processes)


def _model_figures(name: str, path: pathlib.Path | None, folder: pathlib.Path, processes: int) -> Iterator[Figure]:
    model, module, cache = folder / f"{name}.onnx", folder / f"{name}.pcm", folder / f"{name}-cache"
    onnx.save(load_filled(path) if path else light_model(name), model)
    yield Figure(f"compile {name}, empty cache", compile_seconds(model, module, cache), COLD_GOALS[name])
    yield Figure(f"compile {name}, full cache", compile_seconds(model, module, cache), WARM_GOAL)
    if name == "squeezenet":
        yield Figure(f"load {name}", median_of_processes(LOAD, processes, str(module)), LOAD_GOAL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=pathlib.Path, help="a folder with bert_base")
    parser.add_argument("--only", default="", help="part of a model's name")
    parser.add_argument("--processes", type=int, default=9, help="fresh processes per median")
    arguments = parser.parse_args()
    table = rich.table.Table(title=f"Start-up on {len(os.sched_getaffinity(0))} cores")
    table.add_column("what")
    for heading in ("seconds", "goal"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for figure in figures(arguments.models, arguments.only, arguments.processes):
        verdict = "met" if figure.seconds <= figure.goal else "not met"
        table.add_row(figure.what, f"{figure.seconds:.3f}", f"{figure.goal:.2f}", verdict)
    rich.console.Console().print(table)


if __name__ == "__main__":
    main()
