"""Sizes as native code, as the manifest keeps them, and by Python's own arithmetic."""

from __future__ import annotations

import ctypes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_modules import ADD, kernel

from polycomp.codegen.elf import link_shared
from polycomp.codegen.llvm.entry import ENTRY_SYMBOLS, entry_ir
from polycomp.codegen.llvm.machine import compile_ir
from polycomp.driver.link import link_program
from polycomp.driver.manifest import ModuleInfo, dimension, make_manifest
from polycomp.dtypes import DType
from polycomp.errors import CompileError
from polycomp.expr import Binary, Cast, Compare, Const, Expr, Select, Unary, Var, cast, const
from polycomp.graph.ir import TensorType
from polycomp.loops.program import Operand, Program, Step, Storage, Workspace
from polycomp.runtime import dims
from polycomp.runtime.library import Library
from polycomp.target import host_target, parse_target

M, N = Var("M"), Var("N")


def evaluate(e: Expr, values: dict[Var, int]) -> int:
    """The meaning of an expression, written independently of the code under test."""
    match e:
        case Const():
            return int(e.value)
        case Var():
            return values[e]
        case Unary(op="neg"):
            return -evaluate(e.operand, values)
        case Unary(op="not"):
            value = evaluate(e.operand, values)
            return 1 - value if e.dtype is DType.BOOL else ~value
        case Cast():
            return evaluate(e.operand, values)
        case Select():
            return evaluate(e.on_true if evaluate(e.condition, values) else e.on_false, values)
    a, b = evaluate(e.left, values), evaluate(e.right, values)
    exact = abs(a) // abs(b or 1) * (1 if a * (b or 1) >= 0 else -1)
    results = {
        "add": a + b, "sub": a - b, "mul": a * b, "min": min(a, b), "max": max(a, b),
        "floordiv": a // (b or 1), "floormod": a % (b or 1), "truncdiv": exact, "truncmod": a - exact * (b or 1),
        "and": a & b, "or": a | b, "xor": a ^ b,
        "lt": a < b, "le": a <= b, "gt": a > b, "ge": a >= b, "eq": a == b, "ne": a != b,
    }  # fmt: skip
    return int(results[e.op])


def with_operands(children):
    integer = children.filter(lambda e: e.dtype is DType.INT64)
    boolean = children.filter(lambda e: e.dtype is DType.BOOL)
    arithmetic = ["add", "sub", "mul", "min", "max", "floordiv", "floormod", "truncdiv", "truncmod", "and", "or", "xor"]
    return st.one_of(
        st.builds(Binary, st.sampled_from(arithmetic), integer, integer),
        st.builds(Compare, st.sampled_from(["lt", "le", "gt", "ge", "eq", "ne"]), integer, integer),
        st.builds(lambda c, a, b: Select(Compare("lt", c, a), a, b), integer, integer, integer),
        st.builds(Binary, st.sampled_from(["and", "or", "xor"]), boolean, boolean),
        st.builds(lambda e: Unary("neg", e), integer),
        st.builds(lambda e: Unary("not", e), children),
        st.builds(lambda e: Cast(DType.INT64, e), boolean),
    )


leaves = st.one_of(st.sampled_from([M, N]), st.integers(-9, 20).map(const), st.just(Compare("lt", M, N)))
expressions = st.recursive(leaves, with_operands, max_leaves=8).map(lambda e: cast("int64", e))


def arena_of(expression: Expr) -> Library:
    target = host_target()
    program = Program("sizes", (M, N), 0, 0, (), arena_bytes=expression)
    return Library(link_shared([compile_ir(entry_ir(program, target), target)], ENTRY_SYMBOLS), "sizes")


