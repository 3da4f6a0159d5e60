"""``polycomp inspect``."""

from __future__ import annotations

import pathlib
from typing import Any

import click

from polycomp.cli.common import (
    check_page,
    check_precision_is_for,
    compile_options,
    make_options,
    section_table,
    stdout,
)
from polycomp.cli.progress import Display
from polycomp.driver.compile import compile_model
from polycomp.driver.files import write_file
from polycomp.driver.picture import arena_chart
from polycomp.driver.report import html_page, report
from polycomp.runtime import Manifest, read_module_file


@click.command()
@click.argument("model", type=click.Path(path_type=pathlib.Path))
@click.option("--html", type=click.Path(path_type=pathlib.Path), help="Write a page instead.")
@compile_options
def command(model: pathlib.Path, html: pathlib.Path | None, **settings: Any) -> None:
    """Show the operators, shapes, FLOPs, memory plan and kernels of MODEL (an ONNX file or a module file)."""
    check_page(html)
    manifest = _manifest(model, settings)
    sections = report(manifest)
    if html is not None:
        write_file(html, [html_page(manifest.name, [arena_chart(manifest), *sections]).encode()])
        click.echo(f"wrote {html}")
        return
    for section in sections:
        stdout().print(section_table(section))


def _manifest(model: pathlib.Path, settings: dict[str, Any]) -> Manifest:
    check_precision_is_for(model.suffix == ".pcm", settings["precision"])
    if model.suffix == ".pcm":
        return read_module_file(model).manifest
    with Display() as display:
        return compile_model(model, make_options(**settings), display).manifest
