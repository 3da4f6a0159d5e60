"""Loops of dot products: every machine's instruction gives the exact sum, of extreme values too."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_runner import TARGETS, Kernel, block, loop

from polycomp.codegen.llvm.emit import emit_kernel
from polycomp.codegen.llvm.machine import assembly
from polycomp.dtypes import DType, as_dtype
from polycomp.expr import Expr, Load, Var, cast, compare, const
from polycomp.loops import Buffer, If, LoopKind, LoopNest, Stmt, Store
from polycomp.loops.interpreter import interpret
from polycomp.target import Target, parse_target

K, J, Q = Var("k"), Var("j"), Var("q")
SIGNS = [(a, b) for a in ("int8", "uint8") for b in ("int8", "uint8")]
VNNI = "x86_64-linux-gnu,features=avx2+fma+avx512f+avx512bw+avx512cd+avx512dq+avx512vl+avx512vnni"


def product(
    first: str, second: str, lanes: int, depth: int = 3, below: int | None = None, both: bool = False
) -> LoopNest:
    """``c[j] += a[k, q] * b[k, j, q]`` for four q (``a[k, j, q]`` when ``both``), where ``j < below``."""
    a = Buffer("a", as_dtype(first), (depth, lanes, 4) if both else (depth, 4), alignment=1)
    b = Buffer("b", as_dtype(second), (depth, lanes, 4), alignment=1)
    c = Buffer("c", DType.INT32, (lanes,))
    left: tuple[Expr, ...] = (K, J, Q) if both else (K, Q)
    value = cast(DType.INT32, Load(a, left)) * cast(DType.INT32, Load(b, (K, J, Q)))
    update = loop(Q, 4, Store(c, (J,), value, "sum"), LoopKind.DOT)
    masked = update if below is None else If(compare("lt", J, below), update)
    return summed(loop(K, depth, loop(J, lanes, masked, LoopKind.VECTOR)), a, b, c)


def summed(updates: Stmt, a: Buffer, b: Buffer, c: Buffer) -> LoopNest:
    start = loop(J, c.shape[0], Store(c, (J,), const(0, DType.INT32)), LoopKind.VECTOR)
    return LoopNest("product", (), (a, b), (c,), block(start, updates))


def extremes(buffer: Buffer, seed: int) -> np.ndarray:
    """Random bytes, a third of them the smallest and a third the largest."""
    limits, random = np.iinfo(buffer.dtype.numpy), np.random.default_rng(seed)
    values = random.integers(limits.min, limits.max + 1, buffer.shape)
    which = random.integers(0, 3, buffer.shape)
    return np.where(which == 0, limits.min, np.where(which == 1, limits.max, values)).astype(buffer.dtype.numpy)


@pytest.mark.parametrize("target", [*TARGETS.values(), None], ids=[*TARGETS, "vnni"])
@pytest.mark.parametrize(("first", "second"), SIGNS)
def test_sums_are_exact(first: str, second: str, target: Target | None) -> None:
    if target is None:
        target = parse_target(VNNI)
        if not set(target.features) <= set(TARGETS["host"].features):
            pytest.skip("this machine has no VNNI")
    for lanes, below, both in ((32, None, False), (5, None, True), (48, 37, False), (1, None, False), (20, 3, True)):
        nest = product(first, second, lanes, below=below, both=both)
        inputs = [extremes(b, i) for i, b in enumerate(nest.inputs)]
        (wanted,) = interpret(nest, inputs, {})
        (got,), _ = Kernel(nest, target)(*inputs)
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize(("first", "second"), [(255, -128), (-128, -128), (255, 255), (127, -128)])
def test_the_largest_products_do_not_saturate(first: int, second: int) -> None:
    types = ["uint8" if v > 127 else "int8" for v in (first, second)]
    for target in TARGETS.values():
        nest = product(*types, lanes=16, depth=2)
        inputs = [np.full(b.shape, v, b.dtype.numpy) for b, v in zip(nest.inputs, (first, second), strict=True)]
        (got,), _ = Kernel(nest, target)(*inputs)
        np.testing.assert_array_equal(got, 8 * first * second)


@pytest.mark.parametrize(
    ("target", "types", "instruction"),
    [
        (VNNI, ("uint8", "int8"), "vpdpbusd"),
        (VNNI, ("int8", "uint8"), "vpdpbusd"),
        (VNNI, ("int8", "int8"), "vpmaddwd"),
        ("x86_64-linux-gnu,features=avx2+fma", ("uint8", "int8"), "vpmaddwd"),
        ("x86_64-linux-gnu,features=sse2", ("uint8", "uint8"), "pmaddwd"),
        ("aarch64-linux-gnu,cpu=cortex-a76", ("int8", "int8"), "sdot"),
        ("aarch64-linux-gnu,cpu=cortex-a76", ("uint8", "uint8"), "udot"),
        ("aarch64-linux-gnu,cpu=cortex-a72", ("int8", "int8"), "mla"),
    ],
)
def test_the_machine_has_an_instruction(target: str, types: tuple[str, str], instruction: str) -> None:
    found = parse_target(target)
    code = assembly(emit_kernel(product(*types, lanes=32), found).ir, found)
    assert any(line.split()[:1] == [instruction] for line in code.splitlines())
    assert "maddubs" not in code  # it saturates


def test_other_loops_are_unrolled() -> None:
    """Products of which the elements are not neighbours, or that are no bytes."""
    a, b = Buffer("a", DType.INT8, (4, 3)), Buffer("b", DType.INT8, (4, 8))
    c = Buffer("c", DType.INT32, (8,))
    value = cast(DType.INT32, Load(a, (Q, K))) * cast(DType.INT32, Load(b, (Q, J)))
    update = loop(Q, 4, Store(c, (J,), value, "sum"), LoopKind.DOT)
    nest = summed(loop(K, 3, loop(J, 8, update, LoopKind.VECTOR)), a, b, c)
    inputs = [extremes(x, 3) for x in (a, b)]
    (wanted,) = interpret(nest, inputs, {})
    (got,), _ = Kernel(nest)(*inputs)
    np.testing.assert_array_equal(got, wanted)
