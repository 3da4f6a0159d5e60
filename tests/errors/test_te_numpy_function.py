"""A function of numpy on an element."""

from __future__ import annotations

import numpy as np
from mistakes import fails

import polycomp as pc
from polycomp.errors import ExpressionError


def test_te_numpy_function() -> None:
    x = pc.placeholder((4,), name="x")
    message = (
        "numpy.spacing of an element cannot be compiled; those that can are absolute, add, arccos, arccosh, arcsin, "
        "arcsinh, arctan, arctan2, arctanh, ceil, cos, cosh, divide, exp, exp2, expm1, floor, floor_divide, fmod, greater, "
        "greater_equal, isnan, less, less_equal, log, log1p, log2, maximum, minimum, multiply, negative, power, reciprocal, "
        "remainder, rint, sign, sin, sinh, sqrt, subtract, tan, tanh, trunc"
    )
    with fails(ExpressionError, message):
        pc.compute((4,), lambda i: np.spacing(x[i]), "y")
