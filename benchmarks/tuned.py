"""What a tuning log is worth to a whole model: its module with and without the log, in interleaved rounds.

python benchmarks/tuned.py model.onnx --db tune.jsonl [--threads 1] [--rounds 15] [--json]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib

import onnx
from light_models import random_feeds
from measure import interleaved, relative_error
from polycomp_peer import module_peer

from polycomp.driver.compile import compile_model
from polycomp.options import Options
from polycomp.target import available_cores
from polycomp.tuner.log import with_log


@dataclasses.dataclass(frozen=True)
class Result:
    """Median seconds per inference without and with the log, how much of the model the log knew, and the largest
    relative difference of the outputs."""

    model: str
    threads: int
    untuned: float
    tuned: float
    kernels: int
    kernels_tuned: int
    ways: int
    difference: float


def measure(path: pathlib.Path, log: pathlib.Path, threads: int, rounds: int) -> Result:
    """Both modules side by side."""
    plain = Options(threads=threads)
    models = {"untuned": compile_model(path, plain), "tuned": compile_model(path, with_log(plain, log))}
    feeds = random_feeds(onnx.load(path), {})
    peers = {name: module_peer(model.module(threads), feeds) for name, model in models.items()}
    outputs = {name: dict(peer.outputs()) for name, peer in peers.items()}
    pairs = [[outputs[name][key] for key in outputs["untuned"]] for name in ("tuned", "untuned")]
    seconds = interleaved({name: peer.run for name, peer in peers.items()}, rounds)
    symbols = {step.symbol for step in models["tuned"].manifest.steps}
    found = models["tuned"].manifest.metadata["tuned"].keys()
    counts = (len(symbols), len(found & symbols), len(found - symbols))
    return Result(path.stem, threads, seconds["untuned"], seconds["tuned"], *counts, relative_error(*pairs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--db", type=pathlib.Path, required=True, help="the tuning log")
    parser.add_argument("--threads", type=int, default=available_cores(), help="number of threads (all cores)")
    parser.add_argument("--rounds", type=int, default=15, help="interleaved rounds (15)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a line")
    arguments = parser.parse_args()
    result = measure(arguments.model, arguments.db, arguments.threads, arguments.rounds)
    if arguments.json:
        print(json.dumps(dataclasses.asdict(result)))
        return
    print(
        f"{result.model}, {result.threads} threads: {result.untuned * 1e3:.3f} ms untuned, "
        f"{result.tuned * 1e3:.3f} ms tuned: {result.untuned / result.tuned:.3f}x faster; {result.kernels_tuned} of "
        f"{result.kernels} kernels and {result.ways} other ways from the log; outputs differ by {result.difference:.1e}"
    )


if __name__ == "__main__":
    main()
