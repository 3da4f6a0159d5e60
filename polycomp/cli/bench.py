"""``polycomp bench``."""

from __future__ import annotations

import dataclasses
import importlib
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import click
import numpy as np

from polycomp.cli.common import (
    check_page,
    check_precision_is_for,
    compile_options,
    gpu_name,
    make_options,
    runner_text,
)
from polycomp.cli.inputs import random_inputs
from polycomp.cli.progress import Display
from polycomp.cli.run import open_module
from polycomp.driver.bench import Timing, measure
from polycomp.driver.compile import compile_model
from polycomp.driver.files import write_file
from polycomp.driver.targets import check_device
from polycomp.driver.words import seconds_text
from polycomp.errors import PolycompError
from polycomp.options import Options
from polycomp.runtime import Module

Feeds = Mapping[str, np.ndarray[Any, Any]]


@click.command()
@click.argument("model", type=click.Path(path_type=pathlib.Path))
@click.option("--against", type=click.Choice(["onnxruntime"]), help="Measure this peer as well, in turns.")
@click.option(
    "--html", type=click.Path(path_type=pathlib.Path), help="Write a page: each kernel under the machine's roofs."
)
@click.option("--json", "as_json", is_flag=True, help="Write the figures as JSON.")
@compile_options
def command(
    model: pathlib.Path, against: str | None, html: pathlib.Path | None, as_json: bool, **settings: Any
) -> None:
    """Measure how fast MODEL (an ONNX file or a module file) runs on random inputs."""
    options = make_options(**settings)
    is_module = model.suffix == ".pcm"
    if against and is_module:
        raise click.UsageError("--against needs the ONNX file: a module file holds no model for onnxruntime")
    check_precision_is_for(is_module, options.precision)
    _check_roofs(html, options.target.is_gpu)
    check_page(html)
    module = open_module(model, options.threads) if is_module else _compile(model, options)
    _check_roofs(html, module.manifest.device is not None)
    feeds = random_inputs(module.inputs, options.shapes)
    subjects: dict[str, Callable[[], object]] = {"polycomp": lambda: module.run(feeds)}
    if against:
        subjects[against] = _onnxruntime(model, module, feeds)
    timings = measure(subjects)
    if as_json:
        click.echo(json.dumps(_record(model, module, timings)))
    else:
        _show(timings, module)
    if html is not None:
        make_page = importlib.import_module("polycomp.roofline.page").make_page  # the compiler, with isl and LLVM
        write_file(html, [make_page(module, feeds, options, None if is_module else model).encode()])
        click.echo(f"wrote {html}", err=True)


def _compile(model: pathlib.Path, options: Options) -> Module:
    check_device(options.target)
    with Display() as display:
        return compile_model(model, options, display).module(options.threads)


def _check_roofs(html: pathlib.Path | None, is_gpu: bool) -> None:
    if html is not None and is_gpu:
        raise click.UsageError("--html shows kernels under the roofs of this machine's CPU, not of a GPU; leave it out")


def _onnxruntime(model: pathlib.Path, module: Module, feeds: Feeds) -> Callable[[], object]:
    """A run of the same model with as many threads, or on the GPU too."""
    try:
        onnxruntime: Any = importlib.import_module("onnxruntime")
    except ImportError:
        raise PolycompError("onnxruntime is not installed; pip install onnxruntime, or leave --against out") from None
    provider = "CUDAExecutionProvider" if gpu_name(module) else "CPUExecutionProvider"
    if provider not in onnxruntime.get_available_providers():
        raise PolycompError("this onnxruntime cannot use a GPU; pip install onnxruntime-gpu, or leave --against out")
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = module.threads
    settings.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(model), settings, providers=[provider])
    except Exception as error:  # its classes come from C++, and share no base of their own
        raise PolycompError(f"onnxruntime cannot load {model}, so leave --against out: {_reason(error)}") from error
    return lambda: session.run(None, dict(feeds))


def _reason(error: Exception) -> str:
    """What onnxruntime says, without the C++ function that said it."""
    return " ".join(str(error).split()).rpartition("&) ")[2]


def _record(model: pathlib.Path, module: Module, timings: Mapping[str, Timing]) -> dict[str, Any]:
    figures = {name: dataclasses.asdict(timing) for name, timing in timings.items()}
    gpu = gpu_name(module)
    runner = {"device": gpu} if gpu else {"threads": module.threads}
    return {"model": str(model), **runner, "unit": "seconds", **figures, **_ratios(timings)}


def _ratios(timings: Mapping[str, Timing]) -> dict[str, float]:
    """How many times faster polycomp's median is than each peer's."""
    ours = timings["polycomp"].median
    return {f"speedup_over_{name}": t.median / ours for name, t in timings.items() if name != "polycomp"}


def _show(timings: Mapping[str, Timing], module: Module) -> None:
    for name, timing in timings.items():
        click.echo(
            f"{name:<12} {seconds_text(timing.median)} median, {seconds_text(timing.best)} best, "
            f"{1 / timing.median:.1f} runs/s, {runner_text(module)} ({timing.runs} runs)"
        )
    for name, ratio in _ratios(timings).items():
        click.echo(f"{name.replace('_', ' ')}: {ratio:.2f}x")
