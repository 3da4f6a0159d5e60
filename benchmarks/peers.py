"""polycomp and its peers as functions to call, through their public interfaces only."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime

import polycomp as pc

Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True)
class Peer:
    """``run`` computes all outputs, in the order of ``names``, of the feeds it was made with."""

    names: Sequence[str]
    run: Callable[[], Sequence[Array]]


def onnxruntime_peer(model: bytes | pathlib.Path, feeds: Mapping[str, Array], threads: int) -> Peer:
    """onnxruntime on the CPU with all of its graph optimisations (its default)."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    source = str(model) if isinstance(model, pathlib.Path) else model
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    wanted = dict(feeds)
    return Peer([o.name for o in session.get_outputs()], lambda: session.run(None, wanted))


def polycomp_peer(module: pc.Module, feeds: Mapping[str, Array]) -> Peer:
    """A compiled or loaded module."""
    wanted = dict(feeds)
    names = [o.name for o in module.outputs]
    return Peer(names, lambda: [outputs[name] for outputs in [module.run(wanted)] for name in names])
