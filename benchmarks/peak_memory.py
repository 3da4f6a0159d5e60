"""Peak memory of a process that opens one model with one peer and runs it: nothing else is loaded into it.

python benchmarks/peak_memory.py polycomp_peer|onnxruntime_peer '{"file": ..., ...}' RESULT.json
"""

from __future__ import annotations

import importlib
import json
import pathlib
import sys

from measure import load_feeds

RUNS = 3


def peak_bytes() -> int:
    """The largest resident size of this process so far (unlike getrusage's, not that of its parent before exec)."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    raise OSError("this system does not report VmHWM")


def main() -> None:
    peer_module, text, result = sys.argv[1:]
    arguments = json.loads(text)
    feeds = load_feeds(arguments)
    peer = importlib.import_module(peer_module).open_peer(pathlib.Path(arguments["file"]), feeds, arguments["threads"])
    for _ in range(RUNS):
        peer.run()
    pathlib.Path(result).write_text(json.dumps({"bytes": peak_bytes()}))


if __name__ == "__main__":
    main()
