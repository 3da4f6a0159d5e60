"""Pages of the documentation are true: whatever they tell the reader to do works, and prints what they say."""

from __future__ import annotations

import pathlib

import pytest
from documents import Reader

_PAGES = pathlib.Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("page", ["cuda.md", "jit.md", "precision.md", "schedules.md", "tutorial.md"])
def test_a_page_does_what_it_says(page: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    Reader(_PAGES / page, folder).follow()


@pytest.mark.parametrize(
    "block",
    [
        "```python\nassert 1 + 1 == 3\n```\n",
        "```pycon\n>>> 1 + 1\n3\n```\n",
        "```console\n$ echo two\nthree\n```\n",
        "```console\n$ false\n```\n",
    ],
)
def test_what_is_not_true_is_noticed(block: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "page.md").write_text(f"# A page\n\n{block}")
    with pytest.raises(AssertionError):
        Reader(tmp_path / "page.md", tmp_path).follow()
