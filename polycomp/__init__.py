"""polycomp compiles trained models (ONNX) to small, fast modules that run without it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polycomp.api import Module, compile, load
    from polycomp.errors import PolycompError

__version__ = "0.1.0"
__all__ = ["Module", "PolycompError", "__version__", "compile", "load"]

# Names are looked up on first use (PEP 562), so that importing polycomp costs nothing that is not used.
_HOMES = {
    "compile": "polycomp.api",
    "load": "polycomp.runtime",
    "Module": "polycomp.runtime",
    "PolycompError": "polycomp.errors",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'polycomp' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
