"""``polycomp tune``."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from polycomp.cli import tune_report
from polycomp.cli.common import parse_labels, shape_option, stdout, threads_option
from polycomp.cli.progress import Display
from polycomp.cli.tuning import TuningView, confirmation_text, layer_table, summary, way_table
from polycomp.decisions import Decisions
from polycomp.driver.compile import compile_model
from polycomp.driver.lower import Lowered
from polycomp.driver.pipeline import import_graph, lower_model
from polycomp.driver.words import count_text
from polycomp.errors import TargetError, TuningLogError
from polycomp.options import Options
from polycomp.runtime import Module
from polycomp.target import host_target
from polycomp.tuner.confirm import confirm
from polycomp.tuner.database import Database
from polycomp.tuner.fleet import Group, connected
from polycomp.tuner.log import default_log
from polycomp.tuner.measurer import Measurer
from polycomp.tuner.model_layers import layers_of
from polycomp.tuner.pool import LocalPool
from polycomp.tuner.session import Budget, Layer, Session, library_first
from polycomp.tuner.timer import Limits
from polycomp.tuner.ways import Ways

_TRIALS = 256


class _Tune(click.Command):
    """MODEL is a file, unless it is ``report``."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """That of ``polycomp tune report`` where this is asked for."""
        if args[:1] == ["report"]:
            return tune_report.command.make_context(f"{info_name} report", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)


@click.command(cls=_Tune)
@click.argument("model", type=click.Path(path_type=pathlib.Path))
@click.option("--trials", type=click.IntRange(min=1), help=f"How many schedules to measure.  [default: {_TRIALS}]")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), help="How long to search, without --trials.")
@click.option(
    "--db", type=click.Path(path_type=pathlib.Path, dir_okay=False), help="The tuning log; the user's own by default."
)
@click.option("--resume", is_flag=True, help="Begin with what the log knows, and measure nothing of that again.")
@click.option(
    "--target", "machine", default="cpu", show_default=True, help="What to tune for: cpu, the one that measures."
)
@threads_option()
@click.option("--jobs", type=click.IntRange(min=0), default=0, help="Compile processes; 0: one per core.")
@click.option("--seed", type=int, default=0, help="Another seed searches in another order.")
@click.option("--cluster", metavar="ADDRESS", help="Measure on the nodes of a Ray cluster; auto: that of this machine.")
@click.option(
    "--workers-with",
    "wanted",
    multiple=True,
    callback=parse_labels,
    metavar="NAME=VALUE",
    help="Only on nodes with this label or resource, while the others compile; may be repeated.",
)
@shape_option("Fix the shape of an input; may be repeated.")
def command(
    model: pathlib.Path,
    trials: int | None,
    seconds: float | None,
    db: pathlib.Path | None,
    resume: bool,
    machine: str,
    threads: int,
    jobs: int,
    seed: int,
    cluster: str | None,
    wanted: dict[str, str],
    shapes: dict[str, tuple[int, ...]],
) -> None:
    """Search for faster schedules of the kernels of MODEL (an ONNX file) by measuring them.

    They are measured on this machine, or on the nodes of a cluster. Every measurement is written to the tuning log at
    once; 'polycomp compile' uses the best of them. 'polycomp tune report LOG' shows what a log tells.
    """
    if machine != "cpu":
        raise TargetError(
            f"schedules are measured where they are searched, on CPUs, so there is no tuning for {machine!r} yet; "
            f"'polycomp compile --target {machine}' uses the library's own schedules"
        )
    log = db or default_log()
    if log is None:
        raise TuningLogError("this user has no home folder for a tuning log; name one with --db")
    budget = Budget(_TRIALS if trials is None and seconds is None else trials, seconds)
    tuning = _Tuning(model, shapes, budget, Database(log), resume, seed)
    if cluster is None:
        if wanted:
            raise click.UsageError("--workers-with chooses nodes of a cluster; name it with --cluster")
        target = host_target()
        options = Options(target, threads or target.cores, shapes)
        layers, ways = tuning.run(options, lambda: LocalPool(threads or target.cores, jobs))
        click.echo(tuning.confirm(options, layers, ways))
    else:
        _tune_on_cluster(tuning, cluster, wanted, threads, jobs)
    click.echo(f"the log is {log}; 'polycomp compile' uses it" + (f" with --db {log}" if db else ""))


@dataclasses.dataclass(frozen=True)
class _Tuning:
    """What is asked for, wherever it is measured."""

    model: pathlib.Path
    shapes: dict[str, tuple[int, ...]]
    budget: Budget
    database: Database
    resume: bool
    seed: int

    def run(self, options: Options, make_measurer: Callable[[], Measurer]) -> tuple[Sequence[Layer], Ways]:
        """Tune for the target of ``options``, and show the result, also of what was interrupted. Returns the kernels
        that were tuned, and what they are parts of."""
        with Display() as display:
            graph = import_graph(self.model, options, display)

            def lower(decisions: Mapping[str, Decisions]) -> Lowered:
                return lower_model(graph, dataclasses.replace(options, decisions=decisions), display)

            layers, ways = layers_of(lower, options, library_first(self.seed))
        view = TuningView(layers, self.budget)
        try:
            with make_measurer() as measurer, view:
                session = Session(layers, measurer, self.database, view, ways)
                if self.resume:
                    known = session.resume()
                    click.echo(f"the log has {count_text(known, 'measurement')} of these kernels", err=True)
                session.run(self.budget)
        finally:
            stdout().print(layer_table(layers))
            if any(x.calls == 0 for x in layers):
                stdout().print(way_table(ways, layers))
            click.echo(summary(layers, ways, view))
        return layers, ways

    def confirm(self, options: Options, layers: Sequence[Layer], ways: Ways) -> str:
        """What the log is worth to the whole model, on this machine."""
        with Display() as display:

            def compiled(options: Options) -> Module:
                return compile_model(self.model, options, display).module(options.threads)

            return confirmation_text(confirm(compiled, options, self.database, layers, ways))


def _tune_on_cluster(tuning: _Tuning, address: str, wanted: dict[str, str], threads: int, jobs: int) -> None:
    """Each target that the nodes have is tuned for, one after the other, on the nodes that have it."""
    with connected(address) as cluster:
        for group in cluster.groups(wanted, threads):
            click.echo(_group_text(group), err=True)
            options = Options(group.target, group.target.cores, tuning.shapes)
            tuning.run(options, lambda group=group: cluster.pool(group, Limits(), jobs))  # type: ignore[misc]


def _group_text(group: Group) -> str:
    names = ", ".join(node.name for node in group.nodes)
    others = f"; {count_text(len(group.others), 'other node')} compile" if group.others else ""
    return f"measuring on {count_text(len(group.nodes), 'node')}: {names}{others}"
