"""Digests of files: remembered while the file is the same, made again after any change."""

from __future__ import annotations

import mmap
import os
import pathlib

import pytest

from polycomp.driver import digests
from polycomp.driver.cache import Cache
from polycomp.driver.digests import content_digest, file_digest

SIZE = (16 << 20) + 1


def digest(path: pathlib.Path, cache: Cache) -> bytes:
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return file_digest(file.fileno(), content, cache)


@pytest.fixture
def path(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setattr(digests, "_SETTLED_NS", -1)  # a file counts as settled at once
    file = tmp_path / "large"
    file.write_bytes(bytes(SIZE))
    return file


def test_an_unchanged_file_is_not_read_again(
    path: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(tmp_path / "cache")
    first = digest(path, cache)
    assert first == content_digest(bytes(SIZE))
    monkeypatch.setattr(digests, "content_digest", lambda content: pytest.fail("read again"))
    assert digest(path, cache) == first


def test_a_change_under_the_old_time_of_modification_is_noticed(path: pathlib.Path, tmp_path: pathlib.Path) -> None:
    cache = Cache(tmp_path / "cache")
    first, times = digest(path, cache), path.stat()
    with open(path, "r+b") as file:
        file.write(b"x")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_mtime_ns == times.st_mtime_ns
    assert digest(path, cache) != first


def test_a_file_changed_just_now_is_not_remembered(
    path: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "_SETTLED_NS", 10**18)
    cache = Cache(tmp_path / "cache")
    digest(path, cache)
    assert cache.info().entries == 0
