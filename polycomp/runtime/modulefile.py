"""The module file, ``.pcm``: one file that holds all of a module.

Layout, little-endian: a header of 128 bytes, the manifest (JSON), the shared object at the next multiple of 64 and the
weights at the next multiple of 4096, so that they can be used from the mapped file as they are. Everything in between
is zero. The header ends in a checksum of itself at a place that no version moves, and has a digest of the parts'
lengths and of all that follows: a CRC-32 of CRC-32s of chunks, so that chunks can be checked in parallel. A CRC finds
every change of up to 32 neighbouring bits.

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
from collections.abc import Iterable
from typing import IO, Any, NamedTuple

import numpy as np

from polycomp.errors import ModuleFileError
from polycomp.runtime.image import ModuleImage, ModuleParts
from polycomp.runtime.manifest import parse_manifest
from polycomp.runtime.memory import Bytes, aligned_copy
from polycomp.target import ALIGNMENT

FORMAT_VERSION = 2
HEADER_BYTES = 128

_MAGIC = b"\x89PCM\r\n\x1a\n"
_CHUNK = 8 << 20
_PARALLEL = 4 * _CHUNK
_PAGE = 4096
_HEADER = struct.Struct("<8sII3Q")
_LENGTHS = struct.Struct("<3Q")
_CHECKSUM = struct.Struct("<I")

Path = str | os.PathLike[str]


class Header(NamedTuple):
    """The header's fields; lengths are in bytes."""

    version: int
    digest: int
    manifest_bytes: int
    object_bytes: int
    weight_bytes: int

    @property
    def object_offset(self) -> int:
        return _align(HEADER_BYTES + self.manifest_bytes, ALIGNMENT)

    @property
    def weights_offset(self) -> int:
        return _align(self.object_offset + self.object_bytes, _PAGE)

    @property
    def file_bytes(self) -> int:
        return self.weights_offset + self.weight_bytes

    def pack(self) -> bytes:
        fields = _HEADER.pack(_MAGIC, *self).ljust(HEADER_BYTES - _CHECKSUM.size, b"\0")
        return fields + _CHECKSUM.pack(zlib.crc32(fields))

    @classmethod
    def unpack(cls, data: bytes) -> Header:
        return cls(*_HEADER.unpack_from(data)[1:])


def _align(position: int, alignment: int) -> int:
    return -(-position // alignment) * alignment


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


def _map(path: str) -> Bytes:
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return np.empty(0, np.uint8)
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)


def _image(content: Bytes, label: str) -> ModuleImage:
    view = content.data
    header = _read_header(view, label)
    if _digest(header, view[HEADER_BYTES:]) != header.digest:
        raise ModuleFileError(f"{label} is damaged: its content does not match its checksum")
    manifest = parse_manifest(bytes(view[HEADER_BYTES : HEADER_BYTES + header.manifest_bytes]), label)
    if manifest.weight_bytes != header.weight_bytes:
        raise ModuleFileError(f"{label} has a malformed manifest: it counts {manifest.weight_bytes} bytes of weights")
    code = view[header.object_offset : header.object_offset + header.object_bytes]
    return ModuleImage(manifest, code, content[header.weights_offset :], label)


def _read_header(view: memoryview, label: str) -> Header:
    start = bytes(view[:HEADER_BYTES])
    if not start or start[: len(_MAGIC)] != _MAGIC[: len(start)]:
        raise ModuleFileError(f"{label} is not a polycomp module file; if it is a model, compile it first")
    if len(start) < HEADER_BYTES:
        raise ModuleFileError(f"{label} is truncated: it has {len(start)} bytes, less than a header")
    if _CHECKSUM.pack(zlib.crc32(start[: -_CHECKSUM.size])) != start[-_CHECKSUM.size :]:
        raise ModuleFileError(f"{label} is damaged: its header does not match its checksum")
    header = Header.unpack(start)
    _check_version(header.version, label)
    if header.pack() != start:
        raise ModuleFileError(f"{label} is damaged: its header has unknown content")
    if len(view) < header.file_bytes:
        raise ModuleFileError(f"{label} is truncated: it has {len(view)} of {header.file_bytes} bytes")
    if len(view) > header.file_bytes:
        raise ModuleFileError(f"{label} is damaged: it has {len(view) - header.file_bytes} bytes after its end")
    return header


def _check_version(version: int, label: str) -> None:
    known = f"{label} has module format {version}, {{}} than this polycomp's {FORMAT_VERSION}; {{}}"
    if version > FORMAT_VERSION:
        raise ModuleFileError(known.format("newer", "install a newer polycomp, or compile the model again"))
    if version < FORMAT_VERSION:
        raise ModuleFileError(known.format("older", "compile the model again"))


def _digest(header: Header, body: memoryview) -> int:
    """The digest of a file with these lengths, whose content after the header is ``body``."""
    chunks = [body[i : i + _CHUNK] for i in range(0, len(body), _CHUNK)]
    if len(body) < _PARALLEL:
        return _combine(header, map(zlib.crc32, chunks))
    with concurrent.futures.ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        return _combine(header, pool.map(zlib.crc32, chunks))


def _combine(header: Header, checksums: Iterable[int]) -> int:
    lengths = _LENGTHS.pack(header.manifest_bytes, header.object_bytes, header.weight_bytes)
    return zlib.crc32(lengths + b"".join(map(_CHECKSUM.pack, checksums)))


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
    manifest = parts.manifest.to_json()
    header = Header(FORMAT_VERSION, 0, len(manifest), len(parts.shared_object), parts.manifest.weight_bytes)
    file.write(bytes(HEADER_BYTES))
    writer = _BodyWriter(file)
    writer.write(manifest)
    writer.zeros(header.object_offset - writer.position)
    writer.write(parts.shared_object)
    writer.zeros(header.weights_offset - writer.position)
    for gap, content in parts.weight_runs():
        writer.zeros(gap)
        writer.write(content)
    file.seek(0)
    file.write(header._replace(digest=_combine(header, writer.checksums())).pack())


class _BodyWriter:
    """Writes what follows the header, computing its checksums on the way."""

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

    def checksums(self) -> list[int]:
        """Those of all chunks; nothing may be written afterwards."""
        if (self.position - HEADER_BYTES) % _CHUNK:
            self._finish_chunk()
        return self._checksums
