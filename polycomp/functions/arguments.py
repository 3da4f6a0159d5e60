"""What a call's arguments are to a jit function: arrays of the run, or values that the code is compiled for."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from polycomp.dtypes import as_dtype
from polycomp.errors import ArgumentError, DTypeError, InputError, PolycompError, SignatureError
from polycomp.functions.gpu_arrays import GpuArray, gpu_array
from polycomp.functions.pytree import LEAF, Structure, flatten, paths, unflatten
from polycomp.tracing import TensorSpec

Array = np.ndarray[Any, Any]
_NOT_SHARED = (RuntimeError, BufferError, TypeError, ValueError)  # raised for what DLPack cannot share with numpy

Dims = tuple[int | str, ...]
"""A shape, open sizes by name."""


@dataclasses.dataclass(frozen=True)
class ArrayLeaf:
    """An array of the run: its dtype and shape. ``weak`` where it was a Python float."""

    dtype: np.dtype[Any]
    shape: Dims
    weak: bool = False


@dataclasses.dataclass(frozen=True)
class StaticLeaf:
    """A value that the code is compiled for; equal only to values of the same type."""

    kind: type
    value: Hashable


Leaf = ArrayLeaf | StaticLeaf


@dataclasses.dataclass(frozen=True)
class CallKey:
    """What the code for a call depends on; equal keys share it. There is a structure per parameter."""

    parameters: tuple[str, ...]
    structures: tuple[Structure, ...]
    leaves: tuple[Leaf, ...]

    def arguments(self, leaves: Iterable[Any]) -> dict[str, Any]:
        """The arguments by parameter, with these leaves."""
        rest = iter(leaves)
        return {p: unflatten(s, rest) for p, s in zip(self.parameters, self.structures, strict=True)}


@dataclasses.dataclass(frozen=True)
class Call:
    """One call's arguments: the key, the arrays in order, and where each leaf came from."""

    key: CallKey
    arrays: list[Array | GpuArray]
    names: tuple[str, ...]

    @property
    def values(self) -> list[Any]:
        """The arrays as the code takes them: those on a GPU are the caller's own."""
        return [a.value if isinstance(a, GpuArray) else a for a in self.arrays]


