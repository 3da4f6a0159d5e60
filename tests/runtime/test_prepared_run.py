"""Prepared runs: the quick way from arrays to native code."""

from __future__ import annotations

import dataclasses
import threading

import numpy as np
import pytest
from tiny_modules import checked_parts, static_parts, symbolic_parts

from polycomp.errors import ExecutionError, InputError
from polycomp.runtime import load_parts


def test_results_are_those_of_run() -> None:
    module = load_parts(symbolic_parts(), threads=2)
    x, y = (np.random.default_rng(seed).standard_normal(100).astype(np.float32) for seed in range(2))
    (want,) = module.run({"x": x, "y": y}).values()
    prepared = module.prepare([x.shape, y.shape])
    for _ in range(2):
        (found,) = prepared([x, y])
        np.testing.assert_array_equal(found, want)
        assert found.ctypes.data % 64 == 0


def test_arrays_that_need_care() -> None:
    prepared = load_parts(symbolic_parts(), threads=1).prepare([(5,), (5,)])
    x = np.arange(5, dtype=np.float32)
    fixed = x.copy()
    fixed.flags.writeable = False
    unaligned = np.frombuffer(b"\0" + x.tobytes(), np.float32, offset=1)
    for array in (fixed, unaligned, np.repeat(x, 2)[::2]):
        np.testing.assert_array_equal(prepared([array, x])[0], x + x + np.arange(len(x)))


def test_shapes_are_checked_when_preparing() -> None:
    with pytest.raises(InputError, match=r"dimension 0 of 'x', but 4 by dimension 0 of 'y'"):
        load_parts(symbolic_parts()).prepare([(3,), (4,)])


def test_sizes_take_turns_with_other_runs() -> None:
    module = load_parts(symbolic_parts(), threads=1)
    small, large = module.prepare([(2,), (2,)]), module.prepare([(9,), (9,)])
    for prepared, n in ((small, 2), (large, 9), (small, 2)):
        x = np.arange(n, dtype=np.float32)
        np.testing.assert_array_equal(prepared([x, x])[0], x + x + np.arange(len(x)))


def test_a_failed_run_leaves_the_next_alone() -> None:
    prepared = load_parts(checked_parts()).prepare([()])
    with pytest.raises(ExecutionError, match="the index 0 is outside of a dimension of size 0"):
        prepared([np.array(-1, np.float32)])
    np.testing.assert_array_equal(prepared([np.array(2, np.float32)])[0], 2)


def test_several_threads() -> None:
    prepared = load_parts(symbolic_parts(), threads=2).prepare([(50,), (50,)])
    wrong: list[int] = []

    def work(seed: int) -> None:
        x = np.full(50, seed, np.float32)
        wrong.extend(seed for _ in range(100) if not np.array_equal(prepared([x, x])[0], x + x + np.arange(len(x))))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize(("n_bytes", "n_flops", "threads"), [(24, 6, 1), (24, 600, 3), (1 << 24, 6, 3)])
def test_a_brief_run_stays_on_one_thread(n_bytes: int, n_flops: int, threads: int) -> None:
    """The pool is not asked for where one step moves little and computes little."""
    parts = static_parts()
    (step,) = parts.manifest.steps
    manifest = dataclasses.replace(parts.manifest, steps=(dataclasses.replace(step, flops=n_flops, bytes=n_bytes),))
    prepared = load_parts(dataclasses.replace(parts, manifest=manifest), threads=3).prepare([(2, 3), (2, 3)])
    x = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(prepared([x, x])[0], x + x)
    assert prepared.threads == threads
