"""Whole modules kept in the cache by the content of the model's file, so that the second time takes a moment."""

from __future__ import annotations

import contextlib
import importlib.metadata
import mmap
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from polycomp.driver.cache import Cache, key_of
from polycomp.driver.digests import Content, content_digest, file_digest
from polycomp.driver.versions import compiler_version
from polycomp.errors import ModuleFileError
from polycomp.options import Options
from polycomp.runtime import ModuleImage, ModuleParts, read_module_file, write_module_file

if TYPE_CHECKING:
    from polycomp.importers.onnx.reader import ModelLike


def model_key(model: ModelLike, options: Options, cache: Cache) -> str | None:
    """What a module made of ``model`` is kept under; None for a ModelProto, and for a file that cannot be read.

    ``cache`` remembers the digests of large files.
    """
    with _content(model) as (content, file):
        if content is None:
            return None
        digest = content_digest(content) if file is None else file_digest(file, content, cache)
    shapes = repr(sorted(options.shapes.items()))
    settings = (str(options.threads), shapes, options.decisions_key, options.precision_key)
    return key_of(digest, options.target.module_key, *settings, compiler_version(), importlib.metadata.version("onnx"))


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


def keep_module(cache: Cache, key: str, parts: ModuleParts, *, model: ModelLike) -> None:
    """Keep a module, unless it is so large that it would push out most others, or depends on more than ``key`` tells.

    Weights in other files change without the model's own bytes. A tensor that lies elsewhere says so under the key
    "location"; models that hold the word for another reason are merely not kept.
    """
    with _content(model) as (content, _):
        external = content is None or content.find(b"location") >= 0
    if not external:
        keep_parts(cache, key, parts)


def keep_parts(cache: Cache, key: str, parts: ModuleParts) -> None:
    """Keep a module under ``key``, unless it is so large that it would push out most others."""
    if parts.manifest.weight_bytes <= cache.limit // 2:
        cache.put(key, lambda path: write_module_file(path, parts))


@contextlib.contextmanager
def _content(model: ModelLike) -> Iterator[tuple[Content | None, int | None]]:
    """A model's bytes, and the descriptor of their file when they are in one.

    No bytes when it has none, or they cannot be read, which reading the model will explain better.
    """
    with contextlib.ExitStack() as stack:
        content: Content | None = model if isinstance(model, bytes) else None
        descriptor = None
        if isinstance(model, str | pathlib.Path):
            with contextlib.suppress(OSError, ValueError):  # ValueError: an empty file
                file = stack.enter_context(open(model, "rb"))
                content = stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
                descriptor = file.fileno()
        yield content, descriptor
