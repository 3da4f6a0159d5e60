"""Compile processes: they give what this process gives, and their deaths and errors are told."""

from __future__ import annotations

import os
import signal

import pytest

from polycomp import te
from polycomp.driver.kernel import CompiledKernel, KernelError, KernelTask, compile_kernel
from polycomp.driver.workers import Workers
from polycomp.target import host_target


def task(size: int, name: str = "scale") -> KernelTask:
    a = te.placeholder((size,), "float32", "a")
    b = te.compute((size,), lambda i: a[i] * 2.0, "b")
    return KernelTask(f"{name}_{size}", (a,), (b,), {}, host_target())


def broken_task(name: str) -> KernelTask:
    a = te.placeholder((4,), "float32", "a")
    b = te.compute((8,), lambda i: a[i] * 2.0, "b")  # reads beyond the end of a
    return KernelTask(name, (a,), (b,), {}, host_target())


def compile_all(tasks: list[KernelTask], count: int) -> dict[str, CompiledKernel]:
    done: dict[str, CompiledKernel] = {}
    with Workers(count) as workers:
        workers.compile(tasks, lambda task, kernel: done.update({task.name: kernel}))
    return done


def test_workers_give_what_this_process_gives() -> None:
    tasks = [task(size) for size in (8, 16, 24, 32, 40)]
    done = compile_all(tasks, 1)
    assert done == {t.name: compile_kernel(*t) for t in tasks}


def test_without_workers_this_process_does_all() -> None:
    assert set(compile_all([task(8), task(16), task(24)], 0)) == {"scale_8", "scale_16", "scale_24"}


def test_an_error_comes_from_wherever_it_happened() -> None:
    tasks = [broken_task(f"broken_{i}") for i in range(4)]
    with pytest.raises(KernelError, match=r"broken_.*its schedule is illegal") as raised:
        compile_all(tasks, 1)
    assert raised.value.symbol.startswith("broken_")
    assert "Traceback" in raised.value.__notes__[0]


def test_a_dead_worker_is_told_with_its_kernel() -> None:
    with Workers(1) as workers:
        os.kill(workers.pids[0], signal.SIGKILL)
        with pytest.raises(KernelError, match=r"compile process ended with status -9"):
            for _ in range(100):  # until the dead worker's thread has taken a task
                workers.compile([task(8), task(16), task(24), task(32)], lambda task, kernel: None)


def test_nothing_is_left_behind() -> None:
    with pytest.raises(KeyboardInterrupt), Workers(2) as workers:
        raise KeyboardInterrupt
    for pid in workers.pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
