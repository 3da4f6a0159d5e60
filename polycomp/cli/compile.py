"""``polycomp compile``."""

from __future__ import annotations

import importlib
import pathlib
import time
from typing import Any

import click

from polycomp.cli.common import compile_options, make_options
from polycomp.cli.progress import Display
from polycomp.driver.compile import compile_model
from polycomp.driver.files import check_writable
from polycomp.driver.words import bytes_text, count_text, seconds_text
from polycomp.runtime import Manifest


def pass_names(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Names of passes. The compiler, which has them, is imported only when one is given."""
    if values:
        names = click.Choice(["import", *(name for name, _ in importlib.import_module("polycomp.passes").PASSES)])
        return tuple(names.convert(value, param, ctx) for value in values)
    return values


@click.command()
@click.argument("model", type=click.Path(path_type=pathlib.Path))
@click.option("-o", "--output", type=click.Path(path_type=pathlib.Path), help="The module file; MODEL.pcm by default.")
@click.option("--emit", type=click.Choice(["pcm"]), default="pcm", show_default=True, help="What to write.")
@click.option(
    "--print-after",
    multiple=True,
    callback=pass_names,
    metavar="PASS",
    help="Print the graph after this pass; 'import' is the first.",
)
@compile_options
def command(
    model: pathlib.Path,
    output: pathlib.Path | None,
    emit: str,
    print_after: tuple[str, ...],
    **settings: Any,
) -> None:
    """Compile the ONNX file MODEL to a module file that runs without the compiler."""
    path = output or pathlib.Path(model.stem + ".pcm")
    if path.exists() and model.exists() and path.samefile(model):
        raise click.UsageError(f"the output {path} is the model itself; give another name with -o")
    check_writable(path)
    begin = time.perf_counter()
    options = make_options(**settings)
    with Display(print_after) as display:
        compiled = compile_model(model, options, display)
        compiled.save(path)
    how = "found in the cache" if compiled.file is not None else "compiled"
    click.echo(f"{path}: {summary(compiled.manifest)}; {how} in {seconds_text(time.perf_counter() - begin)}")


def summary(manifest: Manifest) -> str:
    """A module in a line."""
    symbols = {step.symbol for step in manifest.steps}
    kernels, tuned = count_text(len(symbols), "kernel"), manifest.metadata.get("tuned", {})
    if tuned:
        near, ways = list(tuned.values()).count("near"), len(tuned.keys() - symbols)
        told = [f"{len(tuned) - ways} of them tuned"]
        told += [f"{count_text(ways, 'problem')} solved in a measured way"] if ways else []
        told += [f"{near} for a near target"] if near else []
        kernels += f" ({', '.join(told)})"
    return f"{count_text(len(manifest.steps), 'step')} of {kernels}, {bytes_text(manifest.weight_bytes)} of weights"
