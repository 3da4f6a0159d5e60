"""``@jit``: numpy-style functions compiled on their first call for each combination of dtypes and shapes."""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, overload

import numpy as np

from polycomp.driver.targets import as_target
from polycomp.functions.arguments import Call, CallKey, Parameters, StaticLeaf, shared, with_known_sizes
from polycomp.functions.lowered import Lowered
from polycomp.functions.pytree import flatten
from polycomp.functions.specialise import Specialisation, Traced, trace_call
from polycomp.options import Options
from polycomp.runtime.direct import declined
from polycomp.tracing import Size, Value

_KEPT_SHAPES = 1024

Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True)
class Ready:
    """How to run the code for some arrays: ``direct`` is quicker, and declines what it does not know."""

    run: Callable[[Sequence[Array]], Any]
    direct: Callable[..., Any] = declined


class JitFunction:
    """A compiled function: call it as the Python function that it was made of.

    ``static`` and ``dynamic`` are those of :func:`jit`. May be called from several threads.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        static: Sequence[str] = (),
        dynamic: Sequence[str] | Mapping[str, Any] = (),
        options: Options | None = None,
    ) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self._options = options or Options()
        self._parameters = Parameters(function, static, dynamic, self._options.target.is_gpu)
        self._made: dict[CallKey, Specialisation] = {}
        self._ready: dict[Any, Ready] = {}
        self._latest = declined
        self._lock = threading.Lock()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The results, as new arrays. Raises a PolycompError naming the line or argument that is wrong."""
        if kwargs:
            given = self._parameters.in_order(args, kwargs)
            if given is None:
                return self._call(args, kwargs)
            args = tuple(given)
        result = self._latest(*args)
        return self._choose(args) if result is NotImplemented else result

    def _choose(self, args: Sequence[Any]) -> Any:
        """The code that is ready for these arguments, and is taken to be so for the next ones."""
        ready = self._find_ready(args)
        if ready is None and not self._options.target.is_gpu:
            args = [shared(a) for a in args]
            ready = self._find_ready(args)
        if ready is None:
            return self._call(args, {})
        self._latest = ready.direct
        result = ready.direct(*args)
        return ready.run(args) if result is NotImplemented else result

    def _find_ready(self, args: Sequence[Any]) -> Ready | None:
        try:
            return self._ready.get(tuple([(type(a), a.dtype, a.shape) for a in args]))
        except (AttributeError, TypeError):  # arguments that are no arrays
            return None

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __repr__(self) -> str:
        made = len(self._made)
        return f"<jit {self._parameters.name}{self._parameters.signature}: {made} compiled>"

    def _call(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        if _is_traced(args, kwargs):
            return self.function(*args, **kwargs)
        call = self._parameters.call(args, kwargs)
        known = (call.key, tuple([a.shape for a in call.arrays]))
        ready = self._ready.get(known)
        if ready is None:
            ready = Ready(self.specialised(call).prepare(known[1]))
            self._remember(known, ready)
        if not kwargs and len(args) == len(call.arrays) and all(map(self._is_plain, args)):
            direct = self.specialised(call).direct(args)
            self._remember(tuple([(type(a), a.dtype, a.shape) for a in args]), Ready(ready.run, direct))
        return ready.run(call.values)

    def _is_plain(self, value: Any) -> bool:
        """Whether type, dtype and shape of an array are all that there is to know of it."""
        if type(value) is np.ndarray:
            return bool(value.dtype.isnative)
        return self._options.target.is_gpu and isinstance(getattr(value, "dtype", None), np.dtype)

    def _remember(self, key: Any, ready: Ready) -> None:
        with self._lock:
            if len(self._ready) >= _KEPT_SHAPES:
                self._ready.clear()
            self._ready[key] = ready

    def specialised(self, call: Call) -> Specialisation:
        """The compiled code for a call, compiled now if need be."""
        sizes = self._parameters.sizes(call)
        made = self._find(call)
        if any(sizes[name] < least for name, least in made.traced.minimums.items()):
            return self._find(with_known_sizes(call))
        return made

    def _find(self, call: Call) -> Specialisation:
        with self._lock:
            made = self._made.get(call.key)
            if made is None:
                made = self._made[call.key] = Specialisation(self._trace(call), self._options)
            return made

    def _trace(self, call: Call) -> Traced:
        return trace_call(self.function, call.key, call.names, self._invoke)

    def _invoke(self, function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
        bound = self._parameters.signature.bind_partial()
        bound.arguments.update(arguments)
        return function(*bound.args, **bound.kwargs)

    def lower(self, *args: Any, **kwargs: Any) -> Lowered:
        """Every level of the compilation for these arguments: ``.graph``, ``.kernels``, ``.loops``, ``.llvm`` or, for a
        GPU, ``.cuda``, and ``.assembly``, as text."""
        return Lowered(self._trace(self._parameters.call(args, kwargs)).graph, self._options)

    def explain(self) -> str:
        """What has been compiled so far, and why it was compiled again."""
        lines = [repr(self)]
        lines += [f"  {_key_text(key)}: {_made_text(made)}" for key, made in self._made.items()]
        return "\n".join(lines)


def _is_traced(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    leaves: list[Any] = []
    flatten([*args, *kwargs.values()], leaves)
    return any(isinstance(leaf, Value | Size) for leaf in leaves)


def _key_text(key: CallKey) -> str:
    return ", ".join(
        repr(leaf.value) if isinstance(leaf, StaticLeaf) else f"{leaf.dtype}[{', '.join(map(str, leaf.shape))}]"
        for leaf in key.leaves
    )


def _made_text(made: Specialisation) -> str:
    if made.module is None:
        return "constant"
    least = [f"{name} >= {n}" for name, n in made.traced.minimums.items()]
    kernels = len(made.module.manifest.steps)
    return f"{kernels} kernel{'s' * (kernels != 1)}{', for ' + ', '.join(least) if least else ''}"


@overload
def jit(function: Callable[..., Any], /) -> JitFunction: ...
@overload
def jit(
    *,
    static: Sequence[str] = (),
    dynamic: Sequence[str] | Mapping[str, Any] = (),
    target: str = "cpu",
    threads: int = 0,
    cache: bool = True,
) -> Callable[[Callable[..., Any]], JitFunction]: ...
def jit(
    function: Callable[..., Any] | None = None,
    /,
    *,
    static: Sequence[str] = (),
    dynamic: Sequence[str] | Mapping[str, Any] = (),
    target: str = "cpu",
    threads: int = 0,
    cache: bool = True,
) -> Any:
    """Compile a numpy-style function: ``@jit``, or ``@jit(threads=1)``.

    Arrays (numpy's, or any that DLPack can share) in, numpy arrays out; with ``target="cuda"`` also arrays on a GPU (of
    cupy, torch and others) in, and when there is one, cupy arrays out. The function is traced on its first call for
    each combination of dtypes and shapes; Python floats are passed at run time and take the dtype of what they meet;
    ints, bools, strings and None are known while tracing, and other values of them are traced again.

    ``static`` names parameters whose values are known while tracing too. ``dynamic`` names sizes of annotations such
    as ``x: Tensor["n", 128]`` that one compilation serves all values of (by default all that are named), or maps
    parameters to shapes: ``dynamic={"x": ("n", 128)}``. ``threads`` 0 means all cores of a CPU; ``cache`` False
    neither uses nor fills the cache on disk.

    Raises SignatureError for options that do not fit the function, TargetError for an unknown target, InputError for
    threads of a GPU.
    """
    names = [static] if isinstance(static, str) else static
    sizes = [dynamic] if isinstance(dynamic, str) else dynamic
    options = Options(as_target(target, threads), threads, cache=cache)

    def wrap(wrapped: Callable[..., Any]) -> JitFunction:
        return JitFunction(wrapped, names, sizes, options)

    return wrap if function is None else wrap(function)
