"""``polycomp check``."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import click
import numpy as np
from rich.table import Table

from polycomp.cli.common import compile_options, make_options, stdout
from polycomp.cli.inputs import random_inputs
from polycomp.cli.progress import Display
from polycomp.driver.check import Comparison, check_layers, check_outputs, first_wrong
from polycomp.driver.compile import compile_model
from polycomp.driver.words import count_text, shape_text
from polycomp.errors import ExecutionError, InputError, ModelError, PolycompError
from polycomp.importers.onnx.reference import ReferenceModel, read_reference
from polycomp.options import Options
from polycomp.runtime import Module

Array = np.ndarray[Any, Any]


@click.command()
@click.argument("model", type=click.Path(path_type=pathlib.Path))
@click.option("--per-layer", is_flag=True, help="Compare, and list, the values of every node.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the random inputs.")
@compile_options
def command(model: pathlib.Path, per_layer: bool, seed: int, **settings: Any) -> None:
    """Compare MODEL, compiled, with the ONNX reference implementation on random inputs.

    The model's outputs are compared as they are served. If one is wrong, or with --per-layer, the model is compiled
    once more with the values of all nodes as outputs, and the first node that differs is named.

    Sizes that are open, and not told by --shape, are 2, 3, ..., or all 1 where the model cannot run with those.
    """
    options = make_options(**settings)
    with Display() as display:
        reference = read_reference(model)
        module = compile_model(model, options, display).module(options.threads)
        display.stage("reference")
        feeds, outputs = _compare(reference, module, options, seed)
        layers = []
        if per_layer or first_wrong(outputs):
            layers = check_layers(reference, options, feeds, display)
    if per_layer:
        _show_layers(layers)
    wrong = first_wrong(layers) or first_wrong(outputs)
    if wrong is not None:
        raise PolycompError(_explain(wrong))
    worst = max((c.error for c in (*outputs, *layers)), default=0.0)
    outside, inside = count_text(len(outputs), "output"), count_text(len(layers), "value")
    compared = f"{outside} and {inside} inside" if layers else outside
    on = ", ".join(f"{name} {shape_text(array.shape)}" for name, array in feeds.items())
    click.echo(f"{model}: {compared} as in the ONNX reference; largest relative error {worst:.2g}; inputs: {on}")


def _compare(
    reference: ReferenceModel, module: Module, options: Options, seed: int
) -> tuple[dict[str, Array], list[Comparison]]:
    """The inputs, and the outputs compared. Sizes of 1 hide mistakes, so they come last."""
    try:
        feeds = random_inputs(module.inputs, options.shapes, seed, distinct=True)
        return feeds, check_outputs(reference, module, feeds)
    except (InputError, ExecutionError, ModelError):  # the model, not the user, limits its open sizes
        feeds = random_inputs(module.inputs, options.shapes, seed)
        return feeds, check_outputs(reference, module, feeds)


def _explain(wrong: Comparison) -> str:
    return (
        f"{wrong.node.op} node {wrong.node.name!r} is the first that differs from the ONNX reference: "
        f"its value {wrong.tensor!r} {wrong.problem} (relative error {wrong.error:.2g})"
    )


def _show_layers(layers: Sequence[Comparison]) -> None:
    table = Table("", "relative error", "operator", "node", "value")
    for layer in layers:
        table.add_row(
            "wrong" if layer.problem else "ok", f"{layer.error:.2g}", layer.node.op, layer.node.name, layer.tensor
        )
    stdout().print(table)
