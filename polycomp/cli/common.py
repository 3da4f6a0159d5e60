"""What several commands share: their options, and how they write numbers."""

from __future__ import annotations

import functools
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from polycomp.driver.report import Section
from polycomp.options import Options
from polycomp.target import parse_target
from polycomp.tuner.log import with_log

_DIGITS = 6  # of a kernel's digest

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


def bytes_text(size: float) -> str:
    """A size for people: ``4.7 MB``."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} GB"


def seconds_text(seconds: float) -> str:
    """A time for people, to three digits: ``1.23 ms``."""
    unit, scale = ("s", 1.0) if seconds >= 1 else ("ms", 1e3) if seconds >= 1e-3 else ("µs", 1e6)
    return f"{seconds * scale:.3g} {unit}"


def kernel_text(symbol: str) -> str:
    """A kernel's name with the beginning of its digest, which is enough to tell it from others."""
    stem, _, digest = symbol.rpartition("_")
    return f"{stem}_{digest[:_DIGITS]}" if stem else symbol


def shape_text(shape: Sequence[object]) -> str:
    """``1x3x224x224``, or ``scalar``."""
    return "x".join(map(str, shape)) or "scalar"


def count_text(count: int, noun: str) -> str:
    """``1 kernel``, ``2 kernels``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
