"""Kernels written by hand, in the manner of emitted ones, on the CPU and through NVRTC."""

from __future__ import annotations

import re

import ml_dtypes
import numpy as np
import pytest

from cuda_harness import (
    HarnessDevice,
    HarnessError,
    LaunchError,
    Order,
    build,
    compile_for_cpu,
    harness_available,
    sanitizers_available,
)
from cuda_harness.sources import (
    ARITHMETIC,
    ATOMICS,
    BLOCK_SUM,
    CONVERSIONS,
    DIVERGENT,
    MATMUL,
    MEMORY,
    RACES,
    SCALE_AND_SHIFT,
    SOURCES,
    WARPS,
)
from polycomp.codegen.cuda.nvrtc import compile_source, find_nvrtc
from polycomp.codegen.cuda.prelude import MACHINE, PRELUDE
from polycomp.runtime import Manifest, ModuleParts, StepSpec, SymbolSpec, TensorSpec
from polycomp.runtime.cuda.module import CudaModule
from polycomp.runtime.cuda.plan import CodeSpec, DevicePlan, DeviceStep, LaunchSpec, OperandSpec
from polycomp.runtime.image import assemble

pytestmark = pytest.mark.skipif(not harness_available(), reason="needs g++ 12 or later on x86-64 or AArch64")
sanitized = pytest.mark.skipif(not sanitizers_available(), reason="needs g++'s libraries of sanitizers")

ORDERS = (Order.FORWARD, Order.THREADS_BACKWARD, Order.BACKWARD)

NO_WORKSPACE = np.zeros(0, np.uint8)


def functions_of(source: str) -> list[str]:
    return re.findall(r"__global__ void (?:__launch_bounds__\(\d+\) )?(\w+)\(", source)


def compiled(source: str, **options: bool):
    return compile_for_cpu(source, functions_of(source), **options)


