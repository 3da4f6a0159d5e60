"""Operands of traced operations: tensors, arrays, numbers and sizes, and the dtypes that numpy gives them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from polycomp.dtypes import DType, as_dtype
from polycomp.errors import DTypeError
from polycomp.tracing.sizes import Size
from polycomp.tracing.value import Value, where

if TYPE_CHECKING:
    from polycomp.tracing.tensor import Tensor
    from polycomp.tracing.trace import Trace

NumpyDType = np.dtype[np.generic]
_FITTING = {DType.FLOAT64: float, DType.INT64: int}


def trace_of(*operands: Any) -> Trace:
    """The trace of the first traced operand; lists and tuples are looked into."""
    for operand in operands:
        if isinstance(operand, Value | Size):
            return operand.owner
        if isinstance(operand, list | tuple):
            try:
                return trace_of(*operand)
            except LookupError:
                continue
    raise LookupError("no operand is traced")


def promoted(operand: Any) -> Any:
    """What stands for an operand in numpy's promotion: its dtype, or ``int`` or ``float`` for Python's numbers."""
    if isinstance(operand, Value):
        return _FITTING[operand.kind] if operand.weak else operand.dtype
    if isinstance(operand, Size):
        return int
    if isinstance(operand, bool):
        return np.dtype(bool)
    if isinstance(operand, int | float):
        return float if isinstance(operand, float) and not isinstance(operand, np.generic) else _int_kind(operand)
    return np.asarray(operand).dtype


def _int_kind(operand: Any) -> Any:
    return operand.dtype if isinstance(operand, np.generic) else int


def result_type(*operands: Any) -> NumpyDType:
    """The dtype that numpy computes these operands in; Python numbers are weak."""
    kinds = [promoted(o) for o in operands]
    examples = [1 if k is int else 1.0 if k is float else k for k in kinds]
    return np.result_type(*examples)


def as_tensor(trace: Trace, operand: Any, dtype: NumpyDType | None = None) -> Tensor:
    """An operand as a tensor of ``trace``, of ``dtype`` when one is given.

    Raises :class:`DTypeError` for what is no array or number, or a Python number that does not fit ``dtype``.
    """
    if isinstance(operand, Size):
        operand = operand.tensor()
    if isinstance(operand, Value):
        return cast(operand, dtype or operand.dtype)
    if isinstance(operand, list | tuple) and _is_traced(operand):
        raise DTypeError(f"{where()}: a list of traced tensors is no tensor; use stack or concatenate")
    if isinstance(operand, np.ndarray) and (dtype is None or operand.dtype == dtype):
        return trace.constant(operand)
    return trace.constant(_literal(operand, dtype))


def _is_traced(operands: Sequence[Any]) -> bool:
    return any(isinstance(o, Value) or (isinstance(o, list | tuple) and _is_traced(o)) for o in operands)


def _literal(operand: Any, dtype: NumpyDType | None) -> np.ndarray[Any, Any]:
    if not isinstance(operand, np.ndarray | np.generic | bool | int | float | list | tuple):
        raise DTypeError(f"{where()}: {type(operand).__name__} {operand!r} is no array or number")
    try:
        array = np.asarray(operand)
        as_dtype(array.dtype)
        is_number = isinstance(operand, int | float) and not isinstance(operand, np.generic)
        return np.asarray(operand, dtype) if is_number else array.astype(dtype or array.dtype)
    except (OverflowError, ValueError, TypeError) as error:
        raise DTypeError(f"{where()}: {operand!r} cannot be a {dtype or 'tensor'}: {error}") from None


def cast(value: Value, dtype: Any) -> Tensor:
    """``value`` converted to ``dtype``; itself where it has that dtype, but never weak."""
    wanted = as_dtype(np.dtype(dtype))
    trace = value.owner
    if wanted is value.kind:
        return trace.view(value)
    known = trace.known(value)
    if known is not None and known.size <= 1:
        with np.errstate(all="ignore"):
            return trace.constant(known.astype(wanted.numpy))
    return trace.emit("Cast", [value], {"to": wanted})
