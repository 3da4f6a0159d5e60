"""polycomp against onnxruntime, OpenVINO and MNN on whole models: correctness, latency, memory, compile time and size.

Every peer runs in a process of its own, stopped while others have their turn; latencies are medians over interleaved
rounds, and a ratio below 1 means that polycomp is faster. Errors are relative to onnxruntime's outputs. Peers that are
not installed are skipped, and those that fail on a model are named. The light models of the onnx package are always
there; --models adds a folder of ONNX files (light ones are filled with seeded weights). The exit status is 1 when
polycomp failed on a model or was wrong.

    python benchmarks/models.py [--against onnxruntime,openvino,mnn] [--models DIR] [--only resnet50,bert] [--json]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import rich.console
from contest import Contest, contest, how_it_ended
from light_models import load_filled, package_models
from measure import Array, relative_error
from models_report import OURS, REFERENCE, Result, Row, as_json, show

STEPS = pathlib.Path(__file__).with_name("steps.py")
PACKAGES = {"onnxruntime": "onnxruntime", "openvino": "openvino", "mnn": "MNN"}
"""The peers, and what must be installed for each."""

STEP_SECONDS = 1800
"""A step that takes longer has failed."""


class StepError(Exception):
    """A step's process reported an error or died."""


def measure_model(path: pathlib.Path, arguments: argparse.Namespace) -> Row:
    """All figures of one model; what fails is told in the row."""
    row = Row(path.stem.removeprefix("light_"))
    with tempfile.TemporaryDirectory(prefix="polycomp-benchmark-") as name:
        try:
            _measure(row, path, pathlib.Path(name), arguments)
        except StepError as error:
            row.failure = str(error)
    return row


def _measure(row: Row, path: pathlib.Path, folder: pathlib.Path, arguments: argparse.Namespace) -> None:
    onnx.save(load_filled(path), folder / "model.onnx")
    common: dict[str, Any] = {"model": str(folder / "model.onnx"), "module": str(folder / "model.pcm")}
    common |= {"feeds": str(folder / "feeds.npz"), "threads": max(arguments.threads)}
    prepared = _step("prepare", common, folder)
    row.nodes, common["inputs"] = prepared["nodes"], prepared["inputs"]
    _compile(row, common, folder, arguments.latency_only)
    row.convolutions = _step("share_of_convolutions", common, folder)["share"]
    files = _files(row, common, folder, arguments)
    for count in arguments.threads:
        with contest(files, common | {"threads": count}, folder) as peers:
            row.results[count] = _results(peers, arguments.rounds, folder)


def _compile(row: Row, common: dict[str, Any], folder: pathlib.Path, latency_only: bool) -> None:
    """Compile the model: with an empty cache and again, or with the user's cache where times are not wanted."""
    cache = None if latency_only else folder / "cache"
    compiled = _step("compile_model", common, folder, cache)
    row.module_bytes = compiled["bytes"]
    if not latency_only:
        row.cold, row.warm = compiled["seconds"], _step("compile_model", common, folder, cache)["seconds"]


def _files(
    row: Row, common: dict[str, Any], folder: pathlib.Path, arguments: argparse.Namespace
) -> dict[str, pathlib.Path]:
    """The file that each contestant opens. A peer that has none for this model is named in the row."""
    files = {OURS: pathlib.Path(common["module"])}
    for peer in arguments.against:
        files[peer] = pathlib.Path(common["model"])
    if "mnn" in files:
        try:
            files["mnn"] = pathlib.Path(_step("convert_mnn", common, folder)["file"])
        except StepError as error:
            del files["mnn"]
            row.notes.append(f"mnn: {error}")
    return files


def _results(peers: Contest, rounds: int, folder: pathlib.Path) -> dict[str, Result]:
    """Everything about all contestants with one number of threads."""
    outputs = _outputs(peers, folder)
    seconds = peers.race(rounds)
    peaks = peers.ask({"peak": True})
    errors = {}
    if REFERENCE in outputs:
        errors = {name: _error(found, outputs[REFERENCE]) for name, found in outputs.items()}
    results = {n: Result(seconds[n], errors.get(n), peaks[n]["bytes"]) for n in peaks if n in seconds}
    return results | {name: Result(failure=reason) for name, reason in peers.failures.items()}


