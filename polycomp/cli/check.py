"""``polycomp check``."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click
import numpy as np
from rich.table import Table

from polycomp.cli.common import compile_options, make_options, stdout
from polycomp.cli.inputs import random_inputs
from polycomp.cli.progress import Display
from polycomp.driver.check import Comparison, check_layers, check_outputs, check_precision, first_wrong
from polycomp.driver.compile import compile_model
from polycomp.driver.targets import check_device
from polycomp.driver.words import count_text, shape_text
from polycomp.errors import ExecutionError, InputError, ModelError, PolycompError
from polycomp.importers.onnx.reference import read_reference
from polycomp.options import Options
from polycomp.passes.precision import Reason
from polycomp.runtime import Module

Array = np.ndarray[Any, Any]
_Found = TypeVar("_Found")


@click.command()
@click.argument("model", type=click.Path(path_type=pathlib.Path))
@click.option("--per-layer", is_flag=True, help="Compare, and list, the values of every node.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the random inputs.")
@compile_options
def command(model: pathlib.Path, per_layer: bool, seed: int, **settings: Any) -> None:
    """Compare MODEL, compiled, with the ONNX reference implementation on random inputs.

    The model's outputs are compared as they are served. If one is wrong, or with --per-layer, the model is compiled
    once more with the values of all nodes as outputs, and the first node that differs is named.

    With a --precision other than float32 it is compared with itself, compiled in float32: the errors are told, and
    which nodes stayed in float32, and why.

    Sizes that are open, and not told by --shape, are 2, 3, ..., or all 1 where the model cannot run with those.
    """
    options = make_options(**settings)
    check_device(options.target)
    if options.narrow is not None:
        _check_precision(model, options, seed, per_layer)
        return
    with Display() as display:
        reference = read_reference(model)
        module = compile_model(model, options, display).module(options.threads)
        display.stage("reference")
        feeds, outputs = _on_random_inputs(module, options, seed, lambda feeds: check_outputs(reference, module, feeds))
        layers = []
        if per_layer or first_wrong(outputs):
            layers = check_layers(reference, options, feeds, display)
    if per_layer:
        _show_layers(layers)
    wrong = first_wrong(layers) or first_wrong(outputs)
    if wrong is not None:
        raise PolycompError(_explain(wrong, "the ONNX reference"))
    worst = max((c.error for c in (*outputs, *layers)), default=0.0)
    click.echo(
        f"{model}: {_counts(outputs, layers)} as in the ONNX reference; largest relative error {worst:.2g}; "
        f"inputs: {_shapes(feeds)}"
    )


def _check_precision(model: pathlib.Path, options: Options, seed: int, per_layer: bool) -> None:
    with Display() as display:
        reference = read_reference(model)
        module = compile_model(model, options, display).module(options.threads)
        feeds, report = _on_random_inputs(
            module, options, seed, lambda feeds: check_precision(reference, options, feeds, display, per_layer)
        )
    if per_layer:
        _show_layers(report.layers, absolute=True)
    if report.kept:
        _show_kept(report.kept)
    wrong = first_wrong(report.layers) or first_wrong(report.outputs)
    if wrong is not None:
        remedy = f"--keep-float32 {wrong.node.name} leaves it in float32"
        raise PolycompError(f"{_explain(wrong, f'float32 by more than {options.precision} may')}; {remedy}")
    compared = (*report.outputs, *report.layers)
    relative, absolute = (max((getattr(c, x) for c in compared), default=0.0) for x in ("error", "absolute"))
    click.echo(
        f"{model}: {_counts(report.outputs, report.layers)} in {options.precision} as in float32; largest relative "
        f"error {relative:.2g}, absolute {absolute:.2g}; inputs: {_shapes(feeds)}"
    )


def _counts(outputs: Sequence[Comparison], layers: Sequence[Comparison]) -> str:
    outside, inside = count_text(len(outputs), "output"), count_text(len(layers), "value")
    return f"{outside} and {inside} inside" if layers else outside


def _shapes(feeds: Mapping[str, Array]) -> str:
    return ", ".join(f"{name} {shape_text(array.shape)}" for name, array in feeds.items())


def _on_random_inputs(
    module: Module, options: Options, seed: int, check: Callable[[dict[str, Array]], _Found]
) -> tuple[dict[str, Array], _Found]:
    """The inputs, and what ``check`` finds for them. Sizes of 1 hide mistakes, so they come last."""
    try:
        feeds = random_inputs(module.inputs, options.shapes, seed, distinct=True)
        return feeds, check(feeds)
    except (InputError, ExecutionError, ModelError):  # the model, not the user, limits its open sizes
        feeds = random_inputs(module.inputs, options.shapes, seed)
        return feeds, check(feeds)


def _explain(wrong: Comparison, other: str) -> str:
    return (
        f"{wrong.node.op} node {wrong.node.name!r} is the first that differs from {other}: "
        f"its value {wrong.tensor!r} {wrong.problem} (relative error {wrong.error:.2g})"
    )


def _show_layers(layers: Sequence[Comparison], absolute: bool = False) -> None:
    errors = ("relative error", "absolute error") if absolute else ("relative error",)
    table = Table("", *errors, "operator", "node", "value")
    for layer in layers:
        figures = [f"{e:.2g}" for e in (layer.error, layer.absolute)[: len(errors)]]
        table.add_row("wrong" if layer.problem else "ok", *figures, layer.node.op, layer.node.name, layer.tensor)
    stdout().print(table)


def _show_kept(kept: Sequence[Reason]) -> None:
    table = Table("in float32", "nodes of the model", "why")
    for reason in kept:
        table.add_row(reason.node.op, ", ".join(reason.node.sources) or reason.node.name, reason.text)
    stdout().print(table)
