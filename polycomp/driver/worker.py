"""A compile process: reads kernels to compile from its standard input, answers on its standard output.

Started as ``python -m polycomp.driver.worker``: a plain process, because fork is unsafe beside threads and
multiprocessing's spawn runs the user's script again. Messages are pickles preceded by their length.
"""

from __future__ import annotations

import os
import pickle
import struct
import sys
from typing import Any, BinaryIO

from polycomp.driver.kernel import KernelError, compile_kernel

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


def main() -> None:
    """Compile what comes in until the pipe is closed."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints must not get between the answers
    while True:
        try:
            request = receive(requests)
            send(answers, _answer(request))
        except (EOFError, BrokenPipeError):  # the process that started this one is gone
            return


def _answer(request: Any) -> Any:
    _, task = request  # see workers.py for what comes first
    try:
        return compile_kernel(*task)
    except KernelError as error:
        return error


if __name__ == "__main__":
    main()
