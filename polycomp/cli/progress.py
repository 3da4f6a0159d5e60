"""How a compilation is shown while it runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from polycomp.driver.observe import Observer

_STAGES: Mapping[str, str] = {
    "import": "reading the model",
    "passes": "optimising the graph",
    "kernels": "compiling kernels",
    "link": "linking",
}


class Display(Observer):
    """A progress bar on standard error where that is a terminal, and the graph after each pass that was asked for.

    A context manager, within which the bar is shown.
    """

    def __init__(self, print_after: Iterable[str] = ()) -> None:
        self._wanted = set(print_after)
        self.wants_graphs = bool(self._wanted)
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._progress.add_task("starting", total=None)

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    def stage(self, name: str) -> None:
        self._progress.update(self._task, description=_STAGES.get(name, name))

    def graph(self, name: str, text: str) -> None:
        if name in self._wanted:
            click.echo(f"# after {name}\n{text}")

    def kernels(self, done: int, total: int) -> None:
        self._progress.update(self._task, completed=done, total=total)
