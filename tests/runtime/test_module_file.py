"""The module file: round trips, every way of being damaged, and writing that fails."""

from __future__ import annotations

import dataclasses
import io
import os
import pathlib
import random
import stat
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from tiny_modules import checked_parts, symbolic_parts

from polycomp.errors import ModuleFileError, PolycompError
from polycomp.runtime import load, load_parts, modulefile, read_module_file, write_module_file
from polycomp.runtime.modulefile import HEADER_BYTES, Header, write_module


@pytest.fixture(scope="module")
def parts():
    return symbolic_parts(maximum=None, threads=2, metadata={"producer": "tests", "größe": [1, 2]})


@pytest.fixture(scope="module")
def content(parts) -> bytes:
    file = io.BytesIO()
    write_module(file, parts)
    return file.getvalue()


def check_runs(module) -> None:
    x = np.arange(30, dtype=np.float32)
    np.testing.assert_array_equal(module.run({"x": x, "y": x})["out"], 3 * x)


def test_round_trip(parts, content, tmp_path):
    first, second = tmp_path / "first.pcm", tmp_path / "second.pcm"
    write_module_file(first, parts)
    module = load(first)
    assert module.manifest == parts.manifest
    assert module.manifest.metadata == {"producer": "tests", "größe": [1, 2]}
    check_runs(module)
    module.save(second)
    assert first.read_bytes() == second.read_bytes() == content
    check_runs(load(str(second), threads=1))
    check_runs(load(content))
    check_runs(load(memoryview(bytearray(content)), threads=2))
    assert sorted(os.listdir(tmp_path)) == ["first.pcm", "second.pcm"]


def test_weights_are_used_from_the_mapped_file(content, tmp_path):
    path = tmp_path / "m.pcm"
    path.write_bytes(content)
    image = read_module_file(path)
    assert image.weights.ctypes.data % 4096 == 0
    assert not image.weights.flags.writeable
    assert str(path) in pathlib.Path("/proc/self/maps").read_text()


def test_save_over_its_own_file(parts, tmp_path):
    path = tmp_path / "m.pcm"
    write_module_file(path, parts)
    module = load(path)
    module.save(path)
    check_runs(module)
    check_runs(load(path))


def test_new_files_have_the_usual_modes_and_links_are_followed(parts, tmp_path):
    path, link = tmp_path / "m.pcm", tmp_path / "link.pcm"
    link.symlink_to(path)
    old = os.umask(0o027)
    try:
        write_module_file(link, parts)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert link.is_symlink()
    check_runs(load(link))


