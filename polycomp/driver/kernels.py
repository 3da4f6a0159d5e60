"""All kernels of a model: those made before come from the cache, the others are compiled side by side."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping, Sequence

from polycomp.driver.cache import Cache, key_of
from polycomp.driver.kernel import CompiledKernel, KernelError, KernelTask
from polycomp.driver.lower import Call
from polycomp.driver.observe import Observer
from polycomp.driver.versions import backend_version
from polycomp.driver.workers import Workers
from polycomp.errors import CompileError
from polycomp.options import Options


def compile_kernels(
    calls: Sequence[Call], options: Options, cache: Cache | None, workers: Workers, observer: Observer
) -> Mapping[str, CompiledKernel]:
    """The kernels that ``calls`` need, by symbol, for the target and with the decisions of ``options``."""
    wanted = {call.symbol: call for call in calls}
    found = {} if cache is None else _look_up(cache, wanted, options)
    kernels = dict(found)
    # The longest compilations first, so that no process is left with one when the others are done.
    missing = sorted((c for s, c in wanted.items() if s not in found), key=lambda c: len(c.kernel.text), reverse=True)
    observer.kernels(len(kernels), len(wanted))

    def done(task: KernelTask, kernel: CompiledKernel) -> None:
        kernels[task.name] = kernel
        if cache is not None:
            cache.store(_key(task.name, options), pickle.dumps(kernel))
        observer.kernels(len(kernels), len(wanted))

    try:
        workers.compile([task_of(call, options) for call in missing], done)
    except KernelError as error:
        raise _with_nodes(error, wanted[error.symbol]) from error
    _tell_refused({s: kernel.refused for s, kernel in kernels.items() if kernel.refused})
    return {symbol: kernels[symbol] for symbol in wanted}  # in one order, so that equal models give equal files


def _tell_refused(refused: Mapping[str, str]) -> None:
    """Warn of a tuning log that is out of date."""
    if refused:
        symbol, reason = next(iter(refused.items()))
        warnings.warn(
            f"the tuning log has decisions for {len(refused)} kernels that fit no longer, so the library's own "
            f"schedules are used for these (tune again to have others); of {symbol}: {reason}",
            stacklevel=2,
        )


def _with_nodes(error: KernelError, call: Call) -> CompileError:
    """The same error in terms of the model."""
    nodes = ", ".join(map(repr, call.sources)) or "a copy"
    return CompileError(f"the kernel {call.symbol!r} for {nodes} cannot be compiled: {error.reason}")


def _look_up(cache: Cache, wanted: Mapping[str, Call], options: Options) -> dict[str, CompiledKernel]:
    entries = {symbol: cache.load(_key(symbol, options)) for symbol in wanted}
    return {symbol: pickle.loads(entry) for symbol, entry in entries.items() if entry is not None}


def _key(symbol: str, options: Options) -> str:
    made = (options.decisions_for(symbol).key, str(options.is_advised(symbol)))
    return key_of(symbol, options.kernel_target.key, *made, backend_version())


def task_of(call: Call, options: Options) -> KernelTask:
    """What is to be compiled for a call."""
    kernel, made = call.kernel, (options.decisions_for(call.symbol), options.is_advised(call.symbol))
    return KernelTask(call.symbol, kernel.inputs, kernel.outputs, kernel.ranges, options.kernel_target, *made)
