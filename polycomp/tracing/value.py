"""What all traced values share, and where in the user's program they come from."""

from __future__ import annotations

import pathlib
import sys
from typing import TYPE_CHECKING

import numpy as np

from polycomp.dtypes import DType
from polycomp.graph.ir import TensorType

if TYPE_CHECKING:
    from polycomp.tracing.trace import Trace

_OURS = ("polycomp.", "numpy.")


class Value:
    """A tensor of the graph being traced, without its operators (those are :class:`~polycomp.tracing.Tensor`'s).

    ``weak`` marks what a Python number became: it takes the dtype of what it meets, as the number would.
    """

    __slots__ = ("name", "owner", "type", "weak")

    def __init__(self, trace: Trace, name: str, kind: TensorType, weak: bool = False) -> None:
        self.owner = trace
        self.name = name
        self.type = kind
        self.weak = weak

    @property
    def kind(self) -> DType:
        """The element type as polycomp's."""
        return self.type.dtype

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """The element type as numpy's."""
        return self.type.dtype.numpy

    @property
    def ndim(self) -> int:
        return len(self.type.shape)


def user_location() -> tuple[str, int]:
    """File and line of the innermost frame that is neither numpy's nor polycomp's own."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(_OURS):
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


def where() -> str:
    """The user's line, as messages begin: ``model.py:12``."""
    file, line = user_location()
    return f"{pathlib.Path(file).name}:{line}"
