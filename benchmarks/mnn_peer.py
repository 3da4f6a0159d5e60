"""MNN as a peer."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import _tools
import MNN.expr
import MNN.nn
import numpy as np
from measure import Array, Peer


def convert(model: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """The model as an MNN file in ``folder``. Raises OSError when MNN cannot read it.

    The converter's native function is called, because the command ``mnnconvert`` installs a package to report its use.
    It returns in the same way when it fails, but then leaves no file.
    """
    result = folder / "model.mnn"
    result.unlink(missing_ok=True)
    files = ["--modelFile", str(model), "--MNNModel", str(result)]
    _tools.mnnconvert(["mnnconvert", "-f", "ONNX", *files, "--bizCode", "benchmark"])
    if not result.exists():
        raise OSError("MNN's converter made no file of the model")
    return result


def open_peer(model: pathlib.Path, feeds: Mapping[str, Array], threads: int) -> Peer:
    """MNN on the CPU, in float32 throughout as in the model."""
    settings = {"backend": "CPU", "precision": "high", "numThread": threads}
    manager = MNN.nn.create_runtime_manager((settings,))
    module = MNN.nn.load_module_from_file(str(model), [], [], runtime_manager=manager)
    info = module.get_info()
    inputs = [_variable(feeds[name]) for name in info["inputNames"]]

    def outputs() -> dict[str, Array]:
        # Copied: an array that MNN returns is its own memory.
        results = [np.array(v.read()) for v in module.forward(inputs)]
        return dict(zip(info["outputNames"], results, strict=True))

    return Peer(lambda: [v.read() for v in module.forward(inputs)], outputs)


def _variable(array: Array) -> Any:
    """An input as MNN has it, which knows no int64."""
    if array.dtype == np.int64:
        array = array.astype(np.int32)
    types = {"float32": MNN.expr.float, "int32": MNN.expr.int, "uint8": MNN.expr.uint8, "int8": MNN.expr.int8}
    if array.dtype.name not in types:
        raise TypeError(f"MNN takes no inputs of type {array.dtype.name}")
    return MNN.expr.const(array, list(array.shape), MNN.expr.NCHW, types[array.dtype.name])
