"""onnxruntime as a peer."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

import onnxruntime
from measure import Array, Peer


def open_peer(model: bytes | pathlib.Path, feeds: Mapping[str, Array], threads: int) -> Peer:
    """onnxruntime on the CPU with all of its graph optimisations (its default)."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    source = str(model) if isinstance(model, pathlib.Path) else model
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    wanted = dict(feeds)

    def run() -> list[Array]:
        results: list[Array] = session.run(None, wanted)
        return results

    return Peer(run, lambda: dict(zip(names, run(), strict=True)))
