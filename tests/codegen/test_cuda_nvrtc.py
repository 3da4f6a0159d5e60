"""CUDA C++ to machine code by NVRTC, what it reports of kernels, and how many of their warps fit on a GPU."""

from __future__ import annotations

import pathlib
import pickle
import re

import pytest

from polycomp.codegen.cuda import nvrtc
from polycomp.codegen.cuda.nvrtc import Resources, compile_source, find_nvrtc, nvrtc_version, ptx_arch, supported_archs
from polycomp.codegen.cuda.occupancy import limits, occupancy, resident_blocks
from polycomp.errors import CompileError, TargetError

needs_nvrtc = pytest.mark.skipif(find_nvrtc() is None, reason="NVRTC is not installed: pip install 'polycomp[cuda]'")

SCALE = """\
extern "C" __global__ void scale_0(const float* __restrict__ a, float* __restrict__ b, long long n) {
  long long i = blockIdx.x * 128ll + threadIdx.x;
  if (i < n) b[i] = a[i] * 2.0f;
}
"""

REVERSE = """\
extern "C" __global__ void __launch_bounds__(256) reverse_1(float* b) {
  __shared__ float tile[256];
  tile[threadIdx.x] = b[threadIdx.x];
  __syncthreads();
  b[threadIdx.x] = tile[255 - threadIdx.x];
}
"""

# Indices that are known only at run time keep the array out of registers.
LOOK_UP = """\
extern "C" __global__ void look_up_2(int* b, int j) {
  int table[40];
  for (int i = 0; i < 40; i++) table[i] = b[i];
  table[j] = 3;
  for (int i = 0; i < 40; i++) b[i] = table[(i * j) % 40];
}
"""

# 1024 threads have 64 registers each, too few for 120 values that are all needed in each round.
MIX = """\
extern "C" __global__ void __launch_bounds__(1024) mix_3(const float* a, float* b, int rounds) {
  float x[120];
  #pragma unroll
  for (int i = 0; i < 120; i++) x[i] = a[i * 1024 + threadIdx.x];
  for (int r = 0; r < rounds; r++) {
    #pragma unroll
    for (int i = 0; i < 120; i++) x[i] = x[i] * x[(i * 7 + 3) % 120] + 1.0f;
  }
  #pragma unroll
  for (int i = 0; i < 120; i++) b[i * 1024 + threadIdx.x] = x[i];
}
"""

KERNELS = SCALE + REVERSE + LOOK_UP + MIX
ARCHS = ("sm_80", "sm_90", "sm_90a", "sm_100")


def using(registers: int, shared_bytes: int = 0) -> Resources:
    return Resources(registers, shared_bytes, 0, 0, 0, 0)


def targets(ptx: bytes) -> list[str]:
    return re.findall(r"^\.target (\w+)", ptx.decode(), re.MULTILINE)


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder that is the only one in which NVRTC may be found."""

    class Spec:
        submodule_search_locations = (str(tmp_path),)

    monkeypatch.setattr(nvrtc.importlib.util, "find_spec", lambda name: Spec)
    monkeypatch.setattr(nvrtc, "_SYSTEM", ("libnvrtc-of-no-system.so.13", "libnvrtc-of-no-system.so.12"))
    monkeypatch.setattr(nvrtc, "_nvrtc", nvrtc._nvrtc.__wrapped__)
    return tmp_path


@needs_nvrtc
def test_there_is_machine_code_for_every_architecture_and_ptx_for_later_ones() -> None:
    code = compile_source(KERNELS, "kernels", ARCHS)
    assert tuple(code.cubins) == ARCHS
    assert all(cubin.startswith(b"\x7fELF") for cubin in code.cubins.values())
    assert len(set(code.cubins.values())) == len(ARCHS)
    assert targets(code.ptx) == ["sm_100"]
    assert code.ptx.endswith(b"\0") and b".entry scale_0" in code.ptx


@needs_nvrtc
def test_code_depends_on_nothing_but_source_and_architecture() -> None:
    code = compile_source(KERNELS, "kernels", ["sm_80", "sm_90a"])
    again = compile_source(KERNELS, "another.name", ["sm_90a", "sm_80", "sm_90a"])
    assert again == code
    assert pickle.loads(pickle.dumps(code)) == code


@needs_nvrtc
@pytest.mark.parametrize("arch", ARCHS)
def test_the_resources_of_kernels(arch: str) -> None:
    found = compile_source(KERNELS, "kernels", [arch]).resources[arch]
    assert list(found) == ["look_up_2", "mix_3", "reverse_1", "scale_0"]
    scale, reverse, look_up, mix = (found[name] for name in ("scale_0", "reverse_1", "look_up_2", "mix_3"))
    for plain in (scale, reverse):
        assert (plain.stack_bytes, plain.spill_store_bytes, plain.spill_load_bytes) == (0, 0, 0)
        assert 4 <= plain.registers <= 32
    assert [r.shared_bytes for r in (scale, reverse, look_up, mix)] == [0, 1024, 0, 0]
    assert (look_up.stack_bytes, look_up.spill_store_bytes, look_up.spill_load_bytes) == (160, 0, 0)
    assert mix.registers == 64
    assert mix.stack_bytes >= 4 * (120 - 64) and min(mix.spill_store_bytes, mix.spill_load_bytes) >= mix.stack_bytes
    assert scale.constant_bytes - reverse.constant_bytes == 16  # two parameters more, of 8 bytes


@needs_nvrtc
def test_functions_that_kernels_call_count_as_part_of_them() -> None:
    helper = """\