def large_parts(parts, sizes, gap=0):
    """Weights of many chunks, made as they are written."""
    offsets = np.cumsum([0, *(s + gap for s in sizes)])
    manifest = dataclasses.replace(parts.manifest, weight_bytes=int(offsets[-1]))
    weights = ((int(o), np.full(s // 4, i, np.int32)) for i, (o, s) in enumerate(zip(offsets, sizes, strict=False)))
    return dataclasses.replace(parts, manifest=manifest, weights=weights)


def test_large_weights_are_streamed(parts, tmp_path):
    path = tmp_path / "large.pcm"
    sizes = [64, 9 << 20, 30 << 20, 128, 5 << 20]
    write_module_file(path, large_parts(parts, sizes, gap=64))
    weights = read_module_file(path).weights
    position = 0
    for i, size in enumerate(sizes):
        assert (weights[position : position + size].view(np.int32) == i).all()
        assert not weights[position + size : position + size + 64].any()
        position += size + 64
    assert position == weights.nbytes
    with open(path, "r+b") as file:
        file.seek(40 << 20)
        file.write(b"\xff")
    with pytest.raises(ModuleFileError, match=r"large\.pcm is damaged: its content does not match its checksum"):
        load(path)


def test_weights_that_do_not_fit(parts, tmp_path):
    overlapping = dataclasses.replace(parts, weights=[(0, np.zeros(40, np.int8)), (32, np.zeros(8, np.int8))])
    outside = dataclasses.replace(parts, weights=[(parts.manifest.weight_bytes, np.zeros(1, np.int8))])
    for wrong in (overlapping, outside):
        with pytest.raises(ModuleFileError, match="does not fit at"):
            write_module_file(tmp_path / "m.pcm", wrong)
        with pytest.raises(ModuleFileError, match="does not fit at"):
            load_parts(wrong)
    assert os.listdir(tmp_path) == []


def failure(content: bytes) -> str:
    with pytest.raises(ModuleFileError) as caught:
        load(content)
    return str(caught.value)


def test_not_a_module_file(content, tmp_path):
    path = tmp_path / "model.pcm"
    path.write_bytes(b"ONNX, say")
    with pytest.raises(ModuleFileError) as caught:
        load(path)
    assert str(caught.value) == f"{path} is not a polycomp module file; if it is a model, compile it first"
    path.write_bytes(b"")
    with pytest.raises(ModuleFileError, match="is not a polycomp module file; if it is a model, compile it first"):
        load(path)
    assert failure(b"") == "the module is not a polycomp module file; if it is a model, compile it first"


def test_unreadable_files(tmp_path):
    with pytest.raises(ModuleFileError) as caught:
        load(tmp_path / "none.pcm")
    path = str(tmp_path / "none.pcm")
    assert str(caught.value) == f"cannot read module file {path!r}: No such file or directory"
    with pytest.raises(ModuleFileError, match="Is a directory"):
        load(tmp_path)


def test_truncated(content):
    assert failure(content[:100]) == "the module is truncated: it has 100 bytes, less than a header"
    for size in (HEADER_BYTES, 1000, len(content) - 1):
        assert failure(content[:size]) == f"the module is truncated: it has {size} of {len(content)} bytes"
    assert failure(content + b"\0\0") == "the module is damaged: it has 2 bytes after its end"


def with_header(content: bytes, **changes: int) -> bytes:
    return Header.unpack(content)._replace(**changes).pack() + content[HEADER_BYTES:]


def test_other_versions(content):
    assert failure(with_header(content, version=3)) == (
        "the module has module format 3, newer than this polycomp's 2; install a newer polycomp, or compile the model "
        "again"
    )
    assert failure(with_header(content, version=0)) == (
        "the module has module format 0, older than this polycomp's 2; compile the model again"
    )


def test_inconsistent_headers(content):
    header = Header.unpack(content)
    assert "does not match its checksum" in failure(with_header(content, manifest_bytes=header.manifest_bytes - 1))
    assert "does not match its checksum" in failure(with_header(content, object_bytes=header.object_bytes - 1))
    assert "bytes after its end" in failure(with_header(content, weight_bytes=0))
    assert "is truncated" in failure(with_header(content, weight_bytes=2**60))
    start = bytearray(content[: HEADER_BYTES - 4])
    start[100] = 1
    changed = bytes(start) + struct.pack("<I", zlib.crc32(start)) + content[HEADER_BYTES:]
    assert failure(changed) == "the module is damaged: its header has unknown content"


def rebuild(content: bytes, manifest: bytes | None = None, code: bytes | None = None) -> bytes:
    """The file with other parts, and right lengths and checksums."""
    old = Header.unpack(content)
    manifest = content[HEADER_BYTES : HEADER_BYTES + old.manifest_bytes] if manifest is None else manifest
    code = content[old.object_offset : old.object_offset + old.object_bytes] if code is None else code
    header = old._replace(manifest_bytes=len(manifest), object_bytes=len(code))
    body = manifest.ljust(header.object_offset - HEADER_BYTES, b"\0") + code
    body = body.ljust(header.weights_offset - HEADER_BYTES, b"\0") + content[old.weights_offset :]
    digest = modulefile._digest(header, memoryview(body))
    return header._replace(digest=digest).pack() + body


def test_rebuild_is_faithful(content):
    assert rebuild(content) == content


@pytest.mark.parametrize(
    "change",
    [
        lambda text: b"",
        lambda text: b"[]",
        lambda text: b"[" * 90000,
        lambda text: b"{}",
        lambda text: b"\xff" + text[1:],
        lambda text: text.replace(b'"inputs"', b'"input"', 1),
        lambda text: text.replace(b'"float32"', b'"complex"'),
        lambda text: text.replace(b'"dims":["N"]', b'"dims":["M"]', 1),
        lambda text: text.replace(b'"dims":["N"]', b'"dims":[1.5]', 1),
        lambda text: text.replace(b'"dims":["N"]', b'"dims":[{}]', 1),
        lambda text: text.replace(b'"flops":"N"', b'"flops":[]', 1),
        lambda text: text.replace(b'["mul","N",12]', b'["pow","N",9]', 1),
        lambda text: text.replace(b'["mul","N",12]', b'["mul","N"]', 1),
        lambda text: text.replace(b'"minimum":1', b'"minimum":[]', 1),
    ],
)
def test_malformed_manifests(content, change):
    text = content[HEADER_BYTES : HEADER_BYTES + Header.unpack(content).manifest_bytes]
    assert "malformed manifest" in failure(rebuild(content, manifest=change(text)))


def test_weights_that_the_manifest_does_not_count(parts, content):
    manifest = dataclasses.replace(parts.manifest, weight_bytes=64).to_json()
    assert "it counts 64 bytes of weights" in failure(rebuild(content, manifest=manifest))


def test_code_that_does_not_load(content):
    assert "this system does not load its code" in failure(rebuild(content, code=b"\x7fELF nothing"))


def test_every_single_byte_counts():
    file = io.BytesIO()
    write_module(file, checked_parts())
    content = file.getvalue()
    changed = bytearray(content)
    for position in range(len(content)):
        changed[position] ^= 1 << position % 8
        with pytest.raises(ModuleFileError):
            read_module_file(changed)
        changed[position] ^= 1 << position % 8
    read_module_file(changed)


def mutate(content: bytes, source: random.Random) -> bytes:
    data = bytearray(content)
    kind = source.randrange(6)
    if kind == 0:
        del data[source.randrange(len(data)) :]
    elif kind == 1:
        start = source.randrange(len(data))
        del data[start : start + source.randint(1, 300)]
    elif kind == 2:
        start = source.randrange(len(data))
        data[start:start] = source.randbytes(source.randint(1, 300))
    elif kind == 3:
        struct.pack_into(
            "<Q", data, 8 * source.randrange(HEADER_BYTES // 8), source.getrandbits(source.choice([8, 64]))
        )
    elif kind == 4:
        start, end = (source.randrange(len(data)) for _ in range(2))
        size = source.randint(1, 200)
        data[start : start + size] = data[end : end + size]
    else:
        for _ in range(source.randint(1, 20)):
            data[source.randrange(len(data))] = source.randrange(256)
    return bytes(data)


def test_mutated_files_never_crash(content):
    """Half of them get a right checksum in the header, so that the checks behind it are reached too."""
    source = random.Random(20240607)
    outcomes = {"refused": 0, "unchanged": 0}
    for i in range(3000):
        data = mutate(content, source)
        if i % 2 and len(data) >= HEADER_BYTES:
            start = data[: HEADER_BYTES - 4]
            data = start + struct.pack("<I", zlib.crc32(start)) + data[HEADER_BYTES:]
        try:
            module = load(data, threads=1)
        except PolycompError:
            outcomes["refused"] += 1
            continue
        assert data == content
        check_runs(module)
        outcomes["unchanged"] += 1
    assert outcomes["refused"] > 2900


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_read_only_folder(parts, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ModuleFileError, match="Permission denied"):
        write_module_file(tmp_path / "m.pcm", parts)


def test_places_that_cannot_be_written(parts, tmp_path):
    with pytest.raises(ModuleFileError, match=r"cannot write module file '.*': No such file or directory"):
        write_module_file(tmp_path / "none" / "m.pcm", parts)
    with pytest.raises(ModuleFileError, match="is not a regular file"):
        write_module_file(tmp_path, parts)
    with pytest.raises(ModuleFileError, match="is not a regular file"):
        write_module_file("/dev/null", parts)
    assert os.listdir(tmp_path) == []


def test_a_full_disk_leaves_the_old_file(parts, content, tmp_path):
    path = tmp_path / "m.pcm"
    path.write_bytes(content)
    script = """
import resource, signal, sys
import polycomp.runtime as runtime
module = runtime.load(sys.argv[1], threads=1)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    module.save(sys.argv[1])
except runtime.module.ModuleFileError as e:
    print(e)
"""
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout == f"cannot write module file {str(path)!r}: File too large\n"
    assert os.listdir(tmp_path) == ["m.pcm"]
    assert path.read_bytes() == content


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_interrupted_writing_leaves_nothing(parts, tmp_path, error):
    def weights():
        yield 0, np.zeros(64, np.int8)
        raise error

    with pytest.raises(error):
        write_module_file(tmp_path / "m.pcm", dataclasses.replace(parts, weights=weights()))
    assert os.listdir(tmp_path) == []
