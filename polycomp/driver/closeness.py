"""Whether an array is what it should be, but for rounding."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

TOLERANCE = {"float16": 2e-2, "bfloat16": 1e-1, "float32": 1e-3, "float64": 1e-8}
"""The largest error of an element that counts as equal, as a share of the tensor's largest magnitude; 0 for others."""


def disagreement(
    got: Array, wanted: Array, tolerance: float | None = None, other: str = "the reference"
) -> tuple[float, str]:
    """The largest difference of an element, as a share of the largest magnitude, and what is wrong: "" for nothing.

    It is infinite where shapes, types or NaNs differ. ``tolerance`` is for floats, that of their type when it is None;
    ``other`` is what ``wanted`` comes from.
    """
    if got.shape != wanted.shape or got.dtype != wanted.dtype:
        problem = f"is {got.dtype}{list(got.shape)}, {other} is {wanted.dtype}{list(wanted.shape)}"
        return float("inf"), problem
    difference, at = largest_difference(got, wanted)
    scale = float(np.max(np.abs(_finite(wanted)), initial=0.0))
    error = difference / scale if scale and np.isfinite(difference) else difference
    own = TOLERANCE.get(str(got.dtype), 0.0)
    if error <= (tolerance if own and tolerance is not None else own):
        return error, ""
    return error, f"is {got[at]!s} at {list(at)}, {other} is {wanted[at]!s}"


def largest_difference(got: Array, wanted: Array) -> tuple[float, tuple[int, ...]]:
    """The largest difference of arrays of one shape and where it is; infinite where only one is a NaN, or infinities
    differ."""
    if not got.size:
        return 0.0, ()
    a, b = got.astype(np.float64), wanted.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        difference = np.where(same, 0.0, np.nan_to_num(np.abs(a - b), nan=np.inf, posinf=np.inf))
    at = np.unravel_index(int(np.argmax(difference)), difference.shape)
    return float(difference[at]), tuple(int(i) for i in at)


def _finite(values: Array) -> Array:
    numbers: Array = values.astype(np.float64)
    return numbers[np.isfinite(numbers)]
