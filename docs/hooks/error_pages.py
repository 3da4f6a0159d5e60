"""The index of errors: the classes of ``polycomp.errors``, and the users' mistakes that ``tests/errors`` makes.

A file there has a docstring (the mistake) and a test: ``with fails(SomeError, message):`` surrounds the mistake, or a
command is called and its words are compared. What the tests assert is what the page shows: it cannot be out of date.
"""

from __future__ import annotations

import ast
import dataclasses
import pathlib
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import TypeGuard

from docstrings import to_markdown

from polycomp import errors

_FOLDER = pathlib.Path(__file__).parents[2] / "tests" / "errors"


@dataclasses.dataclass(frozen=True)
class Mistake:
    """One mistake: what it is, the code that makes it, the class of the error ("" for commands), and its words."""

    title: str
    language: str
    code: str
    error: str
    message: str


def error_classes() -> str:
    """A table of all classes, each indented under its parent."""
    shown = {m.error for m in _all_mistakes()}
    known = list(_classes().values())
    return "\n".join(["| error | meaning |", "|---|---|", *(_row(c, known, c.__name__ in shown) for c in known)])


def _classes() -> dict[str, type]:
    return {n: c for n, c in vars(errors).items() if isinstance(c, type) and c.__module__ == errors.__name__}


def _row(cls: type, known: list[type], linked: bool) -> str:
    depth = sum(base in known for base in cls.__mro__) - 1
    name = f"[`{cls.__name__}`](#{cls.__name__.lower()})" if linked else f"`{cls.__name__}`"
    meaning = " ".join(to_markdown(cls.__doc__).split())
    return f"| {'&emsp;' * depth}{name} | {meaning} |"


def mistakes() -> str:
    """All mistakes, under the classes of the errors that answer them."""
    found = _all_mistakes()
    parts = []
    for name in (*_classes(), ""):
        parts += [f"### {name or 'Wrong commands'}"] * any(m.error == name for m in found)
        parts += [_entry(m) for m in found if m.error == name]
    return "\n\n".join(parts)


def _all_mistakes() -> list[Mistake]:
    helpers = _helpers(_FOLDER / "mistakes.py")
    return [m for path in sorted(_FOLDER.rglob("test_*.py")) for m in _mistakes(path, helpers)]


def _entry(mistake: Mistake) -> str:
    code = f"```{mistake.language}\n{mistake.code}\n```"
    return f"**{mistake.title}**\n\n{code}\n\n```text\n{mistake.message}\n```"


def _helpers(path: pathlib.Path) -> Mapping[str, str]:
    """The first lines of the docstrings of the functions that the tests share, by name."""
    functions = [n for n in ast.parse(path.read_text()).body if isinstance(n, ast.FunctionDef)]
    texts = {f.name: (ast.get_docstring(f) or "").split("\n")[0].replace("``", "").rstrip(".") for f in functions}
    return {name: text for name, text in texts.items() if text}


def _mistakes(path: pathlib.Path, helpers: Mapping[str, str]) -> Iterator[Mistake]:
    """Those of one file: one for each of its tests."""
    source = path.read_text()
    tree = ast.parse(source)
    title = " ".join(to_markdown(ast.get_docstring(tree)).split("\n\n")[0].split()).rstrip(".")
    for function in tree.body:
        if isinstance(function, ast.FunctionDef) and function.name.startswith("test_"):
            yield from _failing_blocks(source, title, function, helpers)
            yield from _commands(title, function)


def _failing_blocks(
    source: str, title: str, function: ast.FunctionDef, helpers: Mapping[str, str]
) -> Iterator[Mistake]:
    """The blocks that must fail: ``with fails(SomeError, message):``."""
    for node in ast.walk(function):
        if isinstance(node, ast.With) and isinstance(node.items[0].context_expr, ast.Call):
            arguments = node.items[0].context_expr.args
            names = [a.id for a in arguments if isinstance(a, ast.Name) and a.id in _classes()]
            if names:
                code = _code(source, function, node, helpers)
                yield Mistake(title, "python", code, names[0], _text(arguments[-1], function))


def _commands(title: str, function: ast.FunctionDef) -> Iterator[Mistake]:
    """Calls of the command, ``command(capsys, "run", ...)``, whose words are compared."""
    calls = [n for n in ast.walk(function) if isinstance(n, ast.Call) and ast.unparse(n.func) == "command"]
    wanted = [n for n in ast.walk(function) if isinstance(n, ast.Compare) and ast.unparse(n.left) == "words"]
    for call, compare in zip(calls, wanted, strict=True):
        words = " ".join(_text(a, function) for a in call.args[1:])
        yield Mistake(title, "console", f"$ polycomp {words}", "", _text(compare.comparators[0], function).strip())


def _text(node: ast.expr, function: ast.FunctionDef) -> str:
    """A text as written; what is only known when the test runs becomes an ellipsis."""
    match node:
        case ast.Constant(value=value):
            return str(value)
        case ast.JoinedStr():
            return "".join(_text(part, function) for part in node.values)
        case ast.BinOp(op=ast.Add()):
            return _text(node.left, function) + _text(node.right, function)
        case ast.BinOp(op=ast.Div()):
            return _text(node.right, function)  # a file in the test's folder
        case ast.Name():
            values = [n.value for n in ast.walk(function) if _assigns(n, node.id)]
            return _text(values[0], function) if values else "…"
        case _:
            return "…"


def _assigns(node: ast.AST, name: str) -> TypeGuard[ast.Assign]:
    return isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets)


def _code(source: str, function: ast.FunctionDef, block: ast.With, helpers: Mapping[str, str]) -> str:
    """What the test does up to the error, without the test around it; shared functions are explained above."""
    before = [n for n in function.body if n.lineno < block.lineno and not _assigns(n, "message")]
    lines = source.splitlines()
    parts = [textwrap.dedent("\n".join(lines[n.lineno - 1 : n.end_lineno])) for n in (*before, *block.body)]
    code = "\n".join(parts)
    called = dict.fromkeys(re.findall(r"(?<![\w.])(\w+)\(", code))
    return "\n".join([*(f"# {name}(): {helpers[name]}" for name in called if name in helpers), code])
