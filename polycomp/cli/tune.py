"""``polycomp tune``."""

from __future__ import annotations

import pathlib

import click

from polycomp.cli.common import count_text, shape_option, stdout
from polycomp.cli.progress import Display
from polycomp.cli.tuning import TuningView, layer_table, summary
from polycomp.driver.pipeline import import_graph, lower_model
from polycomp.errors import TuningLogError
from polycomp.options import Options
from polycomp.target import host_target
from polycomp.tuner.database import Database
from polycomp.tuner.log import default_log
from polycomp.tuner.model_layers import layers_of
from polycomp.tuner.pool import LocalPool
from polycomp.tuner.session import Budget, Layer, Session, library_first

_TRIALS = 256


@click.command()
@click.argument("model", type=click.Path(path_type=pathlib.Path))
@click.option("--trials", type=click.IntRange(min=1), help=f"How many schedules to measure.  [default: {_TRIALS}]")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), help="How long to search, without --trials.")
@click.option(
    "--db", type=click.Path(path_type=pathlib.Path, dir_okay=False), help="The tuning log; the user's own by default."
)
@click.option("--resume", is_flag=True, help="Begin with what the log knows, and measure nothing of that again.")
@click.option("--threads", type=click.IntRange(min=0), default=0, help="Threads to run with; 0: all cores.")
@click.option("--jobs", type=click.IntRange(min=0), default=0, help="Compile processes; 0: one per core.")
@click.option("--seed", type=int, default=0, help="Another seed searches in another order.")
@shape_option("Fix the shape of an input; may be repeated.")
def command(
    model: pathlib.Path,
    trials: int | None,
    seconds: float | None,
    db: pathlib.Path | None,
    resume: bool,
    threads: int,
    jobs: int,
    seed: int,
    shapes: dict[str, tuple[int, ...]],
) -> None:
    """Search for faster schedules of the kernels of MODEL (an ONNX file) on this machine by measuring them.

    Every measurement is written to the tuning log at once; 'polycomp compile' uses the best of them.
    """
    log = db or default_log()
    if log is None:
        raise TuningLogError("this user has no home folder for a tuning log; name one with --db")
    target = host_target()
    options = Options(target, threads or target.cores, shapes)
    budget = Budget(_TRIALS if trials is None and seconds is None else trials, seconds)
    with Display() as display:
        lowered = lower_model(import_graph(model, options, display), options, display)
        layers = layers_of(lowered, options, library_first(seed))
    view = TuningView(layers, budget)
    try:
        _tune(layers, options.threads, jobs, Database(log), resume, view)
    finally:
        stdout().print(layer_table(layers))
        click.echo(summary(layers, view))
        click.echo(f"the log is {log}; 'polycomp compile' uses it" + (f" with --db {log}" if db else ""))


def _tune(layers: list[Layer], threads: int, jobs: int, database: Database, resume: bool, view: TuningView) -> None:
    with LocalPool(threads, jobs) as pool, view:
        session = Session(layers, pool, database, view)
        if resume:
            known = session.resume()
            click.echo(f"the log has {count_text(known, 'measurement')} of these kernels", err=True)
        session.run(view.budget)