class Parameters:
    """The signature of a function, and what its annotations and options say of its arrays, which may be ``on_gpu``."""

    def __init__(
        self,
        function: Callable[..., Any],
        static: Sequence[str],
        dynamic: Sequence[str] | Mapping[str, Any],
        on_gpu: bool = False,
    ) -> None:
        self.on_gpu = on_gpu
        self.signature = _signature(function)
        self.name = function.__name__
        self.static = frozenset(static)
        kinds = [p.kind for p in self.signature.parameters.values()]
        simple = all(k is inspect.Parameter.POSITIONAL_OR_KEYWORD for k in kinds)
        self._plain = len(kinds) if simple else -1  # so many positional arguments need no binding
        self._names = tuple(self.signature.parameters)
        self.specs = _annotated(function)
        self._check_known([*static], "static")
        if isinstance(dynamic, Mapping):
            self._check_known([*dynamic], "dynamic")
            self.specs |= {name: _spec(pattern) for name, pattern in dynamic.items()}
        self.open = self._open_sizes(dynamic)

    def _check_known(self, names: Sequence[str], option: str) -> None:
        unknown = [n for n in names if n not in self.signature.parameters]
        if unknown:
            there = ", ".join(self.signature.parameters) or "none"
            raise SignatureError(f"{option}= names {unknown[0]!r}, but the parameters of {self.name!r} are: {there}")

    def _open_sizes(self, dynamic: Sequence[str] | Mapping[str, Any]) -> frozenset[str]:
        named = {d for spec in self.specs.values() for d in spec.dims or () if isinstance(d, str)}
        if isinstance(dynamic, Mapping) or not dynamic:
            return frozenset(named)
        unknown = sorted(set(dynamic) - named)
        if unknown:
            there = ", ".join(sorted(named)) or "none"
            raise SignatureError(
                f"dynamic= names the size {unknown[0]!r}, but the sizes named in annotations of {self.name!r} are: "
                f'{there}. Annotate a parameter, as in x: pc.Tensor["{unknown[0]}", 128], or pass '
                f'dynamic={{"x": ("{unknown[0]}", 128)}}'
            )
        return frozenset(dynamic)

    def in_order(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Sequence[Any] | None:
        """All arguments by position; None where that is not all that there is to a call."""
        if len(args) + len(kwargs) != self._plain:
            return None
        try:
            return (*args, *[kwargs[name] for name in self._names[len(args) :]])
        except KeyError:
            return None

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """All arguments by parameter, defaults filled in. Raises TypeError as a plain call would."""
        if not kwargs and len(args) == self._plain:
            return dict(zip(self.signature.parameters, args, strict=True))
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return dict(bound.arguments)

    def call(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Call:
        """The arguments taken apart. Raises ArgumentError and InputError naming the parameter."""
        arguments = self.bind(args, kwargs)
        names: list[str] = []
        leaves: list[Leaf] = []
        arrays: list[Array | GpuArray] = []
        structures = []
        for parameter, argument in arguments.items():
            values: list[Any] = []
            structure = flatten(argument, values)
            own = [parameter] if structure is LEAF else list(paths(structure, parameter))
            for name, value in zip(own, values, strict=True):
                leaf, array = self._leaf(parameter, name, value)
                leaves.append(leaf)
                arrays += [] if array is None else [array]
            structures.append(structure)
            names += own
        return Call(CallKey(tuple(arguments), tuple(structures), tuple(leaves)), arrays, tuple(names))

    def _leaf(self, parameter: str, name: str, value: Any) -> tuple[Leaf, Array | GpuArray | None]:
        if parameter in self.static or value is None or isinstance(value, bool | int | str | bytes):
            return _static_leaf(name, value), None
        if isinstance(value, float) and not isinstance(value, np.generic):
            return ArrayLeaf(np.dtype(np.float64), (), True), np.asarray(value)
        array = self._array(name, value)
        if array is None:
            return _static_leaf(name, value), None
        return ArrayLeaf(array.dtype, self._dims(parameter, name, array)), array

    def _array(self, name: str, value: Any) -> Array | GpuArray | None:
        found = None if isinstance(value, np.ndarray) else gpu_array(name, value)
        if found is None:
            return as_array(name, value)
        if not self.on_gpu:
            raise ArgumentError(
                f"argument {name!r}, a {type(value).__name__}, is on a GPU, but {self.name!r} is compiled for the CPU; "
                f'compile it with @jit(target="cuda"), or pass a copy on the host'
            )
        return found

    def _dims(self, parameter: str, name: str, array: Array | GpuArray) -> Dims:
        spec = self.specs.get(parameter)
        shape: Dims = array.shape
        if spec is None:
            return shape
        problem = _mismatch(spec, array)
        if problem:
            raise InputError(f"argument {name!r} of {self.name!r} {problem}; it is annotated {spec!r}")
        if spec.dims is None:
            return shape
        pairs = zip(spec.dims, shape, strict=True)
        return tuple(d if isinstance(d, str) and d in self.open else n for d, n in pairs)

    def sizes(self, call: Call) -> dict[str, int]:
        """The open sizes of a call. Raises InputError when two arrays contradict each other."""
        found: dict[str, tuple[int, str]] = {}
        arrays = iter(call.arrays)
        for name, leaf in zip(call.names, call.key.leaves, strict=True):
            if isinstance(leaf, ArrayLeaf):
                self._bind_sizes(name, next(arrays), found)
        return {label: size for label, (size, _) in found.items() if label in self.open}

    def _bind_sizes(self, name: str, array: Array | GpuArray, found: dict[str, tuple[int, str]]) -> None:
        spec = self.specs.get(name.split("[")[0])
        for axis, label in enumerate(spec.dims or () if spec else ()):
            if not isinstance(label, str):
                continue
            size, first = found.setdefault(label, (array.shape[axis], f"dimension {axis} of {name!r}"))
            if size != array.shape[axis]:
                raise InputError(
                    f"the size {label} of {self.name!r} is {size} by {first}, but {array.shape[axis]} by dimension "
                    f"{axis} of {name!r}"
                )


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    """The parameters of a function; of a ufunc of numpy, its operands alone."""
    if not isinstance(function, np.ufunc):
        return inspect.signature(function)
    only = inspect.Parameter.POSITIONAL_ONLY
    return inspect.Signature([inspect.Parameter(f"x{i + 1}", only) for i in range(function.nin)])


def with_known_sizes(call: Call) -> Call:
    """The call compiled for its own sizes alone."""
    arrays = iter(call.arrays)
    leaves = [
        dataclasses.replace(leaf, shape=next(arrays).shape) if isinstance(leaf, ArrayLeaf) else leaf
        for leaf in call.key.leaves
    ]
    return Call(dataclasses.replace(call.key, leaves=tuple(leaves)), call.arrays, call.names)


def as_array(name: str, value: Any) -> Array | None:
    """``value`` as an array without a copy where it can be; None for what is no array.

    Tensors of other libraries come through DLPack. Raises ArgumentError for a dtype that polycomp does not have.
    """
    if isinstance(value, np.ndarray | np.generic) or hasattr(value, "__array_interface__"):
        array = np.asarray(value)
    elif hasattr(value, "__dlpack__"):
        array = _from_dlpack(name, value)
    else:
        return None
    try:
        as_dtype(array.dtype)
    except DTypeError as error:
        raise ArgumentError(f"argument {name!r}: {error}") from None
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def shared(value: Any) -> Any:
    """What DLPack makes of another library's array; anything else as it is, and what cannot be shared."""
    if isinstance(value, np.ndarray) or hasattr(value, "__array_interface__") or not hasattr(value, "__dlpack__"):
        return value
    try:
        return np.from_dlpack(value)
    except _NOT_SHARED:
        return value


def _from_dlpack(name: str, value: Any) -> Array:
    try:
        return np.from_dlpack(value)
    except _NOT_SHARED as error:
        raise ArgumentError(
            f"argument {name!r}, a {type(value).__name__}, cannot be read through DLPack: {error}"
        ) from error


def _static_leaf(name: str, value: Any) -> StaticLeaf:
    try:
        hash(value)
    except TypeError:
        raise ArgumentError(
            f"argument {name!r} is a {type(value).__name__}, which is neither an array nor a value that code can be "
            f"compiled for; pass arrays, numbers, strings, or tuples, lists and dicts of them"
        ) from None
    return StaticLeaf(type(value), value)


def _mismatch(spec: TensorSpec, array: Array | GpuArray) -> str:
    """What is wrong with an array; empty when nothing is."""
    if spec.dtype is not None and array.dtype != spec.dtype.numpy:
        return f"has the dtype {array.dtype}"
    if spec.dims is None:
        return ""
    if len(spec.dims) != array.ndim:
        return f"has {array.ndim} dimensions"
    wrong = [d for d, (want, n) in enumerate(zip(spec.dims, array.shape, strict=True)) if want not in (n, None)]
    wrong = [d for d in wrong if not isinstance(spec.dims[d], str)]
    return f"has the size {array.shape[wrong[0]]} in dimension {wrong[0]}" if wrong else ""


def _annotated(function: Callable[..., Any]) -> dict[str, TensorSpec]:
    """Parameters annotated ``Tensor[...]``, also where annotations are text; others are of no interest.

    Raises SignatureError for such a text that cannot be evaluated.
    """
    hints = {name: _evaluated(function, name, hint) for name, hint in getattr(function, "__annotations__", {}).items()}
    return {name: hint for name, hint in hints.items() if isinstance(hint, TensorSpec) and name != "return"}


def _evaluated(function: Callable[..., Any], name: str, hint: Any) -> Any:
    if not isinstance(hint, str) or "Tensor[" not in hint:
        return hint
    names = inspect.getclosurevars(function)
    try:
        return eval(hint, {**function.__globals__, **names.nonlocals})
    except PolycompError:
        raise
    except Exception as error:
        raise SignatureError(
            f"the annotation {hint!r} of {name!r} of {function.__name__!r} cannot be evaluated: {error}; names of open "
            f'sizes are written in quotes, as in Tensor["n", 128], or made by size("n") where linters take quotes away'
        ) from error


def _spec(pattern: Any) -> TensorSpec:
    return pattern if isinstance(pattern, TensorSpec) else TensorSpec(tuple(pattern))
