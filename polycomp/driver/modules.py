"""Whole modules kept in the cache by the content of the model's file, so that the second time takes a moment."""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import importlib.metadata
import mmap
import os
import pathlib
from collections.abc import Iterator

from polycomp.driver.cache import Cache, key_of
from polycomp.driver.versions import compiler_version
from polycomp.errors import ModuleFileError
from polycomp.importers.onnx.reader import ModelLike
from polycomp.options import Options
from polycomp.runtime import ModuleImage, ModuleParts, read_module_file, write_module_file

_CHUNK = 16 << 20


def model_key(model: ModelLike, options: Options) -> str | None:
    """What a module made of ``model`` is kept under; None where that cannot be told from the model's bytes alone.

    A ModelProto has no bytes, and weights in other files change without them. A tensor that lies elsewhere says so
    under the key "location"; models that hold the word for another reason are merely not kept.
    """
    with contextlib.ExitStack() as stack:
        view: bytes | mmap.mmap | None
        if isinstance(model, str | pathlib.Path):
            view = stack.enter_context(_mapped(pathlib.Path(model)))
        elif isinstance(model, bytes):
            view = model
        else:
            return None
        if view is None or view.find(b"location") >= 0:
            return None
        content = _digest(view)
    shapes = repr(sorted(options.shapes.items()))
    versions = (compiler_version(), importlib.metadata.version("onnx"))
    return key_of(content, options.target.key, str(options.threads), shapes, *versions)


def find_module(cache: Cache, key: str) -> ModuleImage | None:
    """The module kept under ``key``; None when there is none, or it is damaged and was removed."""
    path = cache.path(key)
    try:
        image = read_module_file(path)
    except ModuleFileError:
        path.unlink(missing_ok=True)
        return None
    cache.touch(key)
    return image


def keep_module(cache: Cache, key: str, parts: ModuleParts) -> None:
    """Keep a module, unless it is so large that it would push out most others."""
    if parts.manifest.weight_bytes <= cache.limit // 2:
        cache.put(key, lambda path: write_module_file(path, parts))


@contextlib.contextmanager
def _mapped(path: pathlib.Path) -> Iterator[mmap.mmap | None]:
    """A file's content; None when it cannot be read, which reading the model will explain better."""
    with contextlib.ExitStack() as stack:
        content = None
        with contextlib.suppress(OSError, ValueError):  # ValueError: an empty file
            file = stack.enter_context(open(path, "rb"))
            content = stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        yield content


def _digest(content: bytes | mmap.mmap) -> bytes:
    """A digest of the digests of the content's chunks, which are made in parallel (hashlib frees Python's lock)."""
    with memoryview(content) as view, concurrent.futures.ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        chunks = [view[i : i + _CHUNK] for i in range(0, len(view), _CHUNK)]
        digests = list(pool.map(lambda chunk: hashlib.blake2b(chunk, digest_size=32).digest(), chunks))
        for chunk in chunks:
            chunk.release()
    return b"".join(digests)
