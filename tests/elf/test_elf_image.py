"""The structure of linked modules, for both machines, against the symbols' own addresses and system tools."""

from __future__ import annotations

import ctypes
import shutil
import struct
import subprocess

import pytest
from ir_samples import ARM, FIRST, HOST, SECOND, THIRD

from polycomp.codegen.elf import format as elf
from polycomp.codegen.elf import link_shared
from polycomp.codegen.llvm.machine import compile_ir
from polycomp.codegen.llvm.pool import POOL_SYMBOLS, pool_ir

needs_readelf = pytest.mark.skipif(shutil.which("readelf") is None, reason="readelf is not installed")
needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
needs_qemu = pytest.mark.skipif(
    shutil.which("qemu-aarch64") is None or shutil.which("aarch64-linux-gnu-gcc") is None,
    reason="qemu-aarch64 or aarch64-linux-gnu-gcc is not installed",
)
TARGETS = pytest.mark.parametrize("target", [HOST, ARM], ids=lambda t: t.arch)
EXPORTS = ["f", "choose", *POOL_SYMBOLS]


def link(target) -> bytes:
    texts = (FIRST, SECOND, THIRD, pool_ir(target))
    return link_shared([compile_ir(t, target) for t in texts], EXPORTS, soname="sample.so")


class Parsed:
    """The parts of a shared object that the tests look at."""

    def __init__(self, data: bytes) -> None:
        self.data = memoryview(data)
        header = elf.FileHeader.unpack(self.data)
        size = elf.SECTION_HEADER_BYTES
        offsets = [header.section_offset + i * size for i in range(header.n_sections)]
        self.headers = [elf.SectionHeader.unpack(self.data, o) for o in offsets]
        names = self.headers[header.names_section]
        self.sections = {self.string(names.offset + h.name): h for h in self.headers}
        raw = [struct.unpack_from("<IIQQQQQQ", data, header.program_offset + 56 * i) for i in range(header.n_programs)]
        self.programs = [elf.ProgramHeader(r[0], r[1], r[2], r[3], r[5], r[6], r[7]) for r in raw]

    def string(self, offset: int) -> str:
        text = bytes(self.data[offset:])
        return text[: text.index(0)].decode()

    def symbols(self, table: str) -> dict[str, elf.SymbolEntry]:
        section = self.sections[table]
        strings = self.headers[section.link]
        entries = [elf.SymbolEntry.unpack(self.data, section.offset + o) for o in range(0, section.size, 24)]
        return {self.string(strings.offset + e.name): e for e in entries if e.name}

    def word(self, address: int) -> int:
        load = next(p for p in self.programs if p.type == elf.PT_LOAD and 0 <= address - p.address < p.file_bytes)
        return struct.unpack_from("<I", self.data, load.offset + address - load.address)[0]

    def relocations(self) -> dict[int, elf.RelaEntry]:
        section = self.sections[".rela.dyn"]
        entries = [elf.RelaEntry.unpack(self.data, section.offset + o) for o in range(0, section.size, 24)]
        return {e.offset: e for e in entries}


