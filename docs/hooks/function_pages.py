"""The functions of arrays, as a table."""

from __future__ import annotations

import inspect
import re
import types

from docstrings import first_sentence, to_markdown

import polycomp
from polycomp.tracing.dispatch import function_names


def functions() -> str:
    """All functions of the package that work on traced tensors, with their parameters."""
    rows = [_row(name) for name in polycomp.__all__ if _is_array_function(name)]
    return "\n".join(["| function | parameters | what it gives |", "|---|---|---|", *rows])


def numpy_functions() -> str:
    """The names of numpy's functions that may be called on traced tensors."""
    return ", ".join(f"`{name}`" for name in function_names())


def _is_array_function(name: str) -> bool:
    found = getattr(polycomp, name)
    return isinstance(found, types.FunctionType) and found.__module__.startswith("polycomp.tracing")


def _row(name: str) -> str:
    function = getattr(polycomp, name)
    parameters = inspect.signature(function).parameters.values()
    shown = ", ".join(str(p.replace(annotation=inspect.Parameter.empty)).replace(" = ", "=") for p in parameters)
    summary = first_sentence(to_markdown(function.__doc__)).replace("|", "\\|")
    shown = re.sub(r"<class 'numpy\.(\w+)'>", r"\1", shown.replace("*operands", "x, ..."))
    return f"| `{name}` | `{shown}` | {summary} |"
