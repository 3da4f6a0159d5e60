"""Loading a module's shared object from memory, and the thread pool that all modules of a process share."""

from __future__ import annotations

import _ctypes
import ctypes
import functools
import os
import tempfile
import threading
import weakref
from typing import Any

from polycomp.errors import ExecutionError, ModuleFileError


class Library:
    """A shared object, loaded for as long as this lives."""

    def __init__(self, content: bytes | memoryview, label: str) -> None:
        """``label`` names the module in the error that is raised when the system does not accept the code."""
        self._label = label
        self._functions, descriptor = _load(content, label)
        closer = weakref.finalize(self, _unload, self._functions._handle, descriptor)
        # Worker threads may still be asleep in the code when the interpreter ends.
        closer.atexit = False

    def function(self, name: str, result: Any) -> Any:
        """The exported function ``name``, with its ctypes result type. It keeps the library loaded."""
        # Made from the address, because ctypes' own function objects refer to themselves and would live on.
        found: Any = ctypes.CFUNCTYPE(result)(self.address(name))
        found.library = self
        return found

    def address(self, name: str) -> int:
        """Where the exported function ``name`` is. It does not keep the library loaded."""
        try:
            return ctypes.cast(self._functions[name], ctypes.c_void_p).value or 0
        except AttributeError as e:
            raise ModuleFileError(f"{self._label} is damaged: its code has no function {name!r}") from e


def _load(content: bytes | memoryview, label: str) -> tuple[ctypes.CDLL, int]:
    """The library, and the descriptor of its memory file or -1."""
    try:
        return _load_from_memory(content)
    except (OSError, AttributeError):  # no memfd, no /proc, or a system that runs code from real files only
        return _load_from_file(content, label), -1


def _load_from_memory(content: bytes | memoryview) -> tuple[ctypes.CDLL, int]:
    descriptor = os.memfd_create("polycomp", os.MFD_CLOEXEC)
    try:
        _write_all(descriptor, content)
        # The descriptor stays open with the library: its number is the library's name for the dynamic linker, which
        # takes a second file of the same name for the first, and debuggers find the symbols through it.
        return ctypes.CDLL(f"/proc/{os.getpid()}/fd/{descriptor}", mode=os.RTLD_NOW | os.RTLD_LOCAL), descriptor
    except BaseException:
        os.close(descriptor)
        raise


def _load_from_file(content: bytes | memoryview, label: str) -> ctypes.CDLL:
    try:
        with tempfile.NamedTemporaryFile(prefix="polycomp-", suffix=".so") as file:
            file.write(content)
            file.flush()
            return ctypes.CDLL(file.name, mode=os.RTLD_NOW | os.RTLD_LOCAL)
    except OSError as e:
        raise ModuleFileError(f"{label}: this system does not load its code: {e}") from e


def _write_all(descriptor: int, content: bytes | memoryview) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def _unload(handle: int, descriptor: int) -> None:
    _ctypes.dlclose(handle)
    if descriptor >= 0:
        os.close(descriptor)


class ThreadPool:
    """A native thread pool; its threads are joined when nothing refers to it any more.

    ``address`` is the native pool's, ``threads`` counts the caller too; ``record`` holds both, and this object's own
    address, for native code.
    """

    def __init__(self, library: Library, threads: int) -> None:
        create = library.function("polycomp_pool_create", ctypes.c_void_p)
        address = create(ctypes.c_int64(threads))
        if not address:
            raise ExecutionError(f"cannot start {threads - 1} worker threads; run the module with fewer threads")
        self.address: int = address
        self.threads = threads
        self.record = (ctypes.c_int64 * 3)(address, threads, id(self))
        finalizer = weakref.finalize(self, _destroy_pool, library, address, os.getpid())
        finalizer.atexit = False


def _destroy_pool(library: Library, address: int, owner: int) -> None:
    """``library`` is kept until then, because its code is what the threads run."""
    if os.getpid() == owner:  # the threads of a forked process's parent are not its own
        library.function("polycomp_pool_destroy", None)(ctypes.c_void_p(address))


class SharedPool:
    """Hands out one thread pool, replaced by a larger one when more threads are wanted.

    ``cell`` is a word for native code that holds the interpreter's lock: the address of the pool's record, or 0.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool: ThreadPool | None = None
        self.cell = ctypes.c_int64(0)
        os.register_at_fork(after_in_child=self._forget)

    def get(self, threads: int, library: Library) -> ThreadPool:
        """A pool of at least ``threads`` threads, started by ``library``'s code when there is none yet.

        Keep the result for as long as it is used. Raises :class:`ExecutionError` when threads cannot be started.
        """
        pool = self._pool
        return pool if pool is not None and pool.threads >= threads else self._grow(threads, library)

    def _grow(self, threads: int, library: Library) -> ThreadPool:
        with self._lock:
            pool = self._pool
            if pool is None or pool.threads < threads:
                pool = ThreadPool(library, threads)
                self.cell.value = ctypes.addressof(pool.record)  # before the old pool goes
                self._pool = pool
            return pool

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self.cell.value = 0
        self._pool = None


@functools.cache
def shared_pool() -> SharedPool:
    """The pool of this process: it is cores that modules share, so there is one for all of them."""
    return SharedPool()
