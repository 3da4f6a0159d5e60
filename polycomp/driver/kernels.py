"""All kernels of a model: those made before come from the cache, the others are compiled side by side."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence

from polycomp.driver.cache import Cache, key_of
from polycomp.driver.kernel import CompiledKernel, KernelError, KernelTask
from polycomp.driver.lower import Call
from polycomp.driver.observe import Observer
from polycomp.driver.versions import backend_version
from polycomp.driver.workers import Workers
from polycomp.errors import CompileError
from polycomp.target import Target


def compile_kernels(
    calls: Sequence[Call], target: Target, cache: Cache | None, workers: Workers, observer: Observer
) -> Mapping[str, CompiledKernel]:
    """The kernels that ``calls`` need, by symbol."""
    wanted = {call.symbol: call for call in calls}
    found = {} if cache is None else _look_up(cache, wanted, target)
    kernels = dict(found)
    # The longest compilations first, so that no process is left with one when the others are done.
    missing = sorted((c for s, c in wanted.items() if s not in found), key=lambda c: len(c.kernel.text), reverse=True)
    observer.kernels(len(kernels), len(wanted))

    def done(task: KernelTask, kernel: CompiledKernel) -> None:
        kernels[task.name] = kernel
        if cache is not None:
            cache.store(_key(task.name, target), pickle.dumps(kernel))
        observer.kernels(len(kernels), len(wanted))

    try:
        workers.compile([_task(call, target) for call in missing], done)
    except KernelError as error:
        raise _with_nodes(error, wanted[error.symbol]) from error
    return {symbol: kernels[symbol] for symbol in wanted}  # in one order, so that equal models give equal files


def _with_nodes(error: KernelError, call: Call) -> CompileError:
    """The same error in terms of the model."""
    nodes = ", ".join(map(repr, call.sources)) or "a copy"
    return CompileError(f"the kernel {call.symbol!r} for {nodes} cannot be compiled: {error.reason}")


def _look_up(cache: Cache, wanted: Mapping[str, Call], target: Target) -> dict[str, CompiledKernel]:
    entries = {symbol: cache.load(_key(symbol, target)) for symbol in wanted}
    return {symbol: pickle.loads(entry) for symbol, entry in entries.items() if entry is not None}


def _key(symbol: str, target: Target) -> str:
    return key_of(symbol, target.key, backend_version())


def _task(call: Call, target: Target) -> KernelTask:
    kernel = call.kernel
    return KernelTask(call.symbol, kernel.inputs, kernel.outputs, kernel.ranges, target)
