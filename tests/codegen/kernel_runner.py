"""Builds a loop nest into a shared object, calls it with numpy arrays, and makes small nests by hand."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import mmap
import tempfile
from collections.abc import Mapping, Sequence

import numpy as np

from polycomp.codegen.elf import link_shared
from polycomp.codegen.llvm.emit import emit_kernel
from polycomp.codegen.llvm.machine import compile_ir
from polycomp.codegen.llvm.pool import POOL_SYMBOLS, pool_ir
from polycomp.dtypes import DType
from polycomp.expr import Expr, Var, const, simplify, substitute, wrap
from polycomp.loops import Block, Buffer, For, LoopKind, LoopNest, Stmt, Store
from polycomp.loops.interpreter import interpret
from polycomp.target import Target, host_target, parse_target

HOST = host_target()
AVX2 = parse_target("x86_64-linux-gnu,features=avx2+fma+f16c")
PLAIN = parse_target("x86_64-linux-gnu,features=sse2")
TARGETS = {"host": HOST, "avx2": AVX2, "sse2": PLAIN}


@functools.cache
def _pool_object(target: Target) -> bytes:
    return compile_ir(pool_ir(target), target)


class Kernel:
    """A compiled nest. ``threads == 0`` runs without a pool."""

    def __init__(self, nest: LoopNest, target: Target = HOST, threads: int = 0) -> None:
        emitted = emit_kernel(nest, target)
        objects = [compile_ir(emitted.ir, target), _pool_object(target)]
        # glibc takes two libraries of one soname or path for the same one.
        soname = hashlib.sha256(emitted.ir.encode() + target.key.encode()).hexdigest()
        image = link_shared(objects, [nest.name, *POOL_SYMBOLS], soname=soname)
        with tempfile.NamedTemporaryFile(suffix=".so") as file:
            file.write(image)
            file.flush()
            self.library = ctypes.CDLL(file.name)
        self.nest, self.workspace, self.threads = nest, emitted.workspace, threads

    def __call__(self, *inputs: np.ndarray, sizes: Mapping[str, int] | None = None) -> tuple[list[np.ndarray], int]:
        """The outputs, and the status word afterwards."""
        sizes = sizes or {}
        known = {v: const(sizes[v.name]) for v in self.nest.sizes}
        arrays = [
            aligned(np.ascontiguousarray(x, b.dtype.numpy)) for x, b in zip(inputs, self.nest.inputs, strict=True)
        ]
        outputs = [aligned(filler(tuple(extent(d, known) for d in b.shape), b.dtype)) for b in self.nest.outputs]
        scratch = extent(self.workspace.shared, known) + max(1, self.threads) * extent(self.workspace.per_thread, known)
        workspace = aligned(np.full(max(scratch, 64), 0xEE, np.uint8))
        self._call([*arrays, *outputs], [sizes[v.name] for v in self.nest.sizes], workspace)
        return outputs, self.status

    def _call(self, arrays: Sequence[np.ndarray], sizes: Sequence[int], workspace: np.ndarray) -> None:
        create = self.library.polycomp_pool_create
        create.restype, create.argtypes = ctypes.c_void_p, [ctypes.c_int64]
        pool = create(self.threads) if self.threads else None
        context = (ctypes.c_int64 * 6)(pool or 0)
        arguments = [ctypes.c_void_p(a.ctypes.data) for a in arrays] + [ctypes.c_int64(s) for s in sizes]
        getattr(self.library, self.nest.name)(
            *arguments, ctypes.c_void_p(workspace.ctypes.data), ctypes.c_void_p(ctypes.addressof(context))
        )
        self.status = context[1]
        if pool:
            self.library.polycomp_pool_destroy(ctypes.c_void_p(pool))


def extent(dim: int | Expr, known: Mapping[Var, Expr]) -> int:
    """The value of a size."""
    return int(simplify(substitute(wrap(dim), known)).value)


def aligned(array: np.ndarray) -> np.ndarray:
    """A copy at a multiple of 64 that ends (but for that) at a page which may not be touched, as starts the first."""
    page = mmap.PAGESIZE
    inner = -(-max(array.nbytes, 1) // page) * page
    memory = mmap.mmap(-1, inner + 2 * page)
    bytes_ = np.frombuffer(memory, np.uint8)
    libc = ctypes.CDLL(None)
    for guard in (0, page + inner):
        assert libc.mprotect(ctypes.c_void_p(bytes_.ctypes.data + guard), ctypes.c_size_t(page), 0) == 0
    first = page + (inner - array.nbytes) // 64 * 64
    copy = bytes_[first : first + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def filler(shape: tuple[int, ...], dtype: DType) -> np.ndarray:
    """What untouched memory looks like."""
    return np.full(shape, 1 if dtype is DType.BOOL else 77, dtype.numpy)


def loop(var: Var, extent_: int | Expr, body: Stmt, kind: LoopKind = LoopKind.SERIAL) -> For:
    return For(var, const(0), wrap(extent_), kind, body)


def block(*stmts: Stmt) -> Block:
    return Block(stmts)


def elementwise(name: str, inputs: Sequence[Buffer], output: Buffer, value: Expr, var: Var, lanes: int) -> LoopNest:
    """``output[var] = value`` for all elements, in vectors of ``lanes`` and a scalar tail."""
    count = int(output.shape[0])
    whole = count // lanes
    outer, lane, tail = Var("outer"), Var("lane"), Var("tail")

    def store(at: Expr) -> Store:
        return Store(output, (at,), substitute(value, {var: at}), source="elementwise")

    vectors = loop(outer, whole, loop(lane, lanes, store(outer * lanes + lane), LoopKind.VECTOR))
    rest = For(tail, const(whole * lanes), const(count), LoopKind.SERIAL, store(tail))
    return LoopNest(name, (), tuple(inputs), (output,), block(vectors, rest))


def assert_like_interpreter(
    nest: LoopNest, *inputs: np.ndarray, sizes: Mapping[str, int] | None = None, threads: int = 0, rtol: float = 1e-6
) -> None:
    """The kernel gives what the interpreter gives, with AVX-512 (where the host has it) and with AVX2."""
    expected = interpret(nest, inputs, sizes or {})
    for target in (HOST, AVX2):
        results, status = Kernel(nest, target, threads)(*inputs, sizes=sizes)
        assert status == 0
        for result, wanted in zip(results, expected, strict=True):
            np.testing.assert_allclose(result, wanted, rtol=rtol, atol=0)
