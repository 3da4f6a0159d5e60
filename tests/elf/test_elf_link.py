"""Linking objects and calling what comes out."""

from __future__ import annotations

import ctypes
import itertools
import random
import struct

import numpy as np
import pytest
from ir_samples import ARM, FIRST, HOST, SECOND, STRONG_ANSWER, THIRD

from polycomp.codegen.elf import format as elf
from polycomp.codegen.elf import link_shared
from polycomp.codegen.elf.reader import read_object
from polycomp.codegen.llvm.machine import compile_ir
from polycomp.errors import LinkError

_numbers = itertools.count()


@pytest.fixture
def load(tmp_path):
    def load_bytes(shared: bytes) -> ctypes.CDLL:
        path = tmp_path / f"lib{next(_numbers)}.so"
        path.write_bytes(shared)
        return ctypes.CDLL(str(path))

    return load_bytes


@pytest.mark.parametrize("optimise", [True, False])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_objects_with_data_and_imports(load, optimise, order):
    objects = [compile_ir(text, HOST, optimise) for text in (FIRST, SECOND)]
    library = load(link_shared([objects[i] for i in order], ["f", "counter"]))
    source, target = ctypes.create_string_buffer(b"0123456789abcdef"), ctypes.create_string_buffer(16)
    assert library.f(2, target, source) == (40 + 7) + 7
    assert target.raw == b"0123456789abcdef"
    assert ctypes.c_int32.in_dll(library, "counter").value == 100
    assert library.f(2, target, source) == (40 + 100) + 100 + 5


@pytest.mark.parametrize("optimise", [True, False])
def test_jump_table_constants_common_and_weak(load, optimise):
    library = load(link_shared([compile_ir(THIRD, HOST, optimise)], ["choose", "answer"]))
    data = np.zeros(4096, np.uint8)
    choose = lambda i: library.choose(i, ctypes.c_void_p(data.ctypes.data))  # noqa: E731
    assert choose(0) == 10
    assert data[:16].view(np.float32).tolist() == [1.0, 2.5, -3.0, 4.0]
    assert choose(3) == 13
    assert data[:4].view(np.float32)[0] == np.float32(np.pi / 2)
    assert choose(1) == 11 and (data == 7).all()
    assert choose(9) == -1
    assert choose(2) == 12
    assert data[:32].view(np.int64).tolist() == [0, 0, 77, 0]
    assert choose(4) == 41
    assert ctypes.cast(library.choose, ctypes.c_void_p).value % 64 == 0


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_strong_definition_beats_weak(load, order):
    objects = [compile_ir(THIRD, HOST, False), compile_ir(STRONG_ANSWER, HOST)]
    library = load(link_shared([objects[i] for i in order], ["choose", "answer"]))
    assert library.answer() == 42
    assert library.choose(4, None) == 42


def test_alignment_of_merged_sections(load):
    text = """
    @a = global i8 1
    @b = global i8 2, align 128
    define void @f() align 64 { ret void }
    define void @g() { ret void }
    """
    shared = link_shared([compile_ir(text, HOST), compile_ir(text.replace("@", "@other."), HOST)], ["b", "other.b"])
    library = load(shared)
    for name, value in (("b", 2), ("other.b", 2)):
        variable = ctypes.c_int8.in_dll(library, name)
        assert variable.value == value
        assert ctypes.addressof(variable) % 128 == 0


def test_only_exports_are_visible(load):
    library = load(link_shared([compile_ir(t, HOST) for t in (FIRST, SECOND)], ["f"]))
    with pytest.raises(AttributeError):
        library.other  # noqa: B018


def test_many_small_objects(load):
    objects = [
        compile_ir(f"define i32 @f{i}(i32 %x) {{ %y = mul i32 %x, {i + 2}\n ret i32 %y }}", HOST) for i in range(40)
    ]
    library = load(link_shared(objects, [f"f{i}" for i in range(40)]))
    assert [getattr(library, f"f{i}")(3) for i in range(40)] == [3 * (i + 2) for i in range(40)]


def failure(objects, exports=(), **options):
    with pytest.raises(LinkError) as caught:
        link_shared(objects, exports, **options)
    return str(caught.value)


def test_undefined_symbols_are_named_together():
    text = "declare float @expf(float)\ndeclare float @tanhf(float)\n" + "".join(
        f"define float @f{i}(float %x) {{ %y = call float @{name}(float %x)\n ret float %y }}\n"
        for i, name in enumerate(("expf", "tanhf"))
    )
    message = failure([compile_ir(text, HOST)], ["f0"], labels=["kernel softmax"])
    assert message == (
        "undefined symbols that modules may not import: expf (used in kernel softmax), tanhf (used in kernel softmax)"
    )


def test_duplicate_global():
    objects = [compile_ir(STRONG_ANSWER, HOST)] * 2
    assert failure(objects, labels=["one", "two"]) == "symbol 'answer' is defined in both one and two"


def test_missing_export():
    assert "no object defines g, h" in failure([compile_ir(STRONG_ANSWER, HOST)], ["answer", "g", "h"])


def test_thread_local_data_is_refused():
    text = "@t = thread_local global i32 5\ndefine ptr @f() { ret ptr null }"
    assert "section '.tdata'" in failure([compile_ir(text, HOST)])


def test_constructors_are_refused():
    text = """
    @llvm.global_ctors = appending global [1 x { i32, ptr, ptr }] [{ i32, ptr, ptr } { i32 1, ptr @f, ptr null }]
    define void @f() { ret void }
    """
    message = failure([compile_ir(text, HOST, optimise=False)], labels=["kernel k"])
    assert message.startswith("kernel k has section '.")


def test_unknown_relocation_is_named():
    data = bytearray(compile_ir(FIRST, HOST))
    count = 0
    for offset in range(0, len(data) - 24, 8):
        info = struct.unpack_from("<QQq", data, offset)[1]
        if info & 0xFFFFFFFF == 4 and 0 < info >> 32 < 20:  # R_X86_64_PLT32
            struct.pack_into("<I", data, offset + 8, 99)
            count += 1
    assert count
    assert "relocation type 99 of x86-64 in section '.text'" in failure([bytes(data), compile_ir(SECOND, HOST)], ["f"])


def test_objects_of_two_machines():
    assert "2 machines" in failure([compile_ir(STRONG_ANSWER, t) for t in (HOST, ARM)])


def test_not_objects():
    assert failure([]) == "nothing to link"
    assert failure([b"hello"]) == "object 0 is not an ELF64 object"
    shared = link_shared([compile_ir(STRONG_ANSWER, HOST)], ["answer"])
    assert "not a relocatable object" in failure([shared])


def test_damaged_objects_never_raise_anything_else():
    data = compile_ir(FIRST, HOST)
    source = random.Random(7)
    for size in range(0, len(data), 13):
        with pytest.raises(LinkError):
            link_shared([data[:size]], ["f"], imports=frozenset(["memcpy", "other"]))
    for _ in range(500):
        changed = bytearray(data)
        for _ in range(source.randint(1, 4)):
            changed[source.randrange(len(changed))] = source.randrange(256)
        try:
            link_shared([bytes(changed)], ["f"], imports=frozenset(["memcpy", "other"]))
        except LinkError:
            continue


def test_reader_keeps_what_llvm_wrote():
    found = read_object(compile_ir(FIRST, HOST), "x")
    assert found.machine == elf.EM_X86_64
    assert {s.name for s in found.symbols} >= {"table", "counter", "f", "memcpy", "other"}
    assert ".eh_frame" not in {s.name for s in found.sections.values()}
