"""Peers in processes of their own that take turns: those whose turn it is not are stopped, spinning threads and all."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import select
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

SCRIPT = pathlib.Path(__file__).with_name("peer_process.py")
ANSWER_SECONDS = 600
"""A peer that does not answer for so long has failed."""


class PeerError(Exception):
    """A peer's process reported an error, died or did not answer."""


def how_it_ended(status: int, log: str) -> str:
    """Why a process failed, in a line: its signal, or the last line that it wrote."""
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    lines = log.strip().splitlines()
    return lines[-1] if lines else f"exit status {status}"


class PeerProcess:
    """A running ``peer_process.py``, stopped except while it is asked something.

    ``module`` names the file of the peer; ``arguments`` are those of the script. Its output goes to a log
    in ``folder``.
    """

    def __init__(self, module: str, arguments: Mapping[str, Any], folder: pathlib.Path) -> None:
        self._log = folder / f"{module}.log"
        read, write = os.pipe()
        with open(self._log, "w") as log:
            command = [sys.executable, str(SCRIPT), module, json.dumps(arguments), str(write)]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, pass_fds=[write])
        os.close(write)
        self._answers = os.fdopen(read)
        try:
            self._receive()
            self._stop()
        except BaseException:
            self.close()
            raise

    @property
    def process_id(self) -> int:
        return self._process.pid

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a request. Raises :class:`PeerError` when there is none."""
        self._process.send_signal(signal.SIGCONT)
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise PeerError(self._end()) from None
        answer = self._receive()
        self._stop()
        return answer

    def close(self) -> None:
        """End the process, which may be stopped."""
        self._process.kill()
        self._process.wait()
        self._answers.close()
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()

    def _receive(self) -> dict[str, Any]:
        if not select.select([self._answers], [], [], ANSWER_SECONDS)[0]:
            raise PeerError(f"no answer within {ANSWER_SECONDS} s")
        line = self._answers.readline()
        if not line:
            raise PeerError(self._end())
        answer: dict[str, Any] = json.loads(line)
        if "failure" in answer:
            raise PeerError(answer["failure"])
        return answer

    def _stop(self) -> None:
        """Stop all threads of the process, and wait until they have."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def _end(self) -> str:
        return how_it_ended(self._process.wait(), self._log.read_text(errors="replace"))


class Contest:
    """Some peers on one model. Those that fail drop out; ``failures`` says why, by peer."""

    def __init__(self) -> None:
        self.failures: dict[str, str] = {}
        self._processes: dict[str, PeerProcess] = {}

    @property
    def names(self) -> list[str]:
        """The peers that have not failed."""
        return list(self._processes)

    def enter(self, name: str, arguments: Mapping[str, Any], folder: pathlib.Path) -> None:
        """Start the peer of the file ``NAME_peer.py``."""
        with self._may_fail(name):
            self._processes[name] = PeerProcess(f"{name}_peer", arguments, folder)

    def process_id(self, name: str) -> int:
        """The process of a peer."""
        return self._processes[name].process_id

    def ask(self, request: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """All peers' answers to one request."""
        return {name: a for name in self.names if (a := self.ask_one(name, request)) is not None}

    def race(self, rounds: int) -> dict[str, float]:
        """Median seconds of a run of each peer; each round times all of them, in an order that turns."""
        counts = {name: answer["calls"] for name, answer in self.ask({"calls": 0}).items()}
        times: dict[str, list[float]] = {name: [] for name in counts}
        names = list(counts)
        for number in range(rounds):
            turn = number % max(1, len(names))
            for name in names[turn:] + names[:turn]:
                answer = self.ask_one(name, {"calls": counts[name]})
                times[name] += answer["times"] if answer else []
        return {name: statistics.median(times[name]) for name in self._processes}

    def close(self) -> None:
        """End all processes."""
        for process in self._processes.values():
            process.close()
        self._processes = {}

    def ask_one(self, name: str, request: Mapping[str, Any]) -> dict[str, Any] | None:
        """One peer's answer; None when it has failed."""
        if name not in self._processes:
            return None
        with self._may_fail(name):
            return self._processes[name].ask(request)
        self._processes.pop(name).close()
        return None

    @contextlib.contextmanager
    def _may_fail(self, name: str) -> Iterator[None]:
        try:
            yield
        except PeerError as error:
            self.failures[name] = str(error)


@contextlib.contextmanager
def contest(files: Mapping[str, pathlib.Path], arguments: Mapping[str, Any], folder: pathlib.Path) -> Iterator[Contest]:
    """A contest of the peers in ``files``, each with its file; the processes end with the block."""
    made = Contest()
    try:
        for name, file in files.items():
            made.enter(name, {**arguments, "file": str(file)}, folder)
        yield made
    finally:
        made.close()
