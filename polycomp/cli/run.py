"""``polycomp run``."""

from __future__ import annotations

import io
import pathlib
import re
import time
from typing import Any

import click
import numpy as np
from rich.table import Table

from polycomp.cli.common import gpu_name, parse_files, runner_text, shape_option, stdout, threads_option
from polycomp.cli.inputs import random_inputs, read_array
from polycomp.driver.files import write_file
from polycomp.driver.targets import check_threads_are_for
from polycomp.driver.words import count_text, kernel_text, seconds_text, shape_text
from polycomp.errors import ModuleFileError
from polycomp.runtime import Module, StepProfile, load_image, read_module_file

Array = np.ndarray[Any, Any]

_PROFILE_RUNS = 10


@click.command()
@click.argument("module", type=click.Path(path_type=pathlib.Path))
@click.option(
    "--input",
    "inputs",
    multiple=True,
    callback=parse_files,
    metavar="NAME=FILE",
    help="Read an input from a file.",
)
@shape_option("Shape of a random input whose size is open.")
@click.option(
    "--output-dir",
    type=click.Path(file_okay=False, path_type=pathlib.Path),
    help="Write each output there as NAME.npy.",
)
@threads_option()
@click.option("--profile", is_flag=True, help="Show where the time goes, kernel by kernel.")
@click.option("--top", type=click.IntRange(min=1), help="Show the largest values of each output.")
def command(
    module: pathlib.Path,
    inputs: dict[str, pathlib.Path],
    shapes: dict[str, tuple[int, ...]],
    output_dir: pathlib.Path | None,
    threads: int,
    profile: bool,
    top: int | None,
) -> None:
    """Run the module file MODULE once. Without --input it makes random inputs."""
    loaded = open_module(module, threads)
    if inputs:
        feeds = {name: read_array(path) for name, path in inputs.items()}
    else:
        feeds = random_inputs(loaded.inputs, shapes)
        described = ", ".join(f"{name} {shape_text(array.shape)}" for name, array in feeds.items())
        click.echo(f"no --input given: using random inputs ({described})", err=True)
    loaded.run(feeds)  # the first run also sets up memory and threads
    begin = time.perf_counter()
    outputs = loaded.run(feeds)
    elapsed = time.perf_counter() - begin
    for name, array in outputs.items():
        _show(name, array, top)
    click.echo(f"ran in {seconds_text(elapsed)} {'on' if gpu_name(loaded) else 'with'} {runner_text(loaded)}")
    if output_dir is not None:
        _write(output_dir, outputs)
    if profile:
        _show_profile(loaded, feeds)


def open_module(path: pathlib.Path, threads: int) -> Module:
    """Load a module file, to run with ``threads``, which are none of a GPU's. A model that was given by mistake gets a
    better message than its wrong format."""
    if path.suffix == ".onnx":
        raise ModuleFileError(
            f"{path} is a model, not a module file; compile it first: polycomp compile {path} -o {path.stem}.pcm"
        )
    image = read_module_file(path)
    check_threads_are_for(image.manifest.device is not None, threads)
    return load_image(image, threads)


def _show(name: str, array: Array, top: int | None) -> None:
    click.echo(f"{name}: {array.dtype} {shape_text(array.shape)}{_statistics(array)}")
    flat = array.reshape(-1)
    if top is None or not flat.size:
        return
    for index in np.argsort(-flat.astype(np.float64), kind="stable")[:top]:
        place = ", ".join(str(i) for i in np.unravel_index(index, array.shape))
        click.echo(f"    [{place}] {flat[index]:.6g}")


def _statistics(array: Array) -> str:
    if not array.size:
        return ""
    values = array.astype(np.float64)
    return f", from {values.min():.4g} to {values.max():.4g}, mean {values.mean():.4g}"


def _write(folder: pathlib.Path, outputs: dict[str, Array]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in outputs.items():
        path = folder / (re.sub(r"[^\w.-]", "_", name) + ".npy")
        content = io.BytesIO()
        np.save(content, array)
        write_file(path, [content.getbuffer()])
        click.echo(f"wrote {path}")


def _show_profile(module: Module, feeds: dict[str, Array]) -> None:
    """A table of the kernels, the slowest first; times are the least of several runs."""
    runs = [module.run_profiled(feeds)[1] for _ in range(_PROFILE_RUNS)]
    best = [min(profiles, key=lambda p: p.nanoseconds) for profiles in zip(*runs, strict=True)]
    total = sum(p.nanoseconds for p in best)
    table = Table(title=f"{count_text(len(best), 'step')}, {seconds_text(total * 1e-9)} in all")
    for heading in ("time", "share", "GFLOP/s", "GB/s"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("kernel", no_wrap=True)
    table.add_column("model nodes")
    for profile in sorted(best, key=lambda p: -p.nanoseconds):
        table.add_row(*_profile_row(profile, max(total, 1)))
    stdout().print(table)


def _profile_row(profile: StepProfile, total: int) -> tuple[str, ...]:
    time_taken = max(profile.nanoseconds, 1)
    return (
        seconds_text(profile.nanoseconds * 1e-9),
        f"{profile.nanoseconds / total:.1%}",
        f"{profile.flops / time_taken:.1f}" if profile.flops else "-",
        f"{profile.bytes / time_taken:.1f}",
        kernel_text(profile.symbol),
        ", ".join(profile.sources),
    )
