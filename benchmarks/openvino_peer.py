"""OpenVINO as a peer."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

import openvino
from measure import Array, Peer


def open_peer(model: pathlib.Path, feeds: Mapping[str, Array], threads: int) -> Peer:
    """OpenVINO on the CPU: one stream for the least latency, and float32 throughout as in the model.

    The model's open sizes are fixed to those of ``feeds`` before it is compiled.
    """
    core = openvino.Core()
    network = core.read_model(model)
    network.reshape({port: list(feeds[port.any_name].shape) for port in network.inputs})
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    request = core.compile_model(network, "CPU", settings).create_infer_request()
    wanted = [feeds[port.any_name] for port in network.inputs]

    def run() -> object:
        return request.infer(wanted, share_inputs=True, share_outputs=True)

    def outputs() -> dict[str, Array]:
        results = request.infer(wanted, share_inputs=True)
        return {port.any_name: results[port] for port in results}

    return Peer(run, outputs)
