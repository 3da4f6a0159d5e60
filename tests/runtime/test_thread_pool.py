"""The native thread pool on its own."""

from __future__ import annotations

import concurrent.futures
import ctypes
import os
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest

from polycomp.codegen.elf import link_shared
from polycomp.codegen.llvm.machine import compile_ir
from polycomp.codegen.llvm.pool import POOL_SYMBOLS, pool_ir
from polycomp.runtime.library import Library
from polycomp.target import host_target, parse_target

# count(pool, cells, owners, n, times): every region adds 1 to each of n cells and notes which thread did it.
# nested(pool, cells, n): a region whose chunks start a region over the cells themselves.
DRIVER = """
declare void @polycomp_parallel_for(ptr, ptr, ptr, i64)
define internal void @chunk(ptr %argument, i64 %begin, i64 %end, i64 %thread) {
entry:
  %cells = load ptr, ptr %argument
  %owners.at = getelementptr ptr, ptr %argument, i64 1
  %owners = load ptr, ptr %owners.at
  br label %check
check:
  %i = phi i64 [ %begin, %entry ], [ %i.next, %next ]
  %more = icmp slt i64 %i, %end
  br i1 %more, label %next, label %done
next:
  %cell = getelementptr i64, ptr %cells, i64 %i
  %old = load i64, ptr %cell
  %new = add i64 %old, 1
  store i64 %new, ptr %cell
  %owner = getelementptr i64, ptr %owners, i64 %i
  store i64 %thread, ptr %owner
  %i.next = add i64 %i, 1
  br label %check
done:
  ret void
}
define void @count(ptr %pool, ptr %cells, ptr %owners, i64 %n, i64 %times) {
entry:
  %argument = alloca [2 x ptr]
  store ptr %cells, ptr %argument
  %owners.at = getelementptr ptr, ptr %argument, i64 1
  store ptr %owners, ptr %owners.at
  br label %next
next:
  %i = phi i64 [ 0, %entry ], [ %i.next, %next ]
  call void @polycomp_parallel_for(ptr %pool, ptr @chunk, ptr %argument, i64 %n)
  %i.next = add i64 %i, 1
  %more = icmp slt i64 %i.next, %times
  br i1 %more, label %next, label %done
done:
  ret void
}
define internal void @outer(ptr %argument, i64 %begin, i64 %end, i64 %thread) {
  %pool.at = getelementptr ptr, ptr %argument, i64 2
  %pool = load ptr, ptr %pool.at
  %cells = load ptr, ptr %argument
  %mine = getelementptr i64, ptr %cells, i64 %begin
  %inner = alloca [2 x ptr]
  store ptr %mine, ptr %inner
  %owners.at = getelementptr ptr, ptr %argument, i64 1
  %owners = load ptr, ptr %owners.at
  %mine.owners = getelementptr i64, ptr %owners, i64 %begin
  %inner.owners = getelementptr ptr, ptr %inner, i64 1
  store ptr %mine.owners, ptr %inner.owners
  %n = sub i64 %end, %begin
  call void @polycomp_parallel_for(ptr %pool, ptr @chunk, ptr %inner, i64 %n)
  ret void
}
define void @nested(ptr %pool, ptr %cells, ptr %owners, i64 %n) {
  %argument = alloca [3 x ptr]
  store ptr %cells, ptr %argument
  %owners.at = getelementptr ptr, ptr %argument, i64 1
  store ptr %owners, ptr %owners.at
  %pool.at = getelementptr ptr, ptr %argument, i64 2
  store ptr %pool, ptr %pool.at
  call void @polycomp_parallel_for(ptr %pool, ptr @outer, ptr %argument, i64 %n)
  ret void
}
"""


@pytest.fixture(scope="module")
def shared() -> bytes:
    target = host_target()
    objects = [compile_ir(text, target) for text in (pool_ir(target), DRIVER)]
    return link_shared(objects, [*POOL_SYMBOLS, "count", "nested"])


@pytest.fixture(scope="module")
def library(shared) -> Library:
    return Library(shared, "pool test")


class Pool:
    def __init__(self, library: Library, threads: int) -> None:
        self.library = library
        self.address = library.function("polycomp_pool_create", ctypes.c_void_p)(ctypes.c_int64(threads))

    def __enter__(self):
        assert self.address
        return self

    def __exit__(self, *_):
        self.library.function("polycomp_pool_destroy", None)(ctypes.c_void_p(self.address))

    def view(self, threads: int) -> int:
        """A handle with fewer threads. The caller keeps the array."""
        self.handle = (ctypes.c_int64 * 2)(self.address, threads)
        return ctypes.addressof(self.handle)

    def count(self, n: int, times: int, handle: int | None = None):
        cells, owners = np.zeros(max(n, 1), np.int64), np.full(max(n, 1), -1, np.int64)
        pointers = [ctypes.c_void_p(p) for p in (handle or self.address, cells.ctypes.data, owners.ctypes.data)]
        self.library.function("count", None)(*pointers, ctypes.c_int64(n), ctypes.c_int64(times))
        return cells[:n], owners[:n]


