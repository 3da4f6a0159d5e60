"""The steps of ``models.py`` that need a process of their own: making inputs, compiling and timing.

    python benchmarks/steps.py prepare|compile_model|latency '{"model": ..., ...}' RESULT.json

The result file holds the step's figures, or ``{"failure": ...}``.
"""

from __future__ import annotations

import json
import pathlib
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime_peer
import polycomp_peer
from light_models import random_feeds
from measure import interleaved, load_feeds, relative_error

import polycomp as pc

Arguments = Mapping[str, Any]

SYMBOLS = {"batch": 1, "seq": 128, "batch_size": 1, "sequence_length": 128, "sequence": 128}
"""Sizes that symbolic dimensions get by their name; others get 1."""


def prepare(arguments: Arguments) -> dict[str, Any]:
    """Write the model's feeds, so that other steps need not load the model for them."""
    model = onnx.load(arguments["model"])
    feeds = random_feeds(model, SYMBOLS)
    np.savez(arguments["feeds"], *feeds.values())
    return {"nodes": len(model.graph.node), "inputs": list(feeds)}


def compile_model(arguments: Arguments) -> dict[str, Any]:
    """Compile and save; seconds of ``pc.compile`` alone, without starting Python."""
    compiler = pc.compile  # imported by this first use, which is no part of compiling
    start = time.perf_counter()
    module = compiler(arguments["model"], target="cpu", threads=arguments["threads"])
    seconds = time.perf_counter() - start
    module.save(arguments["module"])
    return {"seconds": seconds, "bytes": pathlib.Path(arguments["module"]).stat().st_size}


def latency(arguments: Arguments) -> dict[str, Any]:
    """Median seconds of both in interleaved rounds, and the relative error of our outputs."""
    feeds, threads = load_feeds(arguments), int(arguments["threads"])
    ours = polycomp_peer.open_peer(pathlib.Path(arguments["module"]), feeds, threads)
    theirs = onnxruntime_peer.open_peer(pathlib.Path(arguments["model"]), feeds, threads)
    found, expected = ours.outputs(), theirs.outputs()
    error = relative_error([found[name] for name in expected], list(expected.values()))
    times = interleaved({"ours": ours.run, "theirs": theirs.run}, arguments["rounds"])
    return {**times, "error": error}


def main() -> int:
    name, arguments, result = sys.argv[1:]
    try:
        figures = globals()[name](json.loads(arguments))
    except Exception as error:  # noqa: BLE001 - whatever went wrong is this step's result
        figures = {"failure": f"{type(error).__name__}: {error}"}
    pathlib.Path(result).write_text(json.dumps(figures))
    return 1 if "failure" in figures else 0


if __name__ == "__main__":
    sys.exit(main())
