"""A process that does one thing at a time for another, and may be killed for it at any moment.

What runs in it is code that was never run before: it may crash, loop forever or ask for all memory. Each request has a
time limit, the process a limit of memory, and whatever happens is told as a :class:`ProcessFailure`.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import tempfile
import threading
import time
from typing import IO, Any, BinaryIO, cast

from polycomp.driver.messages import receive, send
from polycomp.driver.workers import start_process
from polycomp.tuner.serving import ProcessFailure, Settings
from polycomp.tuner.status import Status

_SLICE = 0.05  # seconds between two looks at the time limit
_KILLED = "its process was killed, as the system does when memory is short"
_START_SECONDS = 120.0
_TAIL = 4000  # bytes of what a process said before it died
_MEMORY_WORDS = ("bad_alloc", "out of memory", "Cannot allocate memory", "MemoryError")


class WorkerProcess:
    """``python -m module``, started when it is needed, and again after it died.

    Requests come from one thread; :meth:`pause`, :meth:`resume` and :meth:`close` from any.
    """

    def __init__(self, module: str, settings: Settings) -> None:
        self._module, self._settings = module, settings
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        self._closed = False
        self._paused_at: float | None = None
        self._paused = 0.0

    @property
    def pid(self) -> int | None:
        """The number of the process; None when there is none at the moment."""
        return self._process.pid if self._process is not None else None

    def request(self, message: Any, seconds: float) -> Any:
        """The answer to ``message``. Raises :class:`ProcessFailure` when there is none in so many seconds (those in
        which the process was paused do not count), and where the answer is one."""
        if self._process is None:
            self._start()
        answer = self._exchange(message, seconds)
        if isinstance(answer, ProcessFailure):
            raise answer
        return answer

    def pause(self) -> None:
        """Stop the process until :meth:`resume`."""
        with self._lock:
            self._paused_at = time.monotonic()
            self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        with self._lock:
            if self._paused_at is not None:
                self._paused += time.monotonic() - self._paused_at
                self._paused_at = None
            self._signal(signal.SIGCONT)

    def close(self) -> None:
        """End the process, whatever it does, for good."""
        with self._lock:
            self._closed = True
        self._end()

    def _start(self) -> None:
        """Start the process, and wait until it has imported what it needs: that is no candidate's time."""
        with self._lock:
            if self._closed:
                raise ProcessFailure(Status.CRASH, "its process was closed")
            self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the process)
            self._process = start_process(self._module, self._errors)
        self._exchange(self._settings, _START_SECONDS)

    def _exchange(self, message: Any, seconds: float) -> Any:
        process = self._process
        if process is None:
            raise ProcessFailure(Status.CRASH, "its process was closed")
        requests, answers = cast(BinaryIO, process.stdin), cast(BinaryIO, process.stdout)
        try:
            send(requests, message)
            if self._wait(answers, seconds):
                return receive(answers)
        except (EOFError, OSError, ValueError) as error:  # ValueError: closed by another thread
            raise self._died(process) from error
        self._end()
        raise ProcessFailure(Status.TIMEOUT, f"it took longer than {seconds:g} seconds")

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def _wait(self, stream: IO[bytes], seconds: float) -> bool:
        """Whether something comes from ``stream`` within so many seconds of not being paused."""
        begin, paused = time.monotonic(), self._time_paused()
        while time.monotonic() - begin - (self._time_paused() - paused) < seconds:
            if select.select([stream], [], [], _SLICE)[0]:
                return True
        return False

    def _time_paused(self) -> float:
        with self._lock:
            now = time.monotonic()
            return self._paused + (now - self._paused_at if self._paused_at is not None else 0.0)

    def _died(self, process: subprocess.Popen[bytes]) -> ProcessFailure:
        """Why the process is gone."""
        status = process.wait()
        said = self._last_words()
        self._end()
        if any(word in said for word in _MEMORY_WORDS):
            return ProcessFailure(Status.OUT_OF_MEMORY, "it took more memory than the limit")
        if status == -signal.SIGKILL:
            return ProcessFailure(Status.OUT_OF_MEMORY, _KILLED)
        how = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
        return ProcessFailure(Status.CRASH, f"its process ended {how}")

    def _last_words(self) -> str:
        if self._errors is None:
            return ""
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - _TAIL))
        return self._errors.read().decode(errors="replace")

    def _end(self) -> None:
        with self._lock:
            process, self._process = self._process, None
            errors, self._errors = self._errors, None
        if process is None:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, errors):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):  # a message to a process that had died
                    stream.close()