def n_threads(expected: int) -> int:
    """The number of this process's threads, once it is ``expected`` or ten seconds have passed: a thread that has been
    joined stays listed for a moment, until the kernel has taken it off."""
    deadline = time.monotonic() + 10
    while (count := len(os.listdir("/proc/self/task"))) != expected and time.monotonic() < deadline:
        time.sleep(0.001)
    return count


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("n", [0, 1, 2, 3, 7, 8, 9, 1000])
def test_every_index_once_per_region_in_contiguous_chunks(library, threads, n):
    with Pool(library, threads) as pool:
        cells, owners = pool.count(n, 50)
        assert (cells == 50).all()
        parts = min(threads, n)
        sizes = [n // parts + (i < n % parts) for i in range(parts)] if n else []
        assert owners.tolist() == [i for i, size in enumerate(sizes) for _ in range(size)]


def test_many_regions(library):
    with Pool(library, 2) as pool:
        assert (pool.count(5, 20_000)[0] == 20_000).all()


def test_regions_after_the_workers_fell_asleep(library):
    with Pool(library, 4) as pool:
        for _ in range(30):
            time.sleep(0.002)
            assert (pool.count(100, 1)[0] == 1).all()


def test_several_callers_at_once(library):
    with Pool(library, 3) as pool, concurrent.futures.ThreadPoolExecutor(5) as callers:
        for cells, owners in callers.map(lambda i: pool.count(50 + i, 400), range(20)):
            assert (cells == 400).all()
            assert owners.tolist() in ([0] * len(owners), sorted(owners.tolist()))


def test_views_use_fewer_threads(library):
    with Pool(library, 4) as pool:
        for threads in (1, 2, 3, 4):
            cells, owners = pool.count(20, 10, pool.view(threads))
            assert (cells == 10).all()
            assert set(owners.tolist()) == set(range(threads))
            found = library.function("polycomp_pool_threads", ctypes.c_int64)(ctypes.c_void_p(pool.view(threads)))
            assert found == threads


def test_nested_regions_run_serially(library):
    with Pool(library, 3) as pool:
        cells, owners = np.zeros(30, np.int64), np.full(30, -1, np.int64)
        pointers = [ctypes.c_void_p(p) for p in (pool.address, cells.ctypes.data, owners.ctypes.data)]
        library.function("nested", None)(*pointers, ctypes.c_int64(30))
        assert (cells == 1).all()


def test_null_pool(library):
    cells, owners = np.zeros(9, np.int64), np.full(9, -1, np.int64)
    pointers = [ctypes.c_void_p(p) for p in (0, cells.ctypes.data, owners.ctypes.data)]
    library.function("count", None)(*pointers, ctypes.c_int64(9), ctypes.c_int64(3))
    assert (cells == 3).all() and (owners == 0).all()
    assert library.function("polycomp_pool_threads", ctypes.c_int64)(ctypes.c_void_p(0)) == 1
    library.function("polycomp_pool_destroy", None)(ctypes.c_void_p(0))


def test_create_and_destroy_often(library):
    before = len(os.listdir("/proc/self/task"))
    for i in range(150):
        with Pool(library, 1 + i % 5) as pool:
            assert n_threads(before + i % 5) == before + i % 5
            if i % 3:
                assert (pool.count(7, 3)[0] == 3).all()
    assert n_threads(before) == before


def test_odd_thread_counts(library):
    for threads in (0, -3):
        with Pool(library, threads) as pool:
            assert library.function("polycomp_pool_threads", ctypes.c_int64)(ctypes.c_void_p(pool.address)) == 1


def test_workers_block_signals(library):
    with Pool(library, 3):
        own = {str(os.getpid())}
        for task in set(os.listdir("/proc/self/task")) - own:
            status = pathlib.Path(f"/proc/self/task/{task}/status").read_text()
            blocked = int(next(line for line in status.splitlines() if line.startswith("SigBlk")).split()[1], 16)
            if blocked >> 1 & 1:  # SIGINT
                return
    pytest.fail("no worker blocks SIGINT")


def test_creation_failure_cleans_up(shared, tmp_path):
    """With little address space left, the stacks of 200 workers do not fit."""
    path = tmp_path / "pool.so"
    path.write_bytes(shared)
    script = """
import ctypes, os, resource, sys
library = ctypes.CDLL(sys.argv[1])
library.polycomp_pool_create.restype = ctypes.c_void_p
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + (100 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for _ in range(5):
    print(library.polycomp_pool_create(ctypes.c_int64(200)), len(os.listdir("/proc/self/task")))
pool = library.polycomp_pool_create(ctypes.c_int64(3))
print(bool(pool), len(os.listdir("/proc/self/task")))
"""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", script, path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.stdout.splitlines() == ["None 1"] * 5 + ["True 3"], done.stderr


def test_other_machine_compiles():
    arm = parse_target("aarch64-linux-gnu")
    assert link_shared([compile_ir(pool_ir(arm), arm)], POOL_SYMBOLS)[:4] == b"\x7fELF"
