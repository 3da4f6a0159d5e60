"""The module file, ``.pcm``: one file that holds all of a module.

Layout, little-endian: a header of 128 bytes, the manifest (JSON), the shared object at a multiple of 64 and the weights
at a multiple of 4096, so that they can be used from the mapped file as they are. Everything in between is zero. The
header ends in a checksum of itself at a place that no version moves, and has a digest of all that follows: the CRC-32
of the CRC-32s of its chunks, so that chunks can be checked in parallel. A CRC finds every change of up to 32
neighbouring bits.

The format's version also stands for the layout of the thread pool that modules share within a process.
"""

from __future__ import annotations

import concurrent.futures
import mmap
import os
import pathlib
import secrets
import stat
import struct
import zlib
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

import numpy as np

from polycomp.errors import ModuleFileError
from polycomp.runtime.image import ModuleImage, ModuleParts
from polycomp.runtime.manifest import parse_manifest
from polycomp.runtime.memory import ALIGNMENT, aligned_copy

FORMAT_VERSION = 1
HEADER_BYTES = 128

_MAGIC = b"\x89PCM\r\n\x1a\n"
_CHUNK = 8 << 20
_PARALLEL = 4 * _CHUNK
_PAGE = 4096
_HEADER = struct.Struct("<8sII6Q")
_HEADER_CHECKSUM = struct.Struct("<I")

Path = str | os.PathLike[str]


class _Header(NamedTuple):
    version: int
    digest: int
    file_bytes: int
    manifest_bytes: int
    object_offset: int
    object_bytes: int
    weights_offset: int
    weights_bytes: int

    def pack(self) -> bytes:
        fields = _HEADER.pack(_MAGIC, *self).ljust(HEADER_BYTES - _HEADER_CHECKSUM.size, b"\0")
        return fields + _HEADER_CHECKSUM.pack(zlib.crc32(fields))


# Reading