@settings(derandomize=True, max_examples=120, deadline=None)
@given(expressions)
def test_three_ways_agree(expression):
    function = arena_of(expression).function("polycomp_arena_bytes", ctypes.c_int64)
    text = dimension(expression)
    for m, n in ((1, 1), (0, 5), (7, 3), (-4, 9), (1000, 13), (2, 0)):
        wanted = evaluate(expression, {M: m, N: n})
        if abs(wanted) < 2**62:
            assert function((ctypes.c_int64 * 2)(m, n)) == wanted
            assert dims.evaluate(text, {"M": m, "N": n}) == wanted
    dims.check(text, frozenset("MN"))


def test_dimension_text():
    assert dims.to_text(7) == 7
    assert dims.to_text("N") == "N"
    assert dims.to_text(dimension(M * 2 + N // 4)) == "M * 2 + N // 4"
    assert dims.to_text(["mul", ["add", "M", 1], ["mul", "N", 2]]) == "(M + 1) * N * 2"
    assert dims.to_text(["sub", "M", ["sub", "N", ["floordiv", 8, ["mul", "M", "N"]]]]) == "M - (N - 8 // (M * N))"
    assert dims.to_text(["mul", ["floordiv", "M", 2], ["floordiv", "N", 2]]) == "M // 2 * (N // 2)"
    assert dims.to_text(dimension(Select(M < N, M, N % const(8)))) == "select(M < N, M, N % 8)"


def test_sizes_that_are_not_integer_arithmetic():
    odd = Cast(DType.INT64, Binary("mul", Cast(DType.FLOAT32, N), const(1.5, "float32")))
    with pytest.raises(CompileError, match="is not integer arithmetic over the sizes"):
        dimension(odd)
    with pytest.raises(CompileError, match="is not integer arithmetic over the sizes"):
        entry_ir(Program("p", (N,), 0, 0, (), arena_bytes=odd), host_target())
    with pytest.raises(CompileError, match="is not integer arithmetic over the sizes"):
        entry_ir(Program("p", (N,), 0, 0, (), arena_bytes=M), host_target())


def test_workspace_is_the_largest_of_the_steps():
    operands = (Operand(Storage.ARENA),) * 3
    workspaces = [Workspace(100, 10), Workspace(0, N), Workspace(N * 8, 0)]
    steps = tuple(Step("add", operands, (N,), w) for w in workspaces)
    target = host_target()
    library = Library(link_program(Program("p", (N,), 0, 0, steps), {"add": kernel(ADD)}, target), "p")
    function = library.function("polycomp_workspace_bytes", ctypes.c_int64)
    for n, threads in ((1, 1), (200, 4), (1000, 2), (129, 3)):
        wanted = max(128 + 128 * threads, -(-n // 128) * 128 * threads, -(-n * 8 // 64) * 64)
        assert function((ctypes.c_int64 * 1)(n), ctypes.c_int64(threads)) == wanted


def test_one_symbol_with_two_signatures():
    steps = (Step("k", (Operand(Storage.INPUT),)), Step("k", ()))
    with pytest.raises(CompileError, match="'k' is called with two different numbers"):
        entry_ir(Program("p", (), 1, 0, steps), host_target())


def test_entry_for_the_other_machine():
    arm = parse_target("aarch64-linux-gnu")
    program = Program("p", (N,), 0, 0, (Step("add", (Operand(Storage.ARENA),) * 3, (N,)),), arena_bytes=N // 3)
    assert link_program(program, {"add": kernel(ADD, arm)}, arm)[18] == 183


def test_symbols_must_be_a_dimension_of_an_input():
    info = ModuleInfo({"x": TensorType(DType.FLOAT32, (N * 2,))}, {})
    with pytest.raises(CompileError, match="the sizes N are only within an expression a dimension of an input"):
        make_manifest(Program("p", (N,), 1, 0, ()), info, 0, host_target())
    with pytest.raises(CompileError, match="the sizes M are nowhere a dimension of an input"):
        make_manifest(Program("p", (M,), 1, 0, ()), ModuleInfo({}, {}), 0, host_target())
