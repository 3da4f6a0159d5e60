"""A process that holds one peer with one model, and nothing else: it times runs when it is asked to.

    python benchmarks/peer_process.py MODULE '{"file": ..., "feeds": ..., "inputs": ..., "threads": ...}' DESCRIPTOR

MODULE has a function ``open_peer(file, feeds, threads)``. Requests are lines of JSON on standard input, answers are
lines of JSON written to DESCRIPTOR (libraries print to standard output): ``{"outputs": FILE}`` writes the outputs,
``{"calls": N}`` times N runs (0: finds out how many fill a round), and ``{"peak": true}`` asks for the peak memory.
"""

from __future__ import annotations

import importlib
import json
import os
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from measure import Peer, calls_per_block, load_feeds, time_block


def peak_bytes() -> int:
    """The largest resident size of this process so far (unlike getrusage's, not that of its parent before exec)."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    raise OSError("this system does not report VmHWM")


def answer(peer: Peer, request: Mapping[str, Any]) -> dict[str, Any]:
    """Do what one request says."""
    if "outputs" in request:
        outputs = peer.outputs()
        np.savez(request["outputs"], *outputs.values())
        return {"names": list(outputs)}
    if "peak" in request:
        return {"bytes": peak_bytes()}
    if request["calls"] == 0:
        return {"calls": calls_per_block(peer.run)}
    return {"times": time_block(peer.run, request["calls"])}


def main() -> int:
    module, text, descriptor = sys.argv[1:]
    with os.fdopen(int(descriptor), "w") as answers:

        def send(message: Mapping[str, Any]) -> None:
            answers.write(json.dumps(message) + "\n")
            answers.flush()

        try:
            arguments = json.loads(text)
            opener = importlib.import_module(module).open_peer
            peer = opener(pathlib.Path(arguments["file"]), load_feeds(arguments), arguments["threads"])
            send({"ready": True})
            for line in sys.stdin:
                send(answer(peer, json.loads(line)))
        except Exception as error:  # noqa: BLE001 - whatever went wrong is the answer
            send({"failure": f"{type(error).__name__}: {error}"})
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
