"""Calls through the module's own function: quick for what was planned, declined for all else."""

from __future__ import annotations

import gc
import os
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tiny_modules import checked_parts, symbolic_parts

from polycomp.errors import InputError
from polycomp.runtime import ArgumentPlan, load_parts
from polycomp.runtime.direct import declined

FLOAT = np.dtype(np.float32)


def doubling(n: int, threads: int = 1, as_tuple: bool = False) -> Callable[..., Any]:
    """``x + y + arange(n)`` of two arrays."""
    module = load_parts(symbolic_parts(), threads=threads)
    plans = [ArgumentPlan(FLOAT, (n,), 0), ArgumentPlan(FLOAT, (n,), 1)]
    return module.prepare([(n,), (n,)]).direct(plans, as_tuple)


def ramp(n: int) -> np.ndarray[Any, Any]:
    return np.arange(n, dtype=np.float32)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("n", [1, 50, 1000])
def test_results_are_new_aligned_arrays(n: int, threads: int) -> None:
    call, x = doubling(n, threads), ramp(n)
    first, second = call(x, x), call(x, x)
    np.testing.assert_array_equal(first, 3 * x)
    assert first is not second and not np.shares_memory(first, second)
    assert type(first) is np.ndarray and first.dtype == FLOAT and first.flags.c_contiguous and first.flags.writeable
    assert first.ctypes.data % 64 == 0


def test_all_outputs_in_a_tuple() -> None:
    (found,) = doubling(5, as_tuple=True)(ramp(5), ramp(5))
    np.testing.assert_array_equal(found, 3 * ramp(5))


@pytest.mark.parametrize(
    "wrong",
    [
        ramp(6),
        ramp(5).astype(np.float64),
        ramp(5).astype(">f4"),
        ramp(5).reshape(1, 5),
        ramp(10)[::2],
        np.frombuffer(b"\0" + ramp(5).tobytes(), np.float32, offset=1),
        ramp(5).view(np.recarray),
        [0.0, 1.0, 2.0, 3.0, 4.0],
        None,
    ],
    ids=["size", "dtype", "byte order", "rank", "strides", "alignment", "subclass", "list", "None"],
)
def test_what_is_not_planned_is_declined(wrong: object) -> None:
    call = doubling(5)
    assert call(ramp(5), wrong) is NotImplemented
    assert call(wrong, ramp(5)) is NotImplemented
    np.testing.assert_array_equal(call(ramp(5), ramp(5)), 3 * ramp(5))


def test_another_number_of_arguments_is_declined() -> None:
    call = doubling(5)
    assert call() is NotImplemented
    assert call(ramp(5)) is NotImplemented
    assert call(ramp(5), ramp(5), ramp(5)) is NotImplemented


def test_an_argument_that_is_not_read_is_checked_all_the_same() -> None:
    module = load_parts(symbolic_parts(), threads=1)
    plans = [ArgumentPlan(FLOAT, (5,), 1), ArgumentPlan(FLOAT, (2, 3), -1), ArgumentPlan(FLOAT, (5,), 0)]
    call = module.prepare([(5,), (5,)]).direct(plans, as_tuple=False)
    np.testing.assert_array_equal(call(ramp(5), np.empty((2, 3), FLOAT), ramp(5)), 3 * ramp(5))
    assert call(ramp(5), ramp(6), ramp(5)) is NotImplemented


def test_a_failed_run_is_declined() -> None:
    call = load_parts(checked_parts()).prepare([()]).direct([ArgumentPlan(FLOAT, (), 0)], as_tuple=False)
    assert call(np.array(-1, np.float32)) is NotImplemented
    np.testing.assert_array_equal(call(np.array(2, np.float32)), 2)


def test_references_are_balanced() -> None:
    call, x, wrong = doubling(5), ramp(5), ramp(6)
    counted = (x, wrong, FLOAT, np.dtype(np.uint8))
    before = [sys.getrefcount(o) for o in counted]
    for _ in range(500):
        call(x, x)
        call(x, wrong)
    result = call(x, x)
    assert sys.getrefcount(result) == 2  # the name, and the argument
    del result
    assert [sys.getrefcount(o) for o in counted] == before


def test_a_function_outlives_its_module() -> None:
    call = doubling(5)
    gc.collect()
    np.testing.assert_array_equal(call(ramp(5), ramp(5)), 3 * ramp(5))


def test_another_thread_in_the_same_function_is_declined_or_right() -> None:
    call, x = doubling(1000), ramp(1000)
    wrong: list[object] = []

    def work() -> None:
        found = [call(x, x) for _ in range(50)]
        wrong.extend(f for f in found if f is not NotImplemented and not np.array_equal(f, 3 * x))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_forked_process_has_no_pool_and_declines() -> None:
    call, x = doubling(1000, threads=2), ramp(1000)
    np.testing.assert_array_equal(call(x, x), 3 * x)
    child = os.fork()
    if not child:
        os._exit(0 if call(x, x) is NotImplemented else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    np.testing.assert_array_equal(call(x, x), 3 * x)


def test_nothing_planned_is_all_declined() -> None:
    assert declined() is NotImplemented
    assert declined(ramp(5)) is NotImplemented


def test_runs_like_those_before_take_the_direct_way_and_others_do_not() -> None:
    module = load_parts(symbolic_parts(), threads=1)
    names = [spec.name for spec in module.inputs]
    for n in (5, 5, 5, 5, 7, 5, 7, 7, 7):
        (found,) = module.run(dict.fromkeys(names, ramp(n))).values()
        np.testing.assert_array_equal(found, 3 * ramp(n))
    assert module._direct(ramp(7), ramp(7)) is not NotImplemented
    assert module._direct(ramp(5), ramp(5)) is NotImplemented
    with pytest.raises(InputError, match="float64"):
        module.run(dict.fromkeys(names, ramp(7).astype(np.float64)))
    with pytest.raises(InputError, match=names[1]):
        module.run({names[0]: ramp(7)})
    with pytest.raises(InputError, match="more"):
        module.run({**dict.fromkeys(names, ramp(7)), "more": ramp(7)})


def test_a_module_that_ran_often_is_freed_at_once() -> None:
    gc.disable()
    try:
        module = load_parts(symbolic_parts(), threads=1)
        for _ in range(4):
            module.run({spec.name: ramp(5) for spec in module.inputs})
        gone = weakref.ref(module)
        del module
        assert gone() is None
    finally:
        gc.enable()
