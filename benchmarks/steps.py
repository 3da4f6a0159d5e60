"""The steps of ``models.py`` that need a process of their own: making inputs, compiling and converting.

    python benchmarks/steps.py prepare|compile_model|convert_mnn '{"model": ..., ...}' RESULT.json

The result file holds the step's figures, or ``{"failure": ...}``.
"""

from __future__ import annotations

import importlib
import json
import pathlib
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from light_models import random_feeds
from measure import load_feeds

import polycomp as pc
from polycomp.importers.onnx.names import node_names

Arguments = Mapping[str, Any]

SYMBOLS = {"batch": 1, "seq": 128, "batch_size": 1, "sequence_length": 128, "sequence": 128}
"""Sizes that symbolic dimensions get by their name; others get 1."""

CONVOLUTIONS = ("Conv", "ConvTranspose", "ConvInteger", "QLinearConv")


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


def share_of_convolutions(arguments: Arguments) -> dict[str, Any]:
    """The part of the model's floating-point operations that kernels with convolutions do, from 0 to 1."""
    nodes = onnx.load(arguments["model"]).graph.node
    convolutions = {name for name, n in zip(node_names(nodes), nodes, strict=True) if n.op_type in CONVOLUTIONS}
    _, steps = pc.load(arguments["module"]).run_profiled(load_feeds(arguments))
    flops = sum(step.flops for step in steps)
    return {"share": sum(s.flops for s in steps if convolutions.intersection(s.sources)) / max(1, flops)}


def convert_mnn(arguments: Arguments) -> dict[str, Any]:
    """Write the model as MNN's own file."""
    convert = importlib.import_module("mnn_peer").convert  # MNN need not be there for other steps
    return {"file": str(convert(pathlib.Path(arguments["model"]), pathlib.Path(arguments["model"]).parent))}


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
