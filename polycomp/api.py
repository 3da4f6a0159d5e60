"""What Python users call."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from polycomp.driver.compile import compile_model
from polycomp.options import Options
from polycomp.runtime import Module, load
from polycomp.target import parse_target
from polycomp.tuner.log import with_log

if TYPE_CHECKING:
    from polycomp.importers.onnx.reader import ModelLike

__all__ = ["Module", "compile", "load"]


def compile(
    model: ModelLike | os.PathLike[str],
    *,
    target: str = "cpu",
    threads: int = 0,
    shapes: Mapping[str, Sequence[int]] | None = None,
    cache: bool = True,
    jobs: int = 0,
    db: str | os.PathLike[str] | None = None,
) -> Module:
    """Compile an ONNX model (a path, the file's bytes, or a ModelProto) and load it.

    ``threads`` is the number it will run with (0: all cores); ``shapes`` fixes shapes of inputs by name; ``cache``
    False neither uses nor fills the cache on disk; ``jobs`` is the number of compile processes (0: one per core);
    ``db`` is a tuning log whose schedules are used (None: the user's own, where ``polycomp tune`` writes).
    Raises a :class:`~polycomp.PolycompError` for a model or a target that cannot be compiled.
    """
    fixed = {name: tuple(int(d) for d in shape) for name, shape in (shapes or {}).items()}
    log = None if db is None else pathlib.Path(db)
    options = with_log(Options(parse_target(target), threads, fixed, cache, jobs), log)
    source = pathlib.Path(model) if isinstance(model, str | os.PathLike) else model
    return compile_model(source, options).module(threads)
