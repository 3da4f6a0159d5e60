"""The worked examples, as pages show them."""

from __future__ import annotations

import ast
import pathlib

from docstrings import to_markdown

_FOLDER = pathlib.Path(__file__).parents[2] / "examples"


def examples() -> str:
    """Every program in ``examples``: its docstring and its source."""
    paths = sorted(path for path in _FOLDER.glob("*.py") if _is_program(path))
    return "\n\n".join(_entry(path) for path in paths)


def _is_program(path: pathlib.Path) -> bool:
    return any(isinstance(n, ast.FunctionDef) and n.name == "main" for n in ast.parse(path.read_text()).body)


def _entry(path: pathlib.Path) -> str:
    source = path.read_text()
    tree = ast.parse(source)
    summary, *rest = to_markdown(ast.get_docstring(tree)).split("\n\n")
    usage = [f"```sh\n{part}\n```" if part.startswith("python ") else part for part in rest]
    body = "\n".join(source.splitlines()[tree.body[0].end_lineno or 0 :]).strip()
    return "\n\n".join([f"## {path.name}", summary, *usage, f"```python\n{body}\n```"])
