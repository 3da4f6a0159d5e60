"""Tuning logs and compilations: which log is the user's, and what a compilation takes from one.

Imports nothing of the compiler: a module that is found in the cache is found at once.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterable

from polycomp.driver.cache import cache_folder
from polycomp.errors import TuningLogError
from polycomp.options import Options
from polycomp.tuner.best import best_decisions
from polycomp.tuner.database import Database
from polycomp.tuner.record import Glance


def default_log() -> pathlib.Path | None:
    """The user's own log; None for a user without a home."""
    folder = cache_folder()
    return None if folder is None else folder / "tune.jsonl"


def with_log(options: Options, path: pathlib.Path | None) -> Options:
    """``options`` with the best decisions of a tuning log (None: the user's own, if there is one).

    Raises :class:`TuningLogError` when there is no such file.
    """
    if path is not None and not path.exists():
        raise TuningLogError(f"there is no tuning log {path}; 'polycomp tune MODEL --db {path}' makes one")
    log = path or default_log()
    return with_best(options, () if log is None else Database(log).glances())


def with_best(options: Options, glances: Iterable[Glance]) -> Options:
    """``options`` with the best decisions of the records of a log, which may have none."""
    found = best_decisions(glances, options.kernel_target)
    return dataclasses.replace(options, tuned=found.decisions, tuned_near=found.near)
