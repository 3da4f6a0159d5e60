"""The log of all measurements: a file of JSON lines that only grows.

Each record is written by one call, under a lock, at the end of the file, so several processes may write the same file
and no reader sees half of a line, except of one that a crash has torn; that line is skipped, and the next begins a new
one. Logs are merged by putting one after the other (``cat``).
"""

from __future__ import annotations

import fcntl
import os
import pathlib
import warnings
from collections.abc import Callable, Iterator
from typing import TypeVar

from polycomp.errors import TuningLogError
from polycomp.tuner.record import Glance, Record, RecordError

_START = b'{"schema":'
_Read = TypeVar("_Read")


class Database:
    """The records in the file ``path``, which need not exist yet."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def append(self, record: Record) -> None:
        """Write a record. Raises :class:`TuningLogError` when the file cannot be written."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
            try:
                _append_line(descriptor, record.to_line())
            finally:
                os.close(descriptor)
        except OSError as error:
            raise TuningLogError(f"the tuning log {self.path} cannot be written: {error.strerror}") from error

    def records(self) -> Iterator[Record]:
        """All records in order. Lines that are damaged are skipped, with a warning that says how many they were.

        Raises :class:`TuningLogError` when the file cannot be read; one that does not exist has no records.
        """
        return self._read_all(Record.from_line)

    def glances(self) -> Iterator[Glance]:
        """The same, at a glance: for large logs."""
        return self._read_all(Glance.from_line)

    def _read_all(self, parse: Callable[[bytes], _Read]) -> Iterator[_Read]:
        problems: list[str] = []
        for line in self._lines():
            yield from _read(line, parse, problems)
        if problems:
            warnings.warn(
                f"{len(problems)} lines of the tuning log {self.path} were skipped; of the first: {problems[0]}",
                stacklevel=2,
            )

    def _lines(self) -> list[bytes]:
        try:
            return [line for line in self.path.read_bytes().split(b"\n") if line.strip()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise TuningLogError(f"the tuning log {self.path} cannot be read: {error.strerror}") from error


def _append_line(descriptor: int, line: bytes) -> None:
    fcntl.flock(descriptor, fcntl.LOCK_EX)  # given back when the descriptor is closed
    size = os.fstat(descriptor).st_size
    torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
    data = b"\n" + line if torn else line
    if os.write(descriptor, data) < len(data):
        raise OSError(0, "the disk is full")


def _read(line: bytes, parse: Callable[[bytes], _Read], problems: list[str]) -> Iterator[_Read]:
    """What a line says; of a torn line with a whole one behind it, as ``cat`` may make it, the latter."""
    try:
        yield parse(line)
    except RecordError as error:
        problems.append(str(error))
        behind = line.rfind(_START)
        if behind > 0:
            yield from _read(line[behind:], parse, problems)