def _outputs(peers: Contest, folder: pathlib.Path) -> dict[str, dict[str, Array]]:
    """What each contestant computes, by name of the output."""
    found = {}
    path = folder / "outputs.npz"
    for name in peers.names:
        answer = peers.ask_one(name, {"outputs": str(path)})
        if answer is not None:
            with np.load(path) as stored:
                found[name] = {output: stored[f"arr_{i}"] for i, output in enumerate(answer["names"])}
    return found


def _error(found: Mapping[str, Array], expected: Mapping[str, Array]) -> float:
    if set(found) != set(expected):
        return float("inf")
    return relative_error([found[name] for name in expected], list(expected.values()))


def _step(
    name: str, arguments: dict[str, Any], folder: pathlib.Path, cache: pathlib.Path | None = None
) -> dict[str, Any]:
    """Run a step, with a ``cache`` of kernels other than the user's where one is given."""
    result = folder / "result.json"
    result.unlink(missing_ok=True)
    command = [sys.executable, str(STEPS), name, json.dumps(arguments), str(result)]
    environment = os.environ | ({"XDG_CACHE_HOME": str(cache)} if cache else {})
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=STEP_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise StepError(f"{name}: not done after {STEP_SECONDS} s") from None
    if not result.exists():
        raise StepError(f"{name}: {how_it_ended(done.returncode, done.stderr)}")
    figures: dict[str, Any] = json.loads(result.read_text())
    if "failure" in figures:
        raise StepError(f"{name}: {figures['failure']}")
    return figures


def find_models(folder: pathlib.Path | None, only: Sequence[str]) -> list[pathlib.Path]:
    """The package's light models and those of ``folder``, restricted to names that contain one of ``only``."""
    paths = package_models() + (sorted(folder.glob("*.onnx")) if folder else [])
    return [p for p in paths if not only or any(part in p.stem for part in only)]


def main() -> int:
    arguments = _arguments()
    progress = rich.console.Console(stderr=True)
    for peer in [p for p in arguments.against if importlib.util.find_spec(PACKAGES[p]) is None]:
        progress.print(f"{peer} is skipped: the package {PACKAGES[peer]} is not installed", style="yellow")
        arguments.against.remove(peer)
    rows = []
    for path in find_models(arguments.models, arguments.only):
        progress.print(f"{path.stem} ...", style="dim")
        rows.append(measure_model(path, arguments))
    if arguments.json:
        print(as_json(rows, arguments.tolerance))
    else:
        show(rows, arguments.against, arguments.threads, arguments.tolerance)
    return 1 if any(row.is_wrong(arguments.tolerance) for row in rows) or not rows else 0


def _names(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def _peers(text: str) -> list[str]:
    unknown = [name for name in _names(text) if name not in PACKAGES]
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no peer {unknown[0]!r}; there are {', '.join(PACKAGES)}")
    return _names(text)


def _counts(text: str) -> list[int]:
    return [int(part) for part in _names(text)]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--against", type=_peers, default=list(PACKAGES), metavar="PEER,...", help=f"some of {','.join(PACKAGES)}")
    add("--models", type=pathlib.Path, metavar="DIR", help="a folder with more ONNX files")
    add("--threads", type=_counts, default=[1, 2], metavar="N,...", help="thread counts to measure with (1,2)")
    add("--only", type=_names, default=[], metavar="NAME,...", help="models whose name contains one of these")
    add("--latency-only", action="store_true", help="compile with the user's cache, and leave out compile times")
    add("--rounds", type=int, default=5, help="interleaved rounds per thread count (5)")
    add("--tolerance", type=float, default=1e-3, help="largest relative error that passes (1e-3)")
    add("--json", action="store_true", help="print JSON instead of tables")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
