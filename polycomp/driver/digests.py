"""Digests of contents, and of files that need not be read again while the system says that they are unchanged."""

from __future__ import annotations

import concurrent.futures
import hashlib
import mmap
import os
import time

from polycomp.driver.cache import Cache, key_of

_CHUNK = 16 << 20
_SETTLED_NS = 100_000_000
"""A file that was changed less than this ago may change again without its times telling: clocks of file systems tick
every few milliseconds. (git calls such files racily clean.)"""

Content = bytes | mmap.mmap


def content_digest(content: Content) -> bytes:
    """A digest of the digests of the content's chunks, which are made in parallel (hashlib frees Python's lock)."""
    if len(content) <= _CHUNK:
        return hashlib.blake2b(content, digest_size=32).digest()
    with memoryview(content) as view, concurrent.futures.ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        chunks = [view[i : i + _CHUNK] for i in range(0, len(view), _CHUNK)]
        digests = list(pool.map(lambda chunk: hashlib.blake2b(chunk, digest_size=32).digest(), chunks))
        for chunk in chunks:
            chunk.release()
    return b"".join(digests)


def file_digest(file: int, content: Content, cache: Cache) -> bytes:
    """The digest of ``content``, that of the open ``file``; from ``cache`` when the file has not changed since.

    A file is unchanged when its place, size and times of change are: the time of the last change of the inode cannot
    be set by a program, so a content that was replaced under the same time of modification is noticed as well.
    """
    if len(content) <= _CHUNK:
        return content_digest(content)
    before = _state(file)
    known = cache.load(before)
    if known is not None:
        return known
    began = time.time_ns()
    digest = content_digest(content)
    if _state(file) == before and began - os.fstat(file).st_ctime_ns > _SETTLED_NS:
        cache.store(before, digest)
    return digest


def _state(file: int) -> str:
    """A key that changes when the file is written to."""
    stat = os.fstat(file)
    fields = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    return key_of("state of a file", *map(str, fields))