__noinline__ __device__ float helper(const float* b, int j) {
  float table[8];
  for (int i = 0; i < 8; i++) table[i] = b[i * j];
  return table[j & 7];
}
extern "C" __global__ void caller_0(float* b, int j) { b[0] = helper(b, j) + helper(b + 8, j + 1); }
"""
    found = compile_source(helper, "caller", ["sm_80"]).resources["sm_80"]
    assert list(found) == ["caller_0"]
    assert found["caller_0"].stack_bytes >= 32


@needs_nvrtc
def test_what_kernels_use_needs_no_header() -> None:
    source = """\
extern "C" __global__ void many_0(const float* a, float* b, unsigned short* h, unsigned long long* status, int n) {
  float4 v = reinterpret_cast<const float4*>(a)[threadIdx.x];
  float x = expf(v.x) + logf(v.y) + erff(v.z) + tanhf(v.w) + powf(v.x, v.y) + fmodf(v.z, v.w) + rsqrtf(v.x);
  x += __shfl_xor_sync(0xffffffffu, x, 16);
  unsigned short half;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(x));
  h[threadIdx.x] = half;
  if (n < 0 && atomicCAS(&status[0], 0ull, 1ull) == 0ull) status[1] = n;
  b[threadIdx.x] = __int_as_float(__float_as_int(x) ^ n) + static_cast<float>(exp(static_cast<double>(x)));
}
"""
    assert compile_source(source, "many", ["sm_80"]).resources["sm_80"]["many_0"].registers > 0


@needs_nvrtc
def test_products_and_sums_are_contracted_and_denormals_kept() -> None:
    source = 'extern "C" __global__ void fma_0(float* b) { b[0] = b[1] * b[2] + b[3] / b[4]; }'
    ptx = compile_source(source, "fma", ["sm_80"]).ptx
    assert b"fma.rn.f32" in ptx and b"div.rn.f32" in ptx
    assert b".ftz" not in ptx and b".approx" not in ptx


@needs_nvrtc
def test_code_for_one_architecture_may_use_what_others_have_not() -> None:
    source = """\
