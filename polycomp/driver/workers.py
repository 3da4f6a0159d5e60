"""Compiling many kernels at once: this process and its workers take them from one queue."""

from __future__ import annotations

import collections
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import IO, Any

from polycomp.driver.kernel import CompiledKernel, KernelError, KernelTask, compile_kernel
from polycomp.driver.messages import receive, send
from polycomp.te import topological_order

FEW_KERNELS = 2  # so few kernels are compiled sooner than a worker has started

Done = Callable[[KernelTask, CompiledKernel], None]


class Workers:
    """``count`` compile processes beside this one. Their start takes its time, so it is best made early.

    A context manager: at its end, and on any error or Ctrl-C, all processes are gone.
    """

    def __init__(self, count: int) -> None:
        self._processes: list[subprocess.Popen[bytes]] = []
        try:
            for _ in range(count):
                self._processes.append(start_process("polycomp.driver.worker"))
        except BaseException:
            self._stop()
            raise

    @property
    def pids(self) -> tuple[int, ...]:
        """The numbers of the processes."""
        return tuple(process.pid for process in self._processes)

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):  # a message to a process that had died
                        pipe.close()

    def compile(self, tasks: Sequence[KernelTask], done: Done) -> None:
        """Compile all tasks and call ``done`` for each in turn, never from two threads at the same time.

        The first error of a task is raised, after which the workers must not be used again.
        """
        queue = _Queue(tasks, done)
        helpers = [] if len(tasks) <= FEW_KERNELS else self._processes
        threads = [threading.Thread(target=queue.drain, args=(_remote(p),), daemon=True) for p in helpers]
        for thread in threads:
            thread.start()
        queue.drain(lambda task: compile_kernel(*task))
        for thread in threads:
            thread.join()
        if queue.error is not None:
            raise queue.error


class _Queue:
    """Tasks that several threads take from; the first error empties it."""

    def __init__(self, tasks: Sequence[KernelTask], done: Done) -> None:
        self._tasks = collections.deque(tasks)
        self._done = done
        self._lock = threading.Lock()
        self.error: BaseException | None = None

    def drain(self, compile_one: Callable[[KernelTask], CompiledKernel]) -> None:
        """Compile tasks until there are none left."""
        while (task := self._next()) is not None:
            try:
                compiled = compile_one(task)
                with self._lock:
                    self._done(task, compiled)
            except Exception as error:  # noqa: BLE001  (raised by Workers.compile, in the caller's thread)
                with self._lock:
                    self.error = self.error or error
                    self._tasks.clear()

    def _next(self) -> KernelTask | None:
        with self._lock:
            return self._tasks.popleft() if self._tasks else None


def start_process(module: str, stderr: IO[bytes] | None = None) -> subprocess.Popen[bytes]:
    """``python -m module``, which imports from where this one does, but never from the current folder by accident.

    Messages go to its standard input and come from its standard output.
    """
    path = os.pathsep.join(p for p in sys.path if p)
    # Ctrl-C reaches the whole process group: this process ends its workers, which inherit that the signal is blocked.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env={**os.environ, "PYTHONPATH": path},
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _remote(process: subprocess.Popen[bytes]) -> Callable[[KernelTask], CompiledKernel]:
    def compile_remotely(task: KernelTask) -> CompiledKernel:
        try:
            # Tensors go ahead of what uses them: a long chain pickled from its end would recurse too deeply.
            send(process.stdin, (topological_order(task.outputs), task))  # type: ignore[arg-type]
            answer: Any = receive(process.stdout)  # type: ignore[arg-type]
        except (EOFError, OSError) as error:
            status = process.wait()
            reason = f"its compile process ended with status {status} (killed, perhaps for lack of memory?)"
            raise KernelError(task.name, reason) from error
        if isinstance(answer, BaseException):
            raise answer
        return answer  # type: ignore[no-any-return]

    return compile_remotely
