"""A folder of results that are costly to make again: compiled kernels, finished modules.

Entries are files named by their key and written under a temporary name first, so many processes may share the
folder. Each starts with a checksum of its content: a damaged entry counts as absent and is removed. The least recently
used entries go when the folder outgrows its limit.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import pathlib
import warnings
from collections.abc import Callable, Iterable, Iterator

from polycomp.driver.files import write_file
from polycomp.errors import CacheError, PolycompError

DEFAULT_LIMIT = 2 * 1024**3
_DIGEST_BYTES = 32
_MAGIC = b"polycomp cache 1\n"
_SWEEP_EVERY = 64  # stores between two looks at the folder's size


@dataclasses.dataclass(frozen=True)
class CacheInfo:
    """What a cache folder holds: the number of entries and their size in bytes."""

    folder: pathlib.Path
    entries: int
    bytes: int
    limit: int


class Cache:
    """Byte strings by key in ``folder``, at most ``limit`` bytes of them.

    A cache is a help, never a need: when the folder cannot be written (full, read-only) nothing is kept, and the user
    is warned once per cache.
    """

    def __init__(self, folder: pathlib.Path, limit: int = DEFAULT_LIMIT) -> None:
        self.folder = folder
        self.limit = limit
        self._stores = 0
        self._broken = False

    def load(self, key: str) -> bytes | None:
        """The entry of ``key``; None when there is none or it is damaged."""
        path = self.path(key)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        body = memoryview(data)[len(_MAGIC) + _DIGEST_BYTES :]
        if not data.startswith(_MAGIC + _digest([body])):
            _remove(path)
            return None
        self.touch(key)
        return bytes(body)

    def store(self, key: str, *chunks: bytes | memoryview) -> None:
        """Keep the concatenation of ``chunks`` under ``key``."""
        if sum(len(c) for c in chunks) <= self.limit:
            self.put(key, lambda path: write_file(path, (_MAGIC, _digest(chunks), *chunks)))

    def put(self, key: str, write: Callable[[pathlib.Path], None]) -> None:
        """Keep the file that ``write`` makes. It must appear complete or not at all, and know its own damage."""
        if self._broken:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            write(self.path(key))
        except (OSError, PolycompError) as error:
            self._broken = True
            warnings.warn(f"results cannot be kept in the cache {self.folder}: {error}", stacklevel=2)
            return
        self._stores += 1
        if self._stores % _SWEEP_EVERY == 1:
            self.sweep()

    def path(self, key: str) -> pathlib.Path:
        """Where the entry of ``key`` is, when there is one."""
        return self.folder / key

    def touch(self, key: str) -> None:
        """Note that an entry was used."""
        with contextlib.suppress(OSError):  # in a read-only folder the time of last use stays as it is
            os.utime(self.path(key))

    def sweep(self) -> None:
        """Remove the least recently used entries until the limit holds."""
        entries = sorted(_entries(self.folder), key=lambda e: e[1].st_mtime)
        excess = sum(stat.st_size for _, stat in entries) - self.limit
        for path, stat in entries:
            if excess <= 0:
                return
            _remove(path)
            excess -= stat.st_size

    def clear(self) -> int:
        """Remove all entries; returns how many there were. Raises CacheError when one cannot be removed."""
        count = 0
        for path, _ in _entries(self.folder):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise CacheError(f"the cache entry {path} cannot be removed: {error.strerror}") from error
            count += 1
        return count

    def info(self) -> CacheInfo:
        sizes = [stat.st_size for _, stat in _entries(self.folder)]
        return CacheInfo(self.folder, len(sizes), sum(sizes), self.limit)


def cache_folder() -> pathlib.Path | None:
    """``$XDG_CACHE_HOME/polycomp`` or ``~/.cache/polycomp``; None when this user has neither."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if base and os.path.isabs(base):
        return pathlib.Path(base) / "polycomp"
    home = os.environ.get("HOME", "")
    return pathlib.Path(home) / ".cache" / "polycomp" if os.path.isabs(home) else None


def open_caches() -> tuple[Cache, Cache] | None:
    """The user's cache of kernels and that of whole modules; None, with a warning, when there is no place for them."""
    folder = cache_folder()
    try:
        if folder is None:
            raise OSError("this user has no home folder")
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not os.access(folder, os.W_OK):
            raise PermissionError(f"{folder} is read-only")
    except OSError as error:
        warnings.warn(f"compiled kernels are not kept between runs: {error}", stacklevel=2)
        return None
    return caches_in(folder)


def caches_in(folder: pathlib.Path) -> tuple[Cache, Cache]:
    """The caches of kernels and of whole modules in ``folder``."""
    return Cache(folder / "kernels"), Cache(folder / "modules")


def key_of(*parts: str | bytes) -> str:
    """A file name that stands for ``parts``: their BLAKE2b digest."""
    digest = hashlib.blake2b(digest_size=20)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def _digest(chunks: Iterable[bytes | memoryview]) -> bytes:
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for chunk in chunks:
        digest.update(chunk)
    return digest.digest()


def _entries(folder: pathlib.Path) -> Iterator[tuple[pathlib.Path, os.stat_result]]:
    """The files of a cache folder (left-over temporary ones too); none when there is no folder."""
    try:
        paths = list(folder.iterdir())
    except OSError:
        return
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # another process removed it
            yield path, path.stat()


def _remove(path: pathlib.Path) -> None:
    with contextlib.suppress(OSError):  # gone already, or a folder that is not ours to change: a later store warns
        path.unlink()
