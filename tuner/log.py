"""Tuning logs and compilations: which log is the user's, and what a compilation takes from one.

Imports nothing of the compiler: a module that is found in the cache is found at once.
"""

from __future__ import annotations

import dataclasses
import pathlib

from polycomp.driver.cache import cache_folder
from polycomp.errors import TuningLogError
from polycomp.options import Options
from polycomp.tuner.best import Tuned, best_decisions
from polycomp.tuner.database import Database


def default_log() -> pathlib.Path | None:
    """The user's own log; None for a user without a home."""
    folder = cache_folder()
    return None if folder is None else folder / "tune.jsonl"


def with_log(options: Options, path: pathlib.Path | None) -> Options:
    """``options`` with the best decisions of a tuning log (None: the user's own, if there is one).

    Raises :class:`TuningLogError` when there is no such file.
    """
    found = _tuned(options, path)
    return dataclasses.replace(options, tuned=found.decisions, tuned_near=found.near)


def _tuned(options: Options, path: pathlib.Path | None) -> Tuned:
    if path is not None and not path.exists():
        raise TuningLogError(f"there is no tuning log {path}; 'polycomp tune MODEL --db {path}' makes one")
    log = path or default_log()
    if log is None or not log.exists():
        return Tuned({}, frozenset())
    return best_decisions(Database(log).glances(), options.kernel_target)
