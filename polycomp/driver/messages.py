"""What processes of one program say to each other: pickles preceded by their length, over pipes."""

from __future__ import annotations

import os
import pickle
import struct
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

READY = "ready"

_LENGTH = struct.Struct("<Q")


def send(stream: BinaryIO, message: Any) -> None:
    """Write one message. Raises OSError when the other side is gone."""
    data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    stream.write(_LENGTH.pack(len(data)))
    stream.write(data)
    stream.flush()


def receive(stream: BinaryIO) -> Any:
    """Read one message. Raises EOFError when the other side is gone."""
    return pickle.loads(_read(stream, _LENGTH.unpack(_read(stream, _LENGTH.size))[0]))


def _read(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError("the other side closed the pipe")
    return data


def serve(answer: Callable[[Any], Any], begin: Callable[[Any], None] | None = None) -> None:
    """Answer what comes in on standard input, on standard output, until the other side is gone.

    With ``begin`` the first message is for that, and answered by :data:`READY`.
    """
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints must not get between the answers
    while True:
        try:
            if begin is not None:
                begin(receive(requests))
                send(answers, READY)
                begin = None
            request = receive(requests)
            send(answers, answer(request))
        except (EOFError, BrokenPipeError):  # the process that started this one is gone
            return
