"""Writing files so that nobody ever sees half of one."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import secrets
import tempfile
from collections.abc import Iterable, Iterator
from typing import IO

Chunk = bytes | memoryview

_MOST_AT_ONCE = 1 << 30


def write_file(path: pathlib.Path, chunks: Iterable[Chunk]) -> None:
    """Write ``chunks`` one after the other to ``path``, which appears, or changes, only once all are written.

    Raises OSError naming ``path``; nothing is left behind then.
    """
    with _replacing(path) as file:
        file.writelines(chunks)


def copy_file(source: pathlib.Path, path: pathlib.Path) -> None:
    """Copy ``source`` to ``path`` in the same manner, within the system where it can."""
    with _replacing(path) as file, open(source, "rb") as content:
        while os.sendfile(file.fileno(), content.fileno(), None, _MOST_AT_ONCE):
            pass


def check_writable(path: pathlib.Path) -> None:
    """Find out before a long work, not after it, that ``path`` cannot be written. Raises OSError."""
    if path.is_dir():
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


@contextlib.contextmanager
def _replacing(path: pathlib.Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of ``path`` when the block ends well, and is gone when it does not."""
    # Not tempfile: its files are for their owner alone, this one has the modes that the user's mask says.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        try:
            with open(temporary, "xb") as file:
                yield file
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
