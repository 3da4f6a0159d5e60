"""Writing files so that nobody ever sees half of one."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import tempfile
from collections.abc import Iterable

Chunk = bytes | memoryview


def write_file(path: pathlib.Path, chunks: Iterable[Chunk]) -> None:
    """Write ``chunks`` one after the other to ``path``, which appears, or changes, only once all are written.

    Raises OSError naming ``path``; nothing is left behind then.
    """
    try:
        _write(path, chunks)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def check_writable(path: pathlib.Path) -> None:
    """Find out before a long work, not after it, that ``path`` cannot be written. Raises OSError."""
    if path.is_dir():
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def _write(path: pathlib.Path, chunks: Iterable[Chunk]) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".polycomp-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines(chunks)
            os.fchmod(file.fileno(), 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def _umask() -> int:
    """What this process leaves out of a new file's permissions; it can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
