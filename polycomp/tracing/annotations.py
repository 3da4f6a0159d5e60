"""Annotations of parameters: ``Tensor["n", 128]``."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from polycomp.dtypes import DType, as_dtype
from polycomp.errors import SignatureError
from polycomp.expr import Var


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """What a parameter's array must be. A name is an open size, None any size; ``dims`` None is any shape."""

    dims: tuple[int | str | None, ...] | None
    dtype: DType | None = None

    def __repr__(self) -> str:
        parts = [*([self.dtype.value] if self.dtype else []), *map(repr, self.dims or ())]
        return f"Tensor[{', '.join(parts)}]"


def spec_of(item: Any) -> TensorSpec:
    """The annotation ``Tensor[item]``; an open size may also be a variable of the schedule language.

    Raises SignatureError for what is no size, name or dtype.
    """
    items = item if isinstance(item, tuple) else (item,)
    dtype = None
    items = tuple(i.name if isinstance(i, Var) else i for i in items)
    if items and not isinstance(items[0], int | str | None):
        dtype, items = _dtype(items[0]), items[1:]
    for size in items:
        if not isinstance(size, int | str | None) or isinstance(size, bool) or (isinstance(size, int) and size < 0):
            raise SignatureError(f"Tensor[...] takes sizes, names of open sizes and None, not {size!r}")
        if isinstance(size, str) and not size.isidentifier():
            raise SignatureError(f"the name of an open size must be an identifier, not {size!r}")
    return TensorSpec(tuple(items), dtype)


def _dtype(item: Any) -> DType:
    try:
        return item if isinstance(item, DType) else as_dtype(np.dtype(item))
    except TypeError:
        raise SignatureError(f"Tensor[...] begins with a dtype or a size, not {item!r}") from None
