"""What Python users call."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from polycomp.driver.compile import compile_model
from polycomp.driver.targets import as_target
from polycomp.options import Options, check_precision
from polycomp.runtime import Module, load
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
    precision: str = "float32",
    keep_float32: Sequence[str] = (),
) -> Module:
    """Compile an ONNX model (a path, the file's bytes, or a ModelProto) and load it.

    ``target`` is ``"cpu"``, that of this machine, or what ``polycomp targets`` lists. For ``"cuda"`` no GPU is needed:
    where there is none, the module can be looked at and saved, and running it says what is missing. ``threads`` is the
    number that a CPU will run it with (0: all cores); ``shapes`` fixes shapes of inputs by name; ``cache`` False
    neither uses nor fills the cache on disk; ``jobs`` is the number of compile processes (0: one per core); ``db`` is a
    tuning log whose schedules are used (None: the user's own, where ``polycomp tune`` writes). ``precision``
    ``"float16"`` or ``"bfloat16"`` stores weights and data of float32 in 16 bits, and multiplies them so, where that is
    safe; ``keep_float32`` names operators and nodes that it leaves alone. Inputs and outputs keep their types.
    Raises a :class:`~polycomp.PolycompError` for a model or a target that cannot be compiled.
    """
    fixed = {name: tuple(int(d) for d in shape) for name, shape in (shapes or {}).items()}
    log = None if db is None else pathlib.Path(db)
    check_precision(precision, keep_float32)
    kept = tuple(keep_float32)
    made = Options(as_target(target, threads), threads, fixed, cache, jobs, precision=precision, keep_float32=kept)
    options = with_log(made, log)
    source = pathlib.Path(model) if isinstance(model, str | os.PathLike) else model
    return compile_model(source, options).module(threads)