def status() -> np.ndarray:
    return np.zeros(3, np.int64)


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def matmul(source: str, n: int, order: Order = Order.FORWARD, **options: bool) -> float:
    """The largest error of a product."""
    a, b, c = random(n, n), random(n, n)[::-1].copy(), np.zeros((n, n), np.float32)
    compiled(source, **options).launch("matmul_0", (n // 16) ** 2, 256, 0, [a, b, c, n, NO_WORKSPACE, status()], order)
    return float(np.abs(c - a @ b).max())


# ---- barriers


@pytest.mark.parametrize("order", ORDERS)
def test_a_matrix_product_in_shared_tiles(order):
    assert matmul(MATMUL, 64, order) < 1e-4


@pytest.mark.parametrize("missing", ["filled", "read"])
def test_a_missing_barrier_shows(missing):
    source = re.sub(rf"__syncthreads\(\);  // {missing}", "", MATMUL)
    errors = [matmul(source, 64, order) for order in ORDERS]
    assert not all(error < 1e-4 for error in errors)
    with pytest.raises(LaunchError, match=r"thread \d+ (reads|writes) what thread \d+ (wrote|read), with no barrier"):
        matmul(source, 64, races=True)


def test_kernels_with_all_barriers_have_no_races():
    assert matmul(MATMUL, 64, races=True) < 1e-4


@pytest.mark.parametrize(
    ("function", "n", "message"),
    [
        ("leaves", 3, "thread 0 waits at __syncthreads in line 4, but thread 3 has ended"),
        ("parts", 5, "thread 0 waits at __syncthreads in line 9, but thread 5 waits at __syncthreads in line 13"),
        ("lacks_lanes", 8, "thread 0 waits at a shuffle in line 17, but thread 8 waits at __syncthreads in line 18"),
    ],
)
def test_a_divergent_barrier_is_told(function, n, message):
    kernels = compiled(DIVERGENT)
    with pytest.raises(LaunchError) as error:
        kernels.launch(function, 1, 32, 0, [np.zeros(32, np.float32), n])
    assert str(error.value) == f"{function}, block (0, 0, 0): divergent barrier: {message}"
    kernels.launch("leaves", 2, 32, 0, [np.zeros(32, np.float32), 32])  # the next launch is not disturbed


def test_a_lane_must_be_named_where_it_takes_part():
    with pytest.raises(LaunchError, match="thread 16 is not among the lanes 0xffff that meet at a shuffle in line 21"):
        compiled(DIVERGENT).launch("not_named", 1, 32, 0, [np.zeros(32, np.float32)])


# ---- warps


@pytest.mark.parametrize("order", ORDERS)
def test_a_reduction_by_shuffles(order):
    x, out = random(96), np.zeros(96, np.float32)
    compiled(WARPS).launch("butterfly", 1, 96, 0, [x, out], order)
    np.testing.assert_allclose(out.reshape(3, 32), x.reshape(3, 32).sum(1, keepdims=True).repeat(32, 1), rtol=1e-4)


@pytest.mark.parametrize("order", ORDERS)
def test_shuffles_and_votes(order):
    x, out, lanes = np.arange(32), np.zeros((32, 6), np.int64), np.arange(32)
    compiled(WARPS).launch("shuffles", 1, 32, 0, [x, out], order)
    np.testing.assert_array_equal(out[:, 0], lanes ^ 5)
    np.testing.assert_array_equal(out[:, 1], np.where(lanes < 29, lanes + 3, lanes))
    np.testing.assert_array_equal(out[:, 2], np.where(lanes % 8 >= 3, lanes - 3, lanes))
    np.testing.assert_array_equal(out[:, 3], lanes // 8 * 8 + 3)
    np.testing.assert_array_equal(out[:, 4], sum(1 << i for i in range(0, 32, 3)))
    np.testing.assert_array_equal(out[:, 5], 3)


def test_shuffles_of_all_widths():
    d, u, h = np.random.rand(32), np.arange(32, dtype=np.uint32), np.arange(32, dtype=np.uint16)
    e, v, i = np.zeros_like(d), np.zeros_like(u), np.zeros_like(h)
    compiled(WARPS).launch("types", 1, 32, 0, [d, u, h, e, v, i])
    np.testing.assert_array_equal(e, d[np.arange(32) ^ 1])
    np.testing.assert_array_equal(v, 2)
    np.testing.assert_array_equal(i, np.arange(32) ^ 16)


def test_a_warp_that_is_not_full():
    """Lanes that there are not bring NaN."""
    x, out = random(48), np.zeros(48, np.float32)
    compiled(WARPS).launch("butterfly", 1, 48, 0, [x, out])
    np.testing.assert_allclose(out[:32], x[:32].sum(), rtol=1e-4)
    assert np.isnan(out[32:]).all()


@pytest.mark.parametrize("races", [False, True])
@pytest.mark.parametrize("order", ORDERS)
def test_memory_is_ordered_within_a_warp(order, races):
    x, out = random(32), np.zeros(32, np.float32)
    compiled(WARPS, races=races).launch("exchange_by_memory", 1, 32, 0, [x, out], order)
    np.testing.assert_array_equal(out, x[::-1])


@pytest.mark.parametrize("races", [False, True])
@pytest.mark.parametrize("order", ORDERS)
def test_a_reduction_by_a_block(order, races):
    x, out = random(5, 1000), np.zeros(5, np.float32)
    compiled(BLOCK_SUM, races=races).launch("sum_0", 5, 256, 0, [x, out, 1000], order)
    np.testing.assert_allclose(out, x.sum(1), rtol=1e-4, atol=1e-4)


# ---- memory


@pytest.mark.parametrize("order", ORDERS)
def test_dynamic_shared_memory(order):
    x, out = random(4, 128), np.zeros((4, 128), np.float32)
    compiled(MEMORY).launch("reverse", 4, 128, 512, [x, out], order)
    np.testing.assert_array_equal(out, x[:, ::-1])


def test_shared_memory_that_was_not_written_is_nan_in_every_block():
    out = np.zeros(6, np.float32)
    compiled(MEMORY).launch("unwritten", 3, 1, 256, [out])
    assert np.isnan(out).all()


def test_vectors_of_floats():
    x, out = random(64), np.zeros(64, np.float32)
    compiled(MEMORY).launch("swapped", 1, 16, 0, [x, out, 0])
    np.testing.assert_array_equal(out, x.reshape(16, 4)[:, ::-1].ravel())


def test_a_vector_at_a_wrong_address():
    with pytest.raises(LaunchError, match="a vector at an address that is not a multiple of its size"):
        compiled(MEMORY).launch("copied", 1, 15, 0, [random(64), random(64), 2])


@sanitized
def test_sanitizers_find_a_vector_at_a_wrong_address():
    with pytest.raises(LaunchError, match="misaligned address"):
        compiled(MEMORY, sanitize=True).launch("swapped", 1, 15, 0, [random(64), random(64), 2])


@pytest.mark.parametrize(
    ("by", "message"),
    [
        (1, r"shifted, block \(0, 0, 0\): thread 31 touches memory that is not its own \(0 bytes after the end of arg"),
        (2000, r"thread 0 touches memory that is not its own \(7872 bytes after the end of argument 0\)"),
        (-1, r"thread 0 touches memory that is not its own \(4 bytes before argument 0\)"),
    ],
)
def test_an_access_outside_of_an_argument(by, message):
    size = 1024 if by < 0 else 32
    with pytest.raises(LaunchError, match=message):
        compiled(MEMORY).launch("shifted", 1, 32, 0, [random(size), random(32), by])


@sanitized
def test_sanitizers_find_overruns():
    kernels = compiled(MEMORY, sanitize=True)
    x, out, one = random(33), np.zeros(32, np.float32), np.ones(1, np.int32)
    kernels.launch("shifted", 1, 32, 0, [x, out, 1])
    np.testing.assert_array_equal(out, x[1:])
    with pytest.raises(
        LaunchError, match=r"heap-buffer-overflow on address[^$]*READ of size 4[^$]*in shifted [^ ]*source_0:20\n"
    ):
        kernels.launch("shifted", 1, 32, 0, [x, out, 2])
    with pytest.raises(LaunchError, match="index 8 out of bounds for type 'int"):
        kernels.launch("indexed", 1, 1, 0, [one, one.copy(), 8])
    with pytest.raises(LaunchError, match="index 5 out of bounds for type 'int"):
        kernels.launch("indexed", 1, 1, 0, [one * 5, one.copy(), 1])
    with pytest.raises(LaunchError, match="heap-buffer-overflow"):
        kernels.launch("reverse", 1, 64, 252, [random(64), random(64)])
    with pytest.raises(LaunchError, match=r"insufficient space|right of global variable 'values'"):
        kernels.launch("overruns", 1, 8, 0, [random(1), random(8), 1])
    kernels.launch("overruns", 2, 8, 0, [random(1), random(8), 0])
    kernels.launch("reverse", 1, 64, 256, [random(64), random(64)])
    kernels.launch("indexed", 2, 1, 0, [one, one.copy(), 1])


@sanitized
@pytest.mark.parametrize("order", ORDERS)
def test_sanitizers_and_fibers(order):
    assert matmul(MATMUL, 32, order, sanitize=True) < 1e-4
    with pytest.raises(LaunchError, match="divergent barrier: thread 0 waits at __syncthreads in line 4, but thread 3"):
        compiled(DIVERGENT, sanitize=True).launch("leaves", 1, 32, 0, [np.zeros(32, np.float32), 3])


@pytest.mark.parametrize("order", ORDERS)
def test_every_thread_runs_once(order):
    out = np.zeros((24, 60), np.int32)
    compiled(MEMORY).launch("positions", (2, 3, 4), (5, 4, 3), 0, [out], order)
    np.testing.assert_array_equal(out, np.arange(24)[:, None] * 100 + np.arange(60))


def test_what_else_a_kernel_may_do_wrong():
    kernels, out = compiled(MEMORY), np.zeros(1, np.int32)
    with pytest.raises(LaunchError, match="thread 0 divides an integer by zero"):
        kernels.launch("divides", 1, 1, 0, [np.array([1, 0], np.int32), out])
    with pytest.raises(LaunchError, match="thread 0 needs more than 64 KB of stack"):
        kernels.launch("recursive", 1, 1, 0, [out, 0])
    with pytest.raises(LaunchError, match="assumes in line 48 what does not hold"):
        kernels.launch("assumes", 1, 1, 0, [out, 3])
    with pytest.raises(LaunchError, match="divides: a block of 2048 threads; 1 to 1024 are possible"):
        kernels.launch("divides", 1, 2048, 0, [out, out])
    kernels.launch("divides", 1, 1, 0, [np.array([7, 2], np.int32), out])
    assert out[0] == 3


# ---- races


@pytest.mark.parametrize(
    ("wait", "message"),
    [
        (
            0,
            "thread 1 writes what thread 0 read, with no barrier between (both after the block's beginning) (byte 4 of",
        ),
        (
            2,
            "thread 0 reads what thread 32 wrote, with no barrier between (both after the block's beginning) (byte 128",
        ),
    ],
)
def test_races_in_shared_memory(wait, message):
    kernels = compiled(RACES, races=True)
    with pytest.raises(LaunchError, match=re.escape(message)):
        kernels.launch("neighbours", 1, 64, 0, [random(64), random(64), wait])
    kernels.launch("neighbours", 1, 64, 0, [random(64), random(64), 1])


def test_races_between_blocks():
    kernels = compiled(RACES, races=True)
    with pytest.raises(LaunchError, match=r"writes what another block of the launch wrote \(byte 0 of argument 0\)"):
        kernels.launch("same_place", 2, 1, 0, [random(4)])
    kernels.launch("bytes", 1, 64, 0, [np.zeros(64, np.uint8)])
    out = np.zeros(1, np.float32)
    kernels.launch("total", 2, 64, 0, [out])
    assert out[0] == 128


# ---- atomic functions


@pytest.mark.parametrize(("order", "index"), [(Order.FORWARD, 9), (Order.BACKWARD, -1)])
def test_the_first_wrong_index_is_told(order, index):
    told, out = status(), np.zeros(4, np.float32)
    compiled(ATOMICS).launch("checked", 1, 4, 0, [np.array([1, 9, 3, -1]), out, 4, NO_WORKSPACE, told], order)
    np.testing.assert_array_equal(told, [1, index, 4])
    np.testing.assert_array_equal(out, [0, 1, 0, 1])


def test_atomic_functions():
    a, b, c, d = np.zeros(3, np.int32), np.zeros(1, np.uint64), np.zeros(1, np.float32), np.zeros(1, np.int64)
    compiled(ATOMICS).launch("counts", 2, 64, 0, [a, b, c, d])
    assert (a.tolist(), b[0], c[0], d[0]) == ([128, 63, 1], 256, 64, 63)


# ---- arithmetic


def test_all_numbers_of_16_bits_to_float():
    patterns = np.arange(1 << 16).astype(np.uint16)
    half, bfloat = np.zeros(1 << 16, np.float32), np.zeros(1 << 16, np.float32)
    compiled(CONVERSIONS).launch("halves", 256, 256, 0, [patterns, half, bfloat])
    np.testing.assert_array_equal(half, patterns.view(np.float16).astype(np.float32))
    np.testing.assert_array_equal(bfloat, patterns.view(ml_dtypes.bfloat16).astype(np.float32))


def near(patterns: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """All numbers of a type, what is halfway between them, and the numbers next to those."""
    with np.errstate(over="ignore", invalid="ignore"):
        values = np.unique(patterns.astype(dtype))
        halfway = values[:-1] / 2 + values[1:] / 2
        exact = np.concatenate([values, halfway, [65519.996, 65520, 3.3961776e38, -0.0]]).astype(dtype)
        return np.concatenate([exact, np.nextafter(exact, dtype(np.inf)), np.nextafter(exact, dtype(-np.inf))])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rounding_to_16_bits(dtype):
    function = {np.float32: "floats", np.float64: "doubles"}[dtype]
    patterns = np.arange(1 << 16).astype(np.uint16)
    for position, small in ((0, np.dtype(np.float16)), (1, np.dtype(ml_dtypes.bfloat16))):
        x = near(patterns.view(small), dtype)
        results = [np.zeros(x.size, np.uint16), np.zeros(x.size, np.uint16)]
        compiled(CONVERSIONS).launch(function, x.size, 1, 0, [x, *results])
        got, wanted = results[position].view(small).astype(np.float32), rounded(x, small).astype(np.float32)
        np.testing.assert_array_equal(got, wanted)
        numbers = ~np.isnan(x)
        np.testing.assert_array_equal(np.signbit(got[numbers]), np.signbit(x[numbers]))


def rounded(x: np.ndarray, small: np.dtype) -> np.ndarray:
    """To nearest even, once. ml_dtypes goes from double by way of float, so what is exact in neither is corrected."""
    with np.errstate(over="ignore", invalid="ignore"):
        if small == np.float16 or x.dtype == np.float32:
            return x.astype(small)
        single = x.astype(np.float32)
        toward_zero = np.where(np.abs(single.astype(x.dtype)) > np.abs(x), np.nextafter(single, np.float32(0)), single)
        sticky = (toward_zero.astype(x.dtype) != x) & ~np.isnan(x)
        return (toward_zero.view(np.uint32) | sticky).view(np.float32).astype(small)


def test_division_and_shifts_of_integers():
    values = np.array([0, 1, 2, 3, 7, 31, 32, 33, 100, 2**31 - 1, -1, -2, -3, -7, -32, -100, -(2**31)])
    a, b = (m.ravel().astype(np.int32) for m in np.meshgrid(values, values))
    out = np.zeros((a.size, 8), np.int32)
    compiled(ARITHMETIC).launch("integers", a.size, 1, 0, [a, b, out])
    expected = np.array([integer_results(x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True)])
    np.testing.assert_array_equal(out, (expected & 0xFFFFFFFF).astype(np.uint32).view(np.int32))


def integer_results(x: int, y: int) -> list[int]:
    floordiv, floormod = (x // y, x % y) if y else (0, 0)
    truncdiv = abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1) if y else 0
    truncmod = x - truncdiv * y if y else 0
    unsigned = (x & 0xFFFFFFFF) // (y & 0xFFFFFFFF) if y else 0
    fits = 0 <= y < 32
    return [floordiv, floormod, truncdiv, truncmod, floordiv, unsigned, x << y if fits else 0, x >> (y if fits else 31)]


def test_arithmetic_of_floats():
    values = np.array([0, 1, -1, 2.5, -2.5, 7, np.nan], np.float32)
    a, b = (m.ravel() for m in np.meshgrid(values, values))
    out = np.zeros((a.size, 6), np.float32)
    compiled(ARITHMETIC).launch("reals", a.size, 1, 0, [a, b, out, a.astype(float), b.astype(float)])
    with np.errstate(all="ignore"):
        largest = np.maximum(a, b)
        expected = [np.minimum(a, b), largest, np.floor(a / b), np.remainder(a, b), np.fmod(a, b), largest]
    np.testing.assert_array_equal(out, np.stack(expected, 1))


def test_functions_of_cuda():
    x, out = np.array([0.25, np.inf], np.float32), np.zeros(6, np.float32)
    compiled(ARITHMETIC).launch("intrinsics", 1, 1, 0, [x, out])
    assert out[:3].tolist() == [2, -np.inf, 6]
    assert out[4:].tolist() == [8 + 31 + 4 + 3 - 2 + 1 + 10, 2.25]


# ---- the source text, and compiling it


@pytest.mark.skipif(find_nvrtc() is None, reason="needs NVRTC")
def test_the_kernels_are_cuda():
    code = compile_source(PRELUDE + "".join(SOURCES), "tests", ["sm_80", "sm_90a"])
    assert set(code.resources["sm_90a"]) == {f for source in SOURCES for f in functions_of(source)}


def test_the_harness_has_every_function_of_the_prelude():
    header = "".join(path.read_text() for path in build.SOURCES.glob("*.hpp"))
    names = set(re.findall(r"\b(pc_\w+)\(", MACHINE))
    assert "pc_to_half" in names
    assert {
        name for name in names if not re.search(rf"static (inline|HARNESS_UNWATCHED) [\w ]+\b{name}\(", header)
    } == set()


def test_sources_that_are_compiled_together_share_no_names():
    source = """
    static __device__ int helper() {{ return {0}; }}
    extern "C" __global__ void answer_{0}(int* out) {{ __shared__ int x; x = helper(); out[0] = x; }}
    """
    assert isinstance(compile_for_cpu([source.format(1), source.format(2)], ["answer_1", "answer_2"]).functions, tuple)
    kernels, out = (
        compile_for_cpu([source.format(1), source.format(2)], ["answer_2", "answer_1"]),
        np.zeros(1, np.int32),
    )
    for answer in (1, 2):
        kernels.launch(f"answer_{answer}", 1, 1, 0, [out])
        assert out[0] == answer


def test_what_was_built_is_kept(tmp_path, monkeypatch):
    source = 'extern "C" __global__ void nothing(int* out) {}'
    compile_for_cpu(source, ["nothing"], folder=tmp_path)
    kept = sorted(tmp_path.iterdir())
    monkeypatch.setattr(build, "_output_of", None)
    compile_for_cpu(source, ["nothing"], folder=tmp_path)
    assert sorted(tmp_path.iterdir()) == kept and len(kept) == 2


@pytest.mark.parametrize(
    ("source", "function", "message"),
    [
        ('extern "C" __global__ void f(int* out) { out[0] = nothing; }', "f", "source_0:1:.*nothing"),
        ('extern "C" __global__ void f(int* out) {}', "g", "there is no kernel g in the source"),
        ('extern "C" __global__ void f(int64_t n) {}', "f", "int64_t"),
        ('extern "C" __global__ void f(long long* s) { atomicCAS(s, 0, 1); }', "f", "invalid conversion from"),
    ],
)
def test_what_does_not_compile(source, function, message):
    with pytest.raises(HarnessError, match=message):
        compile_for_cpu(source, [function])


def test_arguments_must_fit():
    kernels, x = compiled(MEMORY), random(32)
    with pytest.raises(TypeError, match="shifted has 3 parameters; there are 2 arguments"):
        kernels.launch("shifted", 1, 32, 0, [x, x])
    with pytest.raises(TypeError, match="argument 1 is an array of float64; the kernel's elements have 4 bytes"):
        kernels.launch("shifted", 1, 32, 0, [x, x.astype(np.float64), 0])
    with pytest.raises(TypeError, match="argument 2 is an array where a number is needed"):
        kernels.launch("shifted", 1, 32, 0, [x, x, x])
    with pytest.raises(TypeError, match="argument 0 is a number where a pointer is needed"):
        kernels.launch("shifted", 1, 32, 0, [0, x, 0])


# ---- the device


def test_the_device():
    device = HarnessDevice({"reverse": compiled(MEMORY)}, order=Order.BACKWARD)
    stream, x, out = device.new_stream(), random(4, 128), np.zeros((4, 128), np.float32)
    memory = device.allocate(4096)
    assert memory.address % 256 == 0 and device.number_of(memory.address + 4095) == 0
    assert device.number_of(x.ctypes.data) == -1 and device.memory().total - device.memory().free == 4096
    function = device.load_code(b"").function("reverse", 512)
    stream.upload(memory.address, x.view(np.uint8).ravel())
    stream.clear(memory.address + 2048, 2048)
    graph = stream.capture(lambda: stream.launch(function, 4, 128, 512, [memory.address, memory.address + 2048]))
    stream.download(out.view(np.uint8).reshape(-1), memory.address + 2048)
    assert not out.any()
    graph.launch()
    stream.download(out.view(np.uint8).reshape(-1), memory.address + 2048)
    np.testing.assert_array_equal(out, x[:, ::-1])
    assert device.launches == ["reverse"]
    with pytest.raises(
        LaunchError, match=r"touches memory that is not its own \(508 bytes after the end of a buffer of 40"
    ):
        stream.launch(function, 5, 128, 512, [memory.address, memory.address + 2048])


def twice_module() -> ModuleParts:
    """``out`` is ``x`` backwards, times 2."""
    launches = tuple(LaunchSpec(f, ["floordiv", ["add", "N", 63], 64], 64, 0) for f in ("twice_0", "twice_1"))
    operands = (OperandSpec("input", 0, 0), OperandSpec("output", 0, 0))
    step = DeviceStep("twice", operands, ("N",), ["mul", "N", 4], launches)
    manifest = Manifest(
        name="tiny",
        arch="cuda",
        features=("sm_80",),
        threads=0,
        inputs=(TensorSpec("x", "float32", ("N",)),),
        outputs=(TensorSpec("out", "float32", ("N",)),),
        symbols=(SymbolSpec("N", 0, 1000),),
        conditions=(),
        steps=(StepSpec("twice", ("node",), "N", "N"),),
        arena_bytes=0,
        weight_bytes=0,
        device=DevicePlan((CodeSpec("twice", "sm_80", 0, 4),), (step,)),
    )
    return ModuleParts(manifest, b"code", [])


@pytest.mark.parametrize("order", ORDERS)
def test_a_module_on_the_device(order):
    device = HarnessDevice({"twice": compiled(SCALE_AND_SHIFT)}, "sm_86", order)
    module = CudaModule(assemble(twice_module()), device)
    for n in (1000, 0, 63, 64, 65, 65, 65):
        x = random(n)
        np.testing.assert_array_equal(module.run({"x": x})["out"], 2 * x[::-1])
        np.testing.assert_array_equal(module.run({"x": device.array(x)})["out"].numpy(), 2 * x[::-1])
    assert device.launches == ["twice_0", "twice_1"] * 12


def test_arrays_on_the_device():
    device = HarnessDevice({})
    array = device.array(random(3, 4))
    interface = dict(array.__cuda_array_interface__, shape=(4, 3), strides=(4, 16))

    class Transposed:
        __cuda_array_interface__ = interface

    np.testing.assert_array_equal(device.contiguous(Transposed()).numpy(), array.numpy().T)