extern "C" __global__ void fence_0(int* b) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  asm volatile("wgmma.fence.sync.aligned;");
#endif
  b[0] = 1;
}
"""
    code = compile_source(source, "fence", ["sm_90a"])
    assert targets(code.ptx) == ["sm_90"] and b"wgmma" not in code.ptx
    assert list(code.cubins) == list(code.resources) == ["sm_90a"]


@pytest.mark.parametrize(
    ("archs", "expected"),
    [
        (["sm_80", "sm_90a"], "sm_80"),
        (["sm_100", "sm_90", "sm_90a"], "sm_100"),
        (["sm_90a"], "sm_90"),
        (["sm_90a", "sm_100a"], "sm_100"),
    ],
)
def test_ptx_is_for_the_newest_architecture_without_suffix(archs: list[str], expected: str) -> None:
    assert ptx_arch(archs) == expected


@needs_nvrtc
def test_architectures_that_nvrtc_has() -> None:
    known = supported_archs()
    assert known[0] == "sm_80" and {"sm_86", "sm_89", "sm_90", "sm_90a"} <= set(known)
    assert not {"sm_75", "sm_80a", "sm_89a"} & set(known)


@needs_nvrtc
@pytest.mark.parametrize(
    ("archs", "what"),
    [
        (["sm_70"], "cannot be compiled for 'sm_70'"),
        (["sm_80", "sm_89a", "compute_90"], "cannot be compiled for 'sm_89a', 'compute_90'"),
        ([], "need an architecture"),
    ],
)
def test_other_architectures_are_refused(archs: list[str], what: str) -> None:
    with pytest.raises(TargetError) as caught:
        compile_source(SCALE, "scale", archs)
    major, minor = nvrtc_version()
    assert str(caught.value) == f"CUDA kernels {what}; NVRTC {major}.{minor} has {', '.join(supported_archs())}"


@needs_nvrtc
@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (
            'extern "C" __global__ void bad_0(float* b) {\n  int unused;\n  b[0] = wrong(1);\n  b[1] = worse;\n}\n',
            'identifier "wrong" is undefined, in line 3: b[0] = wrong(1);',
        ),
        ('extern "C" __global__ void bad_0(float* b) {\n', 'expected a "}"'),
        (
            'extern "C" __global__ void bad_0(float* b) { asm volatile("wgmma.fence.sync.aligned;"); }',
            "Instruction 'wgmma.fence' not supported on .target 'sm_80'",
        ),
        (
            REVERSE.replace("tile[256]", "tile[20000]"),
            "Entry function 'reverse_1' uses too much shared data (0x13880 bytes, 0xc000 max)",
        ),
    ],
)
def test_an_error_names_the_kernel_and_the_line(source: str, reason: str) -> None:
    with pytest.raises(CompileError) as caught:
        compile_source(source, "bad", ["sm_80"])
    assert str(caught.value) == f"NVRTC rejects the code generated for the kernel 'bad' (sm_80): {reason}"


def test_without_nvrtc(only: pathlib.Path) -> None:
    assert find_nvrtc() is None
    with pytest.raises(TargetError) as caught:
        compile_source(SCALE, "scale", ["sm_80"])
    assert str(caught.value) == (
        "CUDA kernels are compiled by NVRTC (libnvrtc-of-no-system.so.13 or libnvrtc-of-no-system.so.12), which is not "
        "installed; use pip install 'polycomp[cuda]'"
    )


@pytest.mark.parametrize("layout", ["cu13/lib/libnvrtc.so.13", "cuda_nvrtc/lib/libnvrtc.so.12"])
def test_a_damaged_nvrtc(only: pathlib.Path, layout: str) -> None:
    library = only / layout
    library.parent.mkdir(parents=True)
    library.write_bytes(b"no library")
    assert find_nvrtc() == str(library)
    with pytest.raises(TargetError) as caught:
        nvrtc_version()
    assert str(caught.value) == f"NVRTC cannot be loaded, install it anew: {library}: file too short"


def test_the_newer_nvrtc_is_taken(only: pathlib.Path) -> None:
    for layout in ("cuda_nvrtc/lib/libnvrtc.so.12", "cuda_nvrtc/lib/libnvrtc.alt.so.12", "cu13/lib/libnvrtc.so.13"):
        (only / layout).parent.mkdir(parents=True, exist_ok=True)
        (only / layout).touch()
    assert find_nvrtc() == str(only / "cu13/lib/libnvrtc.so.13")


@pytest.mark.parametrize(
    ("resources", "block", "dynamic", "arch", "blocks", "share"),
    [
        (using(32), 256, 0, "sm_80", 8, 1.0),
        (using(32), 32, 0, "sm_80", 32, 0.5),  # as many blocks as there may be
        (using(32), 32, 0, "sm_86", 16, 1 / 3),
        (using(32), 1024, 0, "sm_89", 1, 2 / 3),  # 1536 threads: a second block does not fit
        (using(33), 256, 0, "sm_80", 6, 0.75),  # 40 registers are allocated
        (using(128), 128, 0, "sm_90a", 4, 0.25),
        (using(255), 256, 0, "sm_90a", 1, 0.125),
        (using(128), 1024, 0, "sm_90a", 0, 0.0),  # more registers than there are
        (using(255), 33, 0, "sm_90", 4, 0.125),  # two warps each
        (using(32, 48 * 1024), 256, 0, "sm_80", 3, 0.375),
        (using(32, 1024), 256, 99 * 1024 - 1024, "sm_86", 1, 1 / 6),  # 100 KB with what the driver takes
        (using(32, 1025), 256, 99 * 1024 - 1024, "sm_86", 0, 0.0),
        (using(32), 256, 227 * 1024, "sm_100a", 1, 0.125),
        (using(32), 256, 227 * 1024, "sm_120", 0, 0.0),
        (using(32), 1025, 0, "sm_80", 0, 0.0),
        (using(0), 64, 0, "sm_120", 24, 1.0),
    ],
)
def test_occupancy(resources: Resources, block: int, dynamic: int, arch: str, blocks: int, share: float) -> None:
    assert resident_blocks(resources, block, dynamic, arch) == blocks
    assert occupancy(resources, block, dynamic, arch) == pytest.approx(share)


def test_limits_of_an_unknown_architecture() -> None:
    assert (limits("sm_90a"), limits("sm_90").block_shared_bytes) == (limits("sm_90"), 227 * 1024)
    with pytest.raises(TargetError) as caught:
        limits("sm_75")
    assert str(caught.value) == (
        "the limits of 'sm_75' are not known; those of sm_80, sm_86, sm_87, sm_88, sm_89, sm_90, sm_100, sm_103, "
        "sm_110, sm_120, sm_121 are"
    )
