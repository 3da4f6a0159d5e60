"""Reference of Python modules, classes and functions, from their docstrings."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

from docstrings import Member, class_members, function_member, resolve, to_markdown

_HIDDEN_SECTIONS = ("internals", "changes")


def module_text(path: str) -> str:
    """A module's docstring."""
    return to_markdown(inspect.getdoc(resolve(path)))


def class_text(path: str) -> str:
    """A class's docstring."""
    return to_markdown(inspect.getdoc(resolve(path)))


def function_text(path: str) -> str:
    """A function's signature and docstring."""
    return _entry(function_member(resolve(path)), depth=3)


def members_text(path: str, depth: str = "3") -> str:
    """The public methods and properties that a class itself defines; those without a docstring explain themselves."""
    members = [m for m in class_members(resolve(path)) if m.section not in _HIDDEN_SECTIONS and m.text]
    return "\n\n".join(_entry(member, int(depth)) for member in members)


def summary_text(*paths: str) -> str:
    """A table of all members of some classes, each with the first sentence about it and a link."""
    members = [m for path in paths for m in class_members(resolve(path))]
    rows = [f"| [`{m.name}`](#{m.name}) | {m.summary} |" for m in members]
    return "\n".join(["| primitive | what it does |", "|---|---|", *rows])


def _entry(member: Member, depth: int) -> str:
    return f"{'#' * depth} `{member.name}`\n\n```python\n{member.signature}\n```\n\n{member.text}"


def fields_text(path: str) -> str:
    """The fields of a dataclass or named tuple, as a table."""
    found = resolve(path)
    rows = [f"| `{name}` | `{_type_text(kind)}` |" for name, kind in _fields(found)]
    return "\n".join(["| field | type |", "|---|---|", *rows])


def _fields(cls: Any) -> list[tuple[str, Any]]:
    if dataclasses.is_dataclass(cls):
        return [(f.name, f.type) for f in dataclasses.fields(cls)]
    return list(cls.__annotations__.items())


def _type_text(kind: Any) -> str:
    text = kind if isinstance(kind, str) else getattr(kind, "__forward_arg__", None) or kind.__name__
    return text.replace("|", r"\|")