def read_module_file(source: Path | bytes | bytearray | memoryview) -> ModuleImage:
    """Map a module file, or copy one held in memory, and check all of it.

    Raises :class:`ModuleFileError` when it cannot be read, is not a module file, is truncated, altered, or of a newer
    format.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        return _image(aligned_copy(source) if len(source) else np.empty(0, np.uint8), "the module")
    label = os.fspath(source)
    try:
        content = _map(label)
    except (OSError, ValueError) as e:
        raise ModuleFileError(f"cannot read module file {label!r}: {_reason(e)}") from e
    return _image(content, label)


def _reason(error: BaseException) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)


def _map(path: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return np.empty(0, np.uint8)
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)


def _image(content: np.ndarray[Any, np.dtype[np.uint8]], label: str) -> ModuleImage:
    view = content.data
    header = _read_header(view, label)
    if _digest(view[HEADER_BYTES:]) != header.digest:
        raise ModuleFileError(f"{label} is damaged: its content does not match its checksum")
    manifest = parse_manifest(bytes(view[HEADER_BYTES : HEADER_BYTES + header.manifest_bytes]), label)
    if manifest.weight_bytes != header.weights_bytes:
        raise ModuleFileError(f"{label} has a malformed manifest: it counts {manifest.weight_bytes} bytes of weights")
    code = view[header.object_offset : header.object_offset + header.object_bytes]
    weights = content[header.weights_offset : header.weights_offset + header.weights_bytes]
    return ModuleImage(manifest, code, weights, label)


def _read_header(view: memoryview, label: str) -> _Header:
    start = bytes(view[:HEADER_BYTES])
    if not start or start[: len(_MAGIC)] != _MAGIC[: len(start)]:
        raise ModuleFileError(f"{label} is not a polycomp module file")
    if len(start) < HEADER_BYTES:
        raise ModuleFileError(f"{label} is truncated: it has {len(start)} bytes, less than a header")
    (checksum,) = _HEADER_CHECKSUM.unpack_from(start, HEADER_BYTES - _HEADER_CHECKSUM.size)
    if zlib.crc32(start[: -_HEADER_CHECKSUM.size]) != checksum:
        raise ModuleFileError(f"{label} is damaged: its header does not match its checksum")
    header = _Header(*_HEADER.unpack_from(start)[1:])
    if header.version != FORMAT_VERSION:
        age = "newer" if header.version > FORMAT_VERSION else "older"
        raise ModuleFileError(
            f"{label} has module format {header.version}, {age} than this polycomp's {FORMAT_VERSION}; "
            + ("install a newer polycomp, or compile the model again" if age == "newer" else "compile the model again")
        )
    _check_extent(header, len(view), label)
    return header


def _check_extent(header: _Header, size: int, label: str) -> None:
    if size < header.file_bytes:
        raise ModuleFileError(f"{label} is truncated: it has {size} of {header.file_bytes} bytes")
    if size > header.file_bytes:
        raise ModuleFileError(f"{label} is damaged: it has {size - header.file_bytes} bytes after its end")
    parts = (
        (HEADER_BYTES, header.manifest_bytes),
        (header.object_offset, header.object_bytes),
        (header.weights_offset, header.weights_bytes),
    )
    if any(offset + length > size or offset < HEADER_BYTES for offset, length in parts):
        raise ModuleFileError(f"{label} is damaged: a part of it lies outside of the file")
    if header.object_offset % ALIGNMENT or header.weights_offset % ALIGNMENT:
        raise ModuleFileError(f"{label} is damaged: a part of it is not aligned")


def _digest(body: memoryview) -> int:
    chunks = [body[i : i + _CHUNK] for i in range(0, len(body), _CHUNK)]
    if len(body) < _PARALLEL:
        return _combine(map(zlib.crc32, chunks))
    with concurrent.futures.ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        return _combine(pool.map(zlib.crc32, chunks))


def _combine(checksums: Iterator[int]) -> int:
    return zlib.crc32(b"".join(_HEADER_CHECKSUM.pack(c) for c in checksums))


# Writing


def write_module_file(path: Path, parts: ModuleParts) -> None:
    """Write a module file; ``path`` appears complete or not at all, and nothing else stays behind.

    Weights are written as they come, so they need not be in memory together. Raises :class:`ModuleFileError` when the
    file cannot be written.
    """
    target = os.path.realpath(os.fspath(path))
    temporary = f"{target}.{secrets.token_hex(6)}.tmp"
    try:
        _check_replaceable(target)
        try:
            _write_new(temporary, parts)
            os.replace(temporary, target)
        except BaseException:
            pathlib.Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as e:
        raise ModuleFileError(f"cannot write module file {os.fspath(path)!r}: {_reason(e)}") from e


def _check_replaceable(target: str) -> None:
    """Refuse to put a file in the place of a folder or a device."""
    if os.path.lexists(target) and not stat.S_ISREG(os.lstat(target).st_mode):
        raise ModuleFileError(f"cannot write module file {target!r}: it exists and is not a regular file")


def _write_new(path: str, parts: ModuleParts) -> None:
    # Not tempfile: its files are for their owner alone, this one has the modes that the user's mask says.
    with open(path, "xb", buffering=0) as file:
        write_module(file, parts)
        os.fsync(file.fileno())


def write_module(file: IO[bytes], parts: ModuleParts) -> None:
    """Write a module to a seekable binary file that is at its beginning."""
    writer = _BodyWriter(file)
    file.write(bytes(HEADER_BYTES))
    manifest = parts.manifest.to_json()
    writer.write(manifest)
    object_offset = writer.pad(ALIGNMENT)
    writer.write(parts.shared_object)
    weights_offset = writer.pad(_PAGE)
    for gap, content in parts.weight_runs():
        writer.zeros(gap)
        writer.write(content)
    header = _Header(
        FORMAT_VERSION, writer.digest(), writer.position, len(manifest), object_offset, len(parts.shared_object),
        weights_offset, parts.manifest.weight_bytes,
    )  # fmt: skip
    file.seek(0)
    file.write(header.pack())


class _BodyWriter:
    """Writes what follows the header, computing its digest on the way."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._checksums: list[int] = []
        self._checksum = 0
        self.position = HEADER_BYTES

    def write(self, data: Any) -> None:
        view = memoryview(data).cast("B") if len(data) else memoryview(b"")
        while view:
            room = _CHUNK - (self.position - HEADER_BYTES) % _CHUNK
            written = self._file.write(view[:room])
            self._checksum = zlib.crc32(view[:written], self._checksum)
            self.position += written
            view = view[written:]
            if written == room:
                self._finish_chunk()

    def _finish_chunk(self) -> None:
        self._checksums.append(self._checksum)
        self._checksum = 0

    def zeros(self, count: int) -> None:
        while count:
            step = min(count, _CHUNK)
            self.write(bytes(step))
            count -= step

    def pad(self, alignment: int) -> int:
        """Fill up to a multiple of ``alignment``; returns the position reached."""
        self.zeros(-self.position % alignment)
        return self.position

    def digest(self) -> int:
        """The digest of everything written; nothing may be written afterwards."""
        if (self.position - HEADER_BYTES) % _CHUNK:
            self._finish_chunk()
        return _combine(iter(self._checksums))
