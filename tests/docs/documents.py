"""Executing a page of the documentation, from top to bottom, as a reader in an empty folder would.

What each kind of block means is in ``docs/README.md``.
"""

from __future__ import annotations

import dataclasses
import doctest
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

_FENCE = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FLAGS = doctest.ELLIPSIS


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block; ``title`` is the file that it is to be written to, ``line`` where it begins."""

    language: str
    title: str
    text: str
    line: int


def blocks_of(page: pathlib.Path) -> Iterator[Block]:
    """The fenced blocks of a Markdown file, in order."""
    text = page.read_text()
    for match in _FENCE.finditer(text):
        yield Block(match[1], match[2] or "", match[3], text.count("\n", 0, match.start()) + 1)


@dataclasses.dataclass
class Reader:
    """Someone who types a page into the folder ``folder``, which must be the working directory."""

    page: pathlib.Path
    folder: pathlib.Path
    names: dict[str, Any] = dataclasses.field(default_factory=lambda: {"__name__": "__main__"})

    def follow(self) -> None:
        """Do everything that the page shows. Raises AssertionError at the first thing that comes out otherwise."""
        for block in blocks_of(self.page):
            if block.title:
                (self.folder / block.title).write_text(block.text)
            elif block.language == "python":
                exec(compile(block.text, f"{self.page.name}:{block.line}", "exec"), self.names)
            elif block.language == "pycon":
                self._session(block)
            elif block.language == "console":
                self._commands(block)

    def _session(self, block: Block) -> None:
        where = f"{self.page.name}:{block.line}"
        test = doctest.DocTestParser().get_doctest(block.text, self.names, where, self.page.name, block.line)
        report: list[str] = []
        runner = doctest.DocTestRunner(optionflags=_FLAGS)
        runner.run(test, out=report.append, clear_globs=False)
        self.names = test.globs
        assert not report, "".join(report)

    def _commands(self, block: Block) -> None:
        for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
            command, _, wanted = part.partition("\n")
            got = self.shell(command)
            matches = doctest.OutputChecker().check_output(wanted, got, _FLAGS)
            assert matches or not wanted, f"{self.page.name}:{block.line}: $ {command}\n{got}\nis not\n{wanted}"

    def shell(self, command: str) -> str:
        """What a command prints, on both streams; it must succeed. ``python`` is the tests' own."""
        path = f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "COLUMNS": "160"}
        done = subprocess.run(
            command, shell=True, cwd=self.folder, env=environment, text=True, check=False, timeout=120,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert done.returncode == 0, f"$ {command}\n{done.stdout}"
        return done.stdout
