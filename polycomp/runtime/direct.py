"""Calling a module from Python through ``polycomp_call``: a function object whose code is the module's own.

What it is bound to, the plan, is described in ``codegen/llvm/caller.py``.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import importlib
import sys
import sysconfig
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from polycomp.runtime.binding import OutputPlan, Shape
from polycomp.runtime.frame import Frame
from polycomp.runtime.library import Library

_METH_FASTCALL = 0x80
_NUMPY_ABI = (0x1000009, 0x2000000)  # of numpy 1 and 2
_NEW_FROM_DESCR, _SET_BASE_OBJECT = 94, 282  # places in numpy's table of functions
_FIELDS = ("type", "data", "rank", "shape", "strides", "base", "dtype", "flags")

Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True)
class ArgumentPlan:
    """An array that a call must be given; ``place`` is the module's input that it is, or -1."""

    dtype: np.dtype[Any]
    shape: Shape
    place: int


class _MethodDefinition(ctypes.Structure):
    """CPython's PyMethodDef."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("code", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


def declined(*_: Any) -> Any:
    """A direct call that takes no arguments of any kind."""
    return NotImplemented


def direct_call(
    library: Library,
    frame: Frame,
    arguments: Sequence[ArgumentPlan],
    outputs: Sequence[OutputPlan],
    pool_cell: int,
    as_tuple: bool,
    kept: object,
) -> Callable[..., Any]:
    """A function of exactly these arrays that returns the only output, or (``as_tuple``) all of them.

    It returns NotImplemented, having done nothing, when anything is not as planned: an argument of another kind, no
    memory, a failed run, or another thread within the same function. ``frame`` is prepared and belongs to the function
    from now on, ``kept`` is what owns the weights; ``pool_cell`` is the address of :attr:`SharedPool.cell`, or 0 where
    one thread is enough.
    """
    host = _host()
    if host is None:
        return declined
    io, sizes, arena, workspace, weights, context = frame.addresses
    n_inputs = 1 + max((a.place for a in arguments), default=-1)
    plan = [
        len(arguments), len(outputs), int(as_tuple), 0, id(NotImplemented), id(np.ndarray), id(np.dtype(np.uint8)),
        *host.values(), io, sizes, arena, workspace, weights, context, pool_cell, frame.threads,
        *_argument_words(arguments), *_output_words(outputs, n_inputs),
    ]  # fmt: skip
    definition = _MethodDefinition(b"run", library.address("polycomp_call"), _METH_FASTCALL, None)
    all_kept = (definition, library, frame, tuple(arguments), tuple(outputs), kept)
    make = ctypes.pythonapi.PyCFunction_NewEx
    make.restype, make.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.py_object, ctypes.py_object)
    made: Callable[..., Any] = make(ctypes.addressof(definition), np.array(plan, np.int64), all_kept)
    return made


def _argument_words(arguments: Iterable[ArgumentPlan]) -> list[int]:
    return [word for a in arguments for word in (id(a.dtype), len(a.shape), a.place, *a.shape)]


def _output_words(outputs: Iterable[OutputPlan], first: int) -> list[int]:
    words: list[int] = []
    for place, output in enumerate(outputs, first):
        size = output.nbytes + output.alignment
        words += [id(output.dtype), len(output.shape), size, output.alignment, place, 0, *output.shape]
    return words


@functools.cache
def _host() -> Mapping[str, int] | None:
    """Addresses of functions of numpy and Python, in the order of the plan; None for one that works otherwise."""
    if sys.implementation.name != "cpython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
        return None
    table = _numpy_table()
    if table is None or not _has_known_layout(np.empty((2, 3), np.int16)):
        return None
    numpy_functions = {"new_array": table[_NEW_FROM_DESCR], "set_base": table[_SET_BASE_OBJECT]}
    names = ("Py_IncRef", "Py_DecRef", "PyEval_SaveThread", "PyEval_RestoreThread", "PyErr_Clear", "PyTuple_New",
             "PyTuple_SetItem")  # fmt: skip
    return numpy_functions | {name: _address(getattr(ctypes.pythonapi, name)) for name in names}


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def _numpy_table() -> Any:
    """numpy's table of functions for extensions, as an array of addresses; None for an unknown binary interface."""
    core = "numpy._core" if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else "numpy.core"
    capsule = importlib.import_module(f"{core}._multiarray_umath")._ARRAY_API
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    table = (ctypes.c_void_p * (_SET_BASE_OBJECT + 1)).from_address(pointer(capsule, None))
    version = ctypes.CFUNCTYPE(ctypes.c_uint)(table[0] or 0)()
    return table if version in _NUMPY_ABI and table[2] == id(np.ndarray) else None


def _has_known_layout(array: Array) -> bool:
    """Whether the fields of arrays lie where ``polycomp_call`` looks for them."""
    words = (ctypes.c_int64 * (1 + len(_FIELDS))).from_address(id(array))
    field = dict(zip(_FIELDS, words[1:], strict=True))
    shape = (ctypes.c_int64 * array.ndim).from_address(field["shape"]) if field["rank"] & 0xFFFFFFFF == 2 else ()
    return (
        field["type"] == id(np.ndarray)
        and field["data"] == array.ctypes.data
        and tuple(shape) == array.shape
        and field["dtype"] == id(array.dtype)
        and field["flags"] & 0x501 == 0x501
    )
