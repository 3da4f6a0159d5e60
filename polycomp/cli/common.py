"""What several commands share: their options, and where they write."""

from __future__ import annotations

import functools
import pathlib
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from polycomp.driver.charts import check_installed
from polycomp.driver.files import check_writable
from polycomp.driver.report import Section
from polycomp.options import Options
from polycomp.target import parse_target
from polycomp.tuner.log import with_log

_Command = TypeVar("_Command", bound=Callable[..., Any])


def parse_shapes(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """``name=1,3,224,224``, any number of times, as shapes by name."""
    shapes = {}
    for value in values:
        name, _, dims = value.rpartition("=")
        sizes = [d.strip() for d in dims.split(",") if d.strip()]
        if not name or not all(d.isdigit() for d in sizes):
            raise click.BadParameter(f"{value!r} is not NAME=DIM,DIM,..., for example input=1,3,224,224")
        shapes[name] = tuple(map(int, sizes))
    return shapes


def parse_files(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, pathlib.Path]:
    """``name=x.npy``, any number of times, as paths by name."""
    files = {}
    for value in values:
        name, _, path = value.partition("=")
        if not name or not path:
            raise click.BadParameter(f"{value!r} is not NAME=FILE, for example input=x.npy")
        files[name] = pathlib.Path(path)
    return files


def parse_labels(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """``name=value``, any number of times."""
    for value in values:
        if not all(value.partition("=")[::2]):
            raise click.BadParameter(f"{value!r} is not NAME=VALUE, for example target=avx512")
    return {name: label for name, _, label in (value.partition("=") for value in values)}


def shape_option(help_text: str) -> Callable[[_Command], _Command]:
    """``--shape NAME=DIMS``, which may be repeated."""
    return click.option("--shape", "shapes", multiple=True, callback=parse_shapes, metavar="NAME=DIMS", help=help_text)


def compile_options(command: _Command) -> _Command:
    """The options that decide what code is made: they reach the command as target, threads, shapes, jobs, cache, db."""
    for decorate in (
        click.option(
            "--db",
            type=click.Path(path_type=pathlib.Path, dir_okay=False),
            help="A tuning log whose schedules are used; the user's own by default.",
        ),
        click.option("--no-cache", "cache", flag_value=False, default=True, help="Neither use nor fill the cache."),
        click.option("--jobs", type=click.IntRange(min=0), default=0, help="Compile processes; 0: one per core."),
        shape_option("Fix the shape of an input; may be repeated."),
        click.option("--threads", type=click.IntRange(min=0), default=0, help="Threads to run with; 0: all cores."),
        click.option("--target", default="cpu", show_default=True, help="What to compile for: cpu, or a triple."),
    ):
        command = decorate(command)
    return command


def make_options(
    target: str, threads: int, shapes: dict[str, tuple[int, ...]], jobs: int, cache: bool, db: pathlib.Path | None
) -> Options:
    """The Options that :func:`compile_options` describe."""
    return with_log(Options(parse_target(target), threads, shapes, cache, jobs), db)


def check_page(path: pathlib.Path | None) -> None:
    """Find out before a long work, not after it, that a page cannot be made, where one is wanted."""
    if path is not None:
        check_installed()
        check_writable(path)


@functools.cache
def stdout() -> Console:
    """Where results are written; as wide as they are when nobody looks, so that no number is cut."""
    # No markup: names of nodes and shapes hold square brackets.
    return Console(
        highlight=False,
        markup=False,
        emoji=False,
        width=None if sys.stdout.isatty() else 160,
        soft_wrap=not sys.stdout.isatty(),
    )


def section_table(section: Section) -> Table:
    """A table of a report, for the terminal."""
    table = Table(title=section.title, title_justify="left")
    for heading in section.headings:
        table.add_column(heading, justify="right" if heading in section.numeric else "left")
    for row in section.rows:
        table.add_row(*row)
    return table