@TARGETS
def test_segments(target):
    parsed = Parsed(link(target))
    loads = [p for p in parsed.programs if p.type == elf.PT_LOAD]
    page = loads[0].alignment
    assert [p.flags for p in loads] == [elf.PF_R, elf.PF_R | elf.PF_X, elf.PF_R | elf.PF_W, elf.PF_R | elf.PF_W]
    assert all((p.address - p.offset) % page == 0 for p in loads)
    pages = [set(range(p.address // page, (p.address + p.memory_bytes - 1) // page + 1)) for p in loads]
    assert sum(map(len, pages)) == len(set().union(*pages)), "segments share a page"
    stack = next(p for p in parsed.programs if p.type == elf.PT_GNU_STACK)
    assert not stack.flags & elf.PF_X
    relro = next(p for p in parsed.programs if p.type == elf.PT_GNU_RELRO)
    assert (relro.address + relro.memory_bytes) % page == 0
    assert relro.address + relro.memory_bytes <= loads[3].address


@TARGETS
def test_symbols(target):
    parsed = Parsed(link(target))
    dynamic, full = parsed.symbols(".dynsym"), parsed.symbols(".symtab")
    assert {n for n, s in dynamic.items() if s.section != elf.SHN_UNDEF} == set(EXPORTS)
    assert {n for n, s in dynamic.items() if s.section == elf.SHN_UNDEF} >= {"memcpy", "memmove", "pthread_create"}
    assert {"other", "pool_worker", "table", "zeros"} <= full.keys()
    assert all(full[name].value == dynamic[name].value for name in EXPORTS)
    text = parsed.sections[".text"]
    for name in ("f", "other", "choose", "pool_worker"):
        assert text.address <= full[name].value < text.address + text.size
        assert full[name].size > 0
    assert full["choose"].value % 64 == 0


@TARGETS
def test_hash_table_finds_every_symbol(target):
    parsed = Parsed(link(target))
    section = parsed.sections[".hash"]
    words = struct.unpack_from(f"<{section.size // 4}I", parsed.data, section.offset)
    n = words[0]
    names = list(parsed.symbols(".dynsym"))
    for index, name in enumerate(names, 1):
        found = words[2 + elf.sysv_hash(name) % n]
        while found and found != index:
            found = words[2 + n + found]
        assert found == index


def signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> bits - 1 else value


def branch_target(parsed: Parsed, address: int) -> int:
    return address + 4 * signed(parsed.word(address) & 0x3FFFFFF, 26)


def page_target(parsed: Parsed, address: int) -> int:
    """Where an ADRP points."""
    word = parsed.word(address)
    return (address >> 12) + signed((word >> 5 & 0x7FFFF) << 2 | word >> 29 & 3, 21) << 12


def references(parsed: Parsed, symbol: elf.SymbolEntry) -> set[int]:
    """Addresses that a function refers to: by branches with link, and by ADRP with ADD or LDR of the same register."""
    found, bases = set(), {}
    for address in range(symbol.value, symbol.value + symbol.size, 4):
        word = parsed.word(address)
        if word >> 26 in (0b100101, 0b000101):  # BL, B
            found.add(branch_target(parsed, address))
        elif word & 0x9F000000 == 0x90000000:
            bases[word & 31] = page_target(parsed, address)
        elif word & 0xFFC00000 in (0x91000000, 0xF9400000, 0xB9400000, 0x3DC00000) and word >> 5 & 31 in bases:
            scale = {0x91000000: 0, 0xF9400000: 3, 0xB9400000: 2, 0x3DC00000: 4}[word & 0xFFC00000]
            found.add(bases[word >> 5 & 31] + ((word >> 10 & 0xFFF) << scale))
    return found


def test_aarch64_references():
    parsed = Parsed(link(ARM))
    full, got, plt = parsed.symbols(".symtab"), parsed.sections[".got"], parsed.sections[".plt"]
    relocations = parsed.relocations()
    dynamic = list(parsed.symbols(".dynsym"))
    slots = {relocations[a].symbol: a for a in range(got.address, got.address + got.size, 8)}
    stubs = {}
    for stub in range(plt.address, plt.address + plt.size, 16):
        slot = page_target(parsed, stub) + ((parsed.word(stub + 4) >> 10 & 0xFFF) << 3)
        stubs[dynamic[relocations[slot].symbol - 1]] = stub
        assert parsed.word(stub + 8) == 0xD61F0220  # br x17
    assert slots.keys() > {0}, "imports and at least one symbol of the module have slots"
    seen = references(parsed, full["f"])
    assert {full["other"].value, stubs["memcpy"], full["zeros"].value} <= seen
    made = [references(parsed, full[name]) for name in ("polycomp_pool_create", "pool_start") if name in full]
    assert set().union(*made) >= {stubs["aligned_alloc"], stubs["pthread_create"]}
    counters = {a for a, r in relocations.items() if r.symbol == 0 and r.addend == full["counter"].value}
    assert references(parsed, full["other"]) & counters


@TARGETS
@needs_readelf
def test_readelf_has_no_complaints(target, tmp_path):
    path = tmp_path / "sample.so"
    path.write_bytes(link(target))
    done = subprocess.run(["readelf", "-aW", path], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert "Library soname: [sample.so]" in done.stdout
    assert "TEXTREL" not in done.stdout
    assert "RWE" not in done.stdout


@needs_gcc
def test_same_behaviour_as_the_system_linker(tmp_path):
    objects = []
    for i, text in enumerate((FIRST, SECOND, THIRD)):
        objects.append(tmp_path / f"{i}.o")
        objects[-1].write_bytes(compile_ir(text, HOST))
    ours, theirs = tmp_path / "ours.so", tmp_path / "theirs.so"
    ours.write_bytes(link_shared([o.read_bytes() for o in objects], ["f", "choose", "counter"]))
    subprocess.run(["gcc", "-shared", "-nostdlib", "-o", theirs, *objects, "-lc"], check=True)
    results = []
    for path in (ours, theirs):
        library = ctypes.CDLL(str(path))
        source, target = ctypes.create_string_buffer(b"0123456789abcdef"), ctypes.create_string_buffer(4096)
        values = [library.f(i, target, source) for i in (0, 1, 2, 3, 3)]
        values += [library.choose(i, target) for i in (0, 1, 2, 3, 4, 5, -9)]
        results.append((values, ctypes.c_int32.in_dll(library, "counter").value, target.raw))
    assert results[0] == results[1]


@needs_qemu
def test_aarch64_runs_under_qemu(tmp_path):
    library, program, source = tmp_path / "libsample.so", tmp_path / "main", tmp_path / "main.c"
    library.write_bytes(link_shared([compile_ir(t, ARM) for t in (FIRST, SECOND)], ["f"], soname="libsample.so"))
    source.write_text('int f(int, char*, char*); int main() { char d[16]; return f(2, d, "0123456789abcdef"); }')
    subprocess.run(["aarch64-linux-gnu-gcc", "-o", program, source, f"-L{tmp_path}", "-lsample"], check=True)
    command = ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu", "-E", f"LD_LIBRARY_PATH={tmp_path}", program]
    assert subprocess.run(command, check=False).returncode == 54
