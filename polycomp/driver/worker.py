"""A compile process: reads kernels to compile from its standard input, answers on its standard output.

Started as ``python -m polycomp.driver.worker``: a plain process, because fork is unsafe beside threads and
multiprocessing's spawn runs the user's script again.
"""

from __future__ import annotations

from typing import Any

from polycomp.driver.kernel import KernelError, compile_kernel
from polycomp.driver.messages import serve


def _answer(request: Any) -> Any:
    _, task = request  # see workers.py for what comes first
    try:
        return compile_kernel(*task)
    except KernelError as error:
        return error


if __name__ == "__main__":
    serve(_answer)
