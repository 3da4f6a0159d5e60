"""The index of errors: the classes of ``polycomp.errors``, and the users' mistakes that ``tests/errors`` makes.

A file there has a docstring (the mistake) and tests whose ``with fails(SomeError, "message"):`` surrounds it. What the
tests assert is what the page shows, so that it cannot be out of date.
"""

from __future__ import annotations

import ast
import dataclasses
import pathlib
import re
import textwrap
from collections.abc import Iterator, Mapping

from docstrings import to_markdown

from polycomp import errors

_FOLDER = pathlib.Path(__file__).parents[2] / "tests" / "errors"


@dataclasses.dataclass(frozen=True)
class Mistake:
    """One mistake: what it is, the code that makes it, the class of the error, and the error's words."""

    title: str
    code: str
    error: str
    message: str


def error_classes() -> str:
    """A table of all classes, each indented under its parent."""
    known = list(_classes().values())
    return "\n".join(["| error | meaning |", "|---|---|", *(_row(c, known) for c in known)])


def _classes() -> dict[str, type]:
    return {n: c for n, c in vars(errors).items() if isinstance(c, type) and c.__module__ == errors.__name__}


def _row(cls: type, known: list[type]) -> str:
    depth = sum(base in known for base in cls.__mro__) - 1
    meaning = " ".join(to_markdown(cls.__doc__).split())
    return f"| {'&emsp;' * depth}`{cls.__name__}` | {meaning} |"


def mistakes() -> str:
    """All mistakes, under the classes of the errors that answer them."""
    helpers = _helpers(_FOLDER / "mistakes.py")
    found = [m for path in sorted(_FOLDER.rglob("test_*.py")) for m in _mistakes(path, helpers)]
    parts = []
    for name in _classes():
        parts += [f"## {name}"] * any(m.error == name for m in found)
        parts += [_entry(m) for m in found if m.error == name]
    return "\n\n".join(parts)


def _entry(mistake: Mistake) -> str:
    return f"**{mistake.title}**\n\n```python\n{mistake.code}\n```\n\n```text\n{mistake.message}\n```"


def _helpers(path: pathlib.Path) -> Mapping[str, str]:
    """The first lines of the docstrings of the functions that the tests share, by name."""
    tree = ast.parse(path.read_text())
    functions = [n for n in tree.body if isinstance(n, ast.FunctionDef)]
    return {f.name: (ast.get_docstring(f) or "").split("\n")[0].replace("``", "").rstrip(".") for f in functions}


def _mistakes(path: pathlib.Path, helpers: Mapping[str, str]) -> Iterator[Mistake]:
    """Those of one file: one for each test that says which error it expects."""
    source = path.read_text()
    tree = ast.parse(source)
    title = " ".join(to_markdown(ast.get_docstring(tree)).split("\n\n")[0].split()).rstrip(".")
    for function in tree.body:
        if isinstance(function, ast.FunctionDef) and function.name.startswith("test_"):
            expectation = _expectation(function)
            if expectation is not None:
                block, error, message = expectation
                yield Mistake(title, _code(source, function, block, helpers), error, message)


def _expectation(function: ast.FunctionDef) -> tuple[ast.With, str, str] | None:
    """The block that must fail, the class of its error and the message; None when the test has no such block."""
    for node in ast.walk(function):
        if isinstance(node, ast.With) and isinstance(node.items[0].context_expr, ast.Call):
            arguments = node.items[0].context_expr.args
            names = [a.id for a in arguments if isinstance(a, ast.Name) and a.id in _classes()]
            if names:
                return node, names[0], _text(arguments[-1])
    return None


def _text(node: ast.expr) -> str:
    """A message as written; what is only known when it is raised becomes an ellipsis."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr():
            return "".join(_text(part) for part in node.values)
        case ast.BinOp(op=ast.Add()):
            return _text(node.left) + _text(node.right)
        case _:
            return "…"


def _code(source: str, function: ast.FunctionDef, block: ast.With, helpers: Mapping[str, str]) -> str:
    """What the test does up to the error, without the test around it; shared functions are explained beside."""
    lines = source.splitlines()
    before = lines[function.body[0].lineno - 1 : block.lineno - 1]
    inside = lines[block.body[0].lineno - 1 : block.end_lineno]
    parts = [textwrap.dedent("\n".join(part)) for part in (before, inside) if part]
    return "\n".join(_explained(line, helpers) for part in parts for line in part.splitlines()).strip()


def _explained(line: str, helpers: Mapping[str, str]) -> str:
    called = [name for name in re.findall(r"(?<![\w.])(\w+)\(", line) if helpers.get(name)]
    return f"{line}  # {helpers[called[0]]}" if called else line
