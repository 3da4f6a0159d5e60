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
from polycomp.graph import Graph, to_text
from polycomp.importers.onnx.reader import ModelLike
from polycomp.options import Options
from polycomp.runtime import ModuleImage, ModuleParts, read_module_file, write_module_file

_CHUNK = 16 << 20


def model_key(model: ModelLike, options: Options) -> str | None:
    """What a module made of ``model`` is kept under; None for a ModelProto, and for a file that cannot be read."""
    with _content(model) as content:
        if content is None:
            return None
        digest = _digest(content)
    shapes = repr(sorted(options.shapes.items()))
    versions = (compiler_version(), importlib.metadata.version("onnx"))
    return key_of(digest, options.target.key, str(options.threads), shapes, *versions)


def graph_key(graph: Graph, options: Options) -> str:
    """What a module made of ``graph`` is kept under: its text and the content of its constants."""
    constants = [part for array in graph.constants.values() for part in (str(array.dtype), _digest(array.tobytes()))]
    sources = "\n".join(source for node in graph.nodes for source in node.sources)
    text = (to_text(graph), sources, options.target.key, str(options.threads), compiler_version())
    return key_of("graph", *text, *constants)


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


def keep_module(cache: Cache, key: str, model: ModelLike, parts: ModuleParts) -> None:
    """Keep a module, unless it is so large that it would push out most others, or depends on more than ``key`` tells.

    Weights in other files change without the model's own bytes. A tensor that lies elsewhere says so under the key
    "location"; models that hold the word for another reason are merely not kept.
    """
    with _content(model) as content:
        external = content is None or content.find(b"location") >= 0
    if not external:
        keep_parts(cache, key, parts)


def keep_parts(cache: Cache, key: str, parts: ModuleParts) -> None:
    """Keep a module under ``key``, unless it is so large that it would push out most others."""
    if parts.manifest.weight_bytes <= cache.limit // 2:
        cache.put(key, lambda path: write_module_file(path, parts))


@contextlib.contextmanager
def _content(model: ModelLike) -> Iterator[bytes | mmap.mmap | None]:
    """A model's bytes; None when it has none, or they cannot be read, which reading the model will explain better."""
    with contextlib.ExitStack() as stack:
        content: bytes | mmap.mmap | None = model if isinstance(model, bytes) else None
        if isinstance(model, str | pathlib.Path):
            with contextlib.suppress(OSError, ValueError):  # ValueError: an empty file
                file = stack.enter_context(open(model, "rb"))
                content = stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        yield content


def _digest(content: bytes | mmap.mmap) -> bytes:
    """A digest of the digests of the content's chunks, which are made in parallel (hashlib frees Python's lock)."""
    if len(content) <= _CHUNK:
        return hashlib.blake2b(content, digest_size=32).digest()
    with memoryview(content) as view, concurrent.futures.ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        chunks = [view[i : i + _CHUNK] for i in range(0, len(view), _CHUNK)]
        digests = list(pool.map(lambda chunk: hashlib.blake2b(chunk, digest_size=32).digest(), chunks))
        for chunk in chunks:
            chunk.release()
    return b"".join(digests)
