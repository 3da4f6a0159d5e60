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
from polycomp.driver.targets import as_target
from polycomp.driver.words import count_text
from polycomp.options import PRECISIONS, Options
from polycomp.runtime import Module
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


def threads_option() -> Callable[[_Command], _Command]:
    """``--threads N``."""
    return click.option(
        "--threads", type=click.IntRange(min=0), default=0, help="Threads of the CPU to run with; 0: all cores."
    )


def parse_names(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """``a,b``, any number of times, as names."""
    return tuple(name.strip() for value in values for name in value.split(",") if name.strip())


def compile_options(command: _Command) -> _Command:
    """The options that decide what code is made: they reach the command as target, threads, shapes, jobs, cache, db,
    precision, keep_float32."""
    for decorate in (
        click.option(
            "--keep-float32",
            multiple=True,
            callback=parse_names,
            metavar="NAME,...",
            help="Operators or nodes that another precision leaves in float32; may be repeated.",
        ),
        click.option(
            "--precision",
            type=click.Choice(PRECISIONS),
            default=PRECISIONS[0],
            show_default=True,
            help="Store weights and data of float32 in this where it is safe, and multiply it.",
        ),
        click.option(
            "--db",
            type=click.Path(path_type=pathlib.Path, dir_okay=False),
            help="A tuning log whose schedules are used; the user's own by default.",
        ),
        click.option("--no-cache", "cache", flag_value=False, default=True, help="Neither use nor fill the cache."),
        click.option("--jobs", type=click.IntRange(min=0), default=0, help="Compile processes; 0: one per core."),
        shape_option("Fix the shape of an input; may be repeated."),
        threads_option(),
        click.option("--target", default="cpu", show_default=True, help="What to compile for: cpu, cuda, or a triple."),
    ):
        command = decorate(command)
    return command


def make_options(
    target: str,
    threads: int,
    shapes: dict[str, tuple[int, ...]],
    jobs: int,
    cache: bool,
    db: pathlib.Path | None,
    precision: str,
    keep_float32: tuple[str, ...],
) -> Options:
    """The Options that :func:`compile_options` describe."""
    if keep_float32 and precision == PRECISIONS[0]:
        raise click.UsageError(
            "--keep-float32 is for what another --precision leaves alone; give that, or leave it out"
        )
    options = Options(
        as_target(target, threads), threads, shapes, cache, jobs, precision=precision, keep_float32=keep_float32
    )
    return with_log(options, db)


def check_precision_is_for(is_module: bool, precision: str) -> None:
    """Refuse to be told the precision of a module file, which was compiled in one."""
    if is_module and precision != PRECISIONS[0]:
        raise click.UsageError("--precision is for models: a module file is in the one that it was compiled in")


def runner_text(module: Module) -> str:
    """What runs a module that is loaded: ``2 threads``, or the name of the GPU."""
    return gpu_name(module) or count_text(module.threads, "thread")


def gpu_name(module: Module) -> str:
    """The name of the GPU that a module is loaded on; empty for a CPU."""
    device = getattr(module, "device", None)  # of modules for GPUs, whose class is imported only for them
    return "" if device is None else str(device.name)


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
