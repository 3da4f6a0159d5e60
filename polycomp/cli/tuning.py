"""What ``polycomp tune`` shows."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from polycomp.decisions import Value
from polycomp.driver.words import count_text, kernel_text, seconds_text
from polycomp.tuner.confirm import Confirmation
from polycomp.tuner.measurer import Outcome
from polycomp.tuner.session import Budget, Layer, Watcher, best_times
from polycomp.tuner.status import Status
from polycomp.tuner.ways import Ways

_ROWS = 20  # of the live view: the layers that take the most time
_REFRESH = 4.0  # per second


class TuningView(Watcher):
    """A live table on standard error where that is a terminal. A context manager, within which it is shown."""

    def __init__(self, layers: Sequence[Layer], budget: Budget) -> None:
        self.layers, self.budget = layers, budget
        self.trials, self._began = 0, time.monotonic()
        console = Console(stderr=True)
        self._live = Live(console=console, transient=True, refresh_per_second=_REFRESH, get_renderable=self._view)
        self._shown = console.is_terminal

    def __enter__(self) -> TuningView:
        self._began = time.monotonic()
        if self._shown:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            self._live.stop()

    def outcome(self, layer: Layer, outcome: Outcome) -> None:
        self.trials += 1

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._began

    def rate(self) -> float:
        """Trials per second."""
        return self.trials / max(self.seconds, 1e-3)

    def _view(self) -> Group:
        return Group(layer_table(self.layers, _ROWS), Text(f"{self._progress()}; Ctrl-C stops and keeps everything"))

    def _progress(self) -> str:
        left = [self.budget.seconds - self.seconds] if self.budget.seconds is not None else []
        if self.budget.trials is not None and self.trials:
            left.append((self.budget.trials - self.trials) / self.rate())
        total = f" of {self.budget.trials}" if self.budget.trials is not None else ""
        remaining = f", about {seconds_text(max(0.0, min(left)))} left" if left else ""
        return f"{self.trials}{total} trials, {self.rate():.1f} per second{remaining}"


def layer_table(layers: Sequence[Layer], most: int | None = None) -> Table:
    """The layers that take the most time first: their share, the library's time, the best so far, what was tried."""
    table = Table(show_edge=False)
    table.add_column("kernel", overflow="fold")
    for head in ("calls", "share", "library's own", "best", "gain", "trials", "failed"):
        table.add_column(head, justify="right")
    total = sum(map(_weight, layers)) or 1.0
    for layer in sorted(layers, key=_weight, reverse=True)[:most]:
        table.add_row(*_cells(layer, total))
    return table


def _weight(layer: Layer) -> float:
    """Seconds per inference."""
    known = layer.own or layer.best
    return layer.calls * known if known is not None else 0.0


def way_table(ways: Ways, layers: Sequence[Layer]) -> Table:
    """What passes could decide otherwise, and what each way takes at its best; those that take the most time first."""
    table = Table(show_edge=False)
    for head in ("problem", "decision"):
        table.add_column(head, overflow="fold")
    for head in ("times", "own way", "best way", "gain"):
        table.add_column(head, justify="right")
    times = best_times(layers)
    known = {c: each for c in ways.choices if c.own in (each := c.known(times)) and len(each) > 1}
    for choice, each in sorted(known.items(), key=lambda item: -item[1][item[0].own]):
        own, best = choice.own, choice.best(times)
        cells = (choice.problem, choice.name, str(choice.count), *(_way(w, each[w]) for w in (own, best)))
        table.add_row(*cells, f"{each[own] / each[best]:.2f}x")
    return table


def _way(way: Value, seconds: float) -> str:
    return f"{way}: {seconds_text(seconds)}"


def _cells(layer: Layer, total: float) -> list[str]:
    own, best = layer.own, layer.best
    gain = f"{own / best:.2f}x" if own is not None and best is not None else ""
    failed = layer.trials - layer.counts.get(Status.OK, 0)
    return [
        kernel_text(layer.workload.symbol),
        str(layer.calls) if layer.calls else "other way",
        f"{_weight(layer) / total:.1%}",
        seconds_text(own) if own is not None else "",
        seconds_text(best) if best is not None else "",
        gain,
        str(layer.trials),
        str(failed) if failed else "",
    ]


def summary(layers: Sequence[Layer], ways: Ways, view: TuningView) -> str:
    """The result in some lines."""
    known = [x for x in layers if x.own is not None and x.best is not None]
    calls = ways.best_calls(best_times(layers))
    before = sum(x.calls * (x.own or 0.0) for x in known)
    after = sum(calls[x.workload.symbol] * (x.best or 0.0) for x in known)
    lines = [f"{count_text(view.trials, 'trial')} in {seconds_text(view.seconds)}, {view.rate():.1f} per second"]
    sizes = [x.space.size(random.Random(0), probes=8) for x in layers]
    lines.append(
        f"the spaces of {count_text(len(layers), 'kernel')} have about {sum(s.before for s in sizes):.2g} points, "
        f"of which {sum(s.after for s in sizes):.2g} are not hopeless"
    )
    failures = {s: sum(x.counts.get(s, 0) for x in layers) for s in Status if s is not Status.OK}
    if any(failures.values()):
        lines.append("failed: " + ", ".join(f"{count} {status}" for status, count in failures.items() if count))
    if known:
        gain = f"{seconds_text(before)} -> {seconds_text(after)} ({before / after:.3f}x)"
        lines.append(f"{count_text(sum(x.calls > 0 for x in known), 'kernel')}, per inference: {gain}")
    return "\n".join(lines)


def confirmation_text(found: Confirmation) -> str:
    """What the log is worth to the model."""
    gain = f"{seconds_text(found.untuned)} untuned, {seconds_text(found.tuned)} with the log"
    lines = [f"the model: {gain} ({found.untuned / found.tuned:.3f}x)"]
    if found.tried:
        best = f"the log's best is what was fastest there, for {len(found.kept)} of them the library's own"
        lines.append(f"{count_text(len(found.tried), 'kernel')} and ways were measured in the model: {best}")
    return "\n".join(lines)
