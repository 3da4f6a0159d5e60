"""The index of errors, from the classes of ``polycomp.errors``."""

from __future__ import annotations

from docstrings import to_markdown

from polycomp import errors


def error_classes() -> str:
    """A table of all classes, each indented under its parent."""
    found = [c for c in vars(errors).values() if isinstance(c, type) and c.__module__ == errors.__name__]
    return "\n".join(["| error | meaning |", "|---|---|", *(_row(c, found) for c in found)])


def _row(cls: type, known: list[type]) -> str:
    depth = sum(base in known for base in cls.__mro__) - 1
    meaning = " ".join(to_markdown(cls.__doc__).split())
    return f"| {'&emsp;' * depth}`{cls.__name__}` | {meaning} |"
