"""The cache folder: what is stored comes back whole or not at all."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import warnings

import pytest

from polycomp.driver.cache import Cache, cache_folder, key_of, open_caches


def test_what_is_stored_comes_back(tmp_path: pathlib.Path) -> None:
    cache = Cache(tmp_path / "new" / "folder")
    assert cache.load("key") is None
    cache.store("key", b"one ", b"two")
    assert cache.load("key") == b"one two"
    assert cache.info().entries == 1


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[:-1] + b"?", lambda b: b"", lambda b: b + b"!"])
def test_a_damaged_entry_is_absent_and_removed(tmp_path: pathlib.Path, damage) -> None:  # type: ignore[no-untyped-def]
    cache = Cache(tmp_path)
    cache.store("key", b"content")
    path = tmp_path / "key"
    path.write_bytes(damage(path.read_bytes()))
    assert cache.load("key") is None
    assert not path.exists()


def test_the_least_recently_used_entries_go_first(tmp_path: pathlib.Path) -> None:
    cache = Cache(tmp_path, limit=350)
    for position, name in enumerate("abc"):
        cache.store(name, bytes(50))
        os.utime(tmp_path / name, (position, position))
    assert cache.load("a") is not None  # now the most recently used
    cache.limit = 250
    cache.sweep()
    assert [name for name in "abc" if cache.load(name) is not None] == ["a", "c"]


def test_an_entry_larger_than_the_limit_is_not_kept(tmp_path: pathlib.Path) -> None:
    cache = Cache(tmp_path, limit=10)
    cache.store("key", bytes(11))
    assert cache.info().entries == 0


def test_clear(tmp_path: pathlib.Path) -> None:
    cache = Cache(tmp_path)
    cache.store("a", b"1")
    cache.store("b", b"2")
    assert cache.clear() == 2
    assert cache.load("a") is None


def test_a_folder_that_cannot_be_made_gives_one_warning(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = Cache(tmp_path / "file" / "cache")
    with pytest.warns(UserWarning, match="cannot be kept"):
        cache.store("key", b"content")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache.store("key", b"content")
    assert cache.load("key") is None


def test_without_a_home_there_is_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "")
    assert cache_folder() is None
    with pytest.warns(UserWarning, match="no home folder"):
        assert open_caches() is None


def test_xdg_cache_home_decides(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "polycomp"


def test_many_processes_may_write_the_same_entry(tmp_path: pathlib.Path) -> None:
    script = (
        "import pathlib, sys; from polycomp.driver.cache import Cache; cache = Cache(pathlib.Path(sys.argv[1]))\n"
        "for _ in range(50): cache.store('key', bytes(10_000)); assert cache.load('key') == bytes(10_000)"
    )
    writers = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path)]) for _ in range(3)]
    assert [w.wait() for w in writers] == [0, 0, 0]
    assert [p.name for p in tmp_path.iterdir()] == ["key"]


def test_keys_separate_their_parts() -> None:
    assert key_of("ab", "c") != key_of("a", "bc")
    assert key_of("ab") == key_of(b"ab")
