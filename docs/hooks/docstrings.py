"""Docstrings and signatures as Markdown.

Signatures come from the sources, not from the objects: decorators hide them there, and sources keep their order.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any

_ROLE = re.compile(r":(?:class|meth|func|mod|attr|data|exc):`~?([^`]+)`")
_SECTION = re.compile(r"^\s*# -{5,} *(.+)$")


@dataclasses.dataclass(frozen=True)
class Member:
    """A function, method, property or class as its source shows it; ``section`` is the comment it stands under."""

    name: str
    signature: str
    text: str
    section: str
    decorators: tuple[str, ...]

    @property
    def summary(self) -> str:
        """The docstring's first sentence, as Markdown."""
        return first_sentence(self.text)


def to_markdown(docstring: str | None) -> str:
    """A docstring as Markdown: roles and double backticks become code, doctests become blocks of their own."""
    text = inspect.cleandoc(docstring or "")
    text = _ROLE.sub(lambda match: f"`{match[1].rsplit('.', 1)[-1]}`", text).replace("``", "`")
    text = re.sub(r"::$", ":", text, flags=re.MULTILINE)
    return "\n\n".join(_block(block) for block in re.split(r"\n\s*\n", text))


def _block(block: str) -> str:
    """A paragraph; one that is a doctest becomes a fenced block."""
    code = textwrap.dedent(block)
    return f"```pycon\n{code}\n```" if code.startswith(">>>") else block


def first_sentence(markdown: str) -> str:
    """Up to the first full stop or semicolon."""
    return re.split(r"(?<=\.) |;", " ".join(markdown.split("\n\n")[0].split()), maxsplit=1)[0].rstrip(".")


def resolve(path: str) -> Any:
    """The object called ``package.module:Name``, or the module ``package.module``."""
    module, _, name = path.partition(":")
    found = importlib.import_module(module)
    return getattr(found, name) if name else found


def class_members(cls: type) -> Iterator[Member]:
    """The public methods and properties that a class itself defines, in source order."""
    lines = textwrap.dedent(inspect.getsource(cls)).splitlines()
    definition = ast.parse("\n".join(lines)).body[0]
    assert isinstance(definition, ast.ClassDef)
    for node in definition.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield _member(node, lines)


def function_member(function: Any) -> Member:
    """A function, as :class:`Member`."""
    lines = textwrap.dedent(inspect.getsource(inspect.unwrap(function))).splitlines()
    node = ast.parse("\n".join(lines)).body[0]
    assert isinstance(node, ast.FunctionDef)
    return _member(node, lines)


def _member(node: ast.FunctionDef, lines: list[str]) -> Member:
    decorators = tuple(ast.unparse(d) for d in node.decorator_list)
    sections = [match[1] for line in lines[: node.lineno] if (match := _SECTION.match(line))]
    text = to_markdown(ast.get_docstring(node))
    return Member(node.name, _signature(node, lines), text, sections[-1] if sections else "", decorators)


def _signature(node: ast.FunctionDef, lines: list[str]) -> str:
    """As it is written in the source, without ``def``, ``self`` and the final colon."""
    source = textwrap.dedent("\n".join(lines[node.lineno - 1 : node.body[0].lineno - 1]))
    signature = re.sub(r"\bself(,\s*)?", "", source.strip().removeprefix("def ").removesuffix(":"), count=1)
    if any(ast.unparse(d).endswith("property") for d in node.decorator_list):
        signature = signature.replace("()", "", 1).replace(" -> ", ": ")
    return signature
