"""Peers in processes of their own: those that fail are named and drop out, those that wait are stopped."""

from __future__ import annotations

import importlib
import pathlib
import sys
from types import ModuleType

import numpy as np
import pytest

BENCHMARKS = pathlib.Path(__file__).parents[2] / "benchmarks"

PEERS = {
    "good": "return Peer(lambda: feeds['x'] + 1, lambda: {'y': feeds['x'] + 1})",
    "refuses": "raise ValueError('no such operator')",
    "dies": "import os; os.kill(os.getpid(), 11)",
    "dies_later": "import os; return Peer(lambda: os.kill(os.getpid(), 6), lambda: {'y': feeds['x']})",
    "counts": """
    import threading, time
    ticks = []
    def tick():
        while True:
            ticks.append(1)
            time.sleep(0.001)
    threading.Thread(target=tick, daemon=True).start()
    return Peer(lambda: None, lambda: {'ticks': len(ticks) * feeds['x']})
""",
}


@pytest.fixture
def contest(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> ModuleType:
    """The module of that name; the peers above can be imported by the processes that it starts."""
    for name, body in PEERS.items():
        text = f"from measure import Peer\n\ndef open_peer(file, feeds, threads):\n    {body}\n"
        (tmp_path / f"{name}_peer.py").write_text(text)
    np.savez(tmp_path / "feeds.npz", np.ones(3))
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{':'.join(sys.path)}")
    return importlib.import_module("contest")


def arguments(folder: pathlib.Path) -> dict[str, object]:
    return {"feeds": str(folder / "feeds.npz"), "inputs": ["x"], "threads": 1}


def test_those_that_fail_are_named(contest: ModuleType, tmp_path: pathlib.Path) -> None:
    files = dict.fromkeys(["good", "refuses", "dies", "dies_later", "missing"], tmp_path)
    with contest.contest(files, arguments(tmp_path), tmp_path) as peers:
        assert peers.names == ["good", "dies_later"]
        seconds = peers.race(rounds=1)
        assert peers.names == list(seconds) == ["good"]
        assert peers.ask({"peak": True})["good"]["bytes"] > 1_000_000
    assert seconds["good"] > 0
    assert peers.failures == {
        "refuses": "ValueError: no such operator",
        "dies": "killed by SIGSEGV",
        "dies_later": "killed by SIGABRT",
        "missing": "ModuleNotFoundError: No module named 'missing_peer'",
    }


def test_outputs_are_those_of_the_peer(contest: ModuleType, tmp_path: pathlib.Path) -> None:
    with contest.contest({"good": tmp_path}, arguments(tmp_path), tmp_path) as peers:
        assert peers.ask_one("good", {"outputs": str(tmp_path / "out.npz")}) == {"names": ["y"]}
    with np.load(tmp_path / "out.npz") as stored:
        np.testing.assert_array_equal(stored["arr_0"], np.full(3, 2.0))


def test_a_peer_that_waits_is_stopped_with_its_threads(contest: ModuleType, tmp_path: pathlib.Path) -> None:
    with contest.contest({"counts": tmp_path, "good": tmp_path}, arguments(tmp_path), tmp_path) as peers:
        waiting = pathlib.Path("/proc") / str(peers.process_id("counts")) / "task"
        peers.ask_one("good", {"calls": 10})
        states = [(task / "stat").read_text().rpartition(")")[2].split()[0] for task in waiting.iterdir()]
        assert len(states) >= 2
        assert set(states) == {"T"}
