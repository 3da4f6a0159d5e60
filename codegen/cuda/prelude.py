"""The device functions that emitted CUDA C calls, in CUDA C that needs no header.

``MACHINE`` has those that are written with PTX or exchange values between threads: what executes kernels elsewhere
than on a GPU has its own versions of these. ``PORTABLE`` is C++17 for any machine. Element types of 16 bits are stored
as ``unsigned short``.
"""

from __future__ import annotations

_PTX = r"""
static __device__ __forceinline__ float pc_from_half(unsigned short x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x));
    return y;
}

static __device__ __forceinline__ unsigned short pc_to_half(float x) {
    unsigned short y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x));
    return y;
}

static __device__ __forceinline__ unsigned short pc_to_half(double x) {
    unsigned short y;
    asm("cvt.rn.f16.f64 %0, %1;" : "=h"(y) : "d"(x));
    return y;
}

static __device__ __forceinline__ unsigned short pc_to_bfloat16(float x) {
    unsigned short y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y) : "f"(x));
    return y;
}

// The smaller or larger number; NaN when either is.
static __device__ __forceinline__ float pc_min(float x, float y) {
    float z;
    asm("min.NaN.f32 %0, %1, %2;" : "=f"(z) : "f"(x), "f"(y));
    return z;
}

static __device__ __forceinline__ float pc_max(float x, float y) {
    float z;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(z) : "f"(x), "f"(y));
    return z;
}

// The value that another lane of the warp passes: lane ^ mask, or the given one. All lanes named in `lanes` take part.
template <typename T>
static __device__ __forceinline__ T pc_shuffle_xor(T value, int mask, unsigned lanes = 0xffffffffu) {
    return (T)__shfl_xor_sync(lanes, value, mask);
}

template <typename T>
static __device__ __forceinline__ T pc_shuffle(T value, int lane, unsigned lanes = 0xffffffffu) {
    return (T)__shfl_sync(lanes, value, lane);
}

// Copies from global to shared memory that are done when they have been waited for, of zeros where they are not wanted.
template <int BYTES>
static __device__ __forceinline__ void pc_copy_ahead(void* to, const void* from, bool wanted) {
    const unsigned target = (unsigned)__cvta_generic_to_shared(to);
    const int size = wanted ? BYTES : 0;
    if constexpr (BYTES == 16) {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" :: "r"(target), "l"(from), "r"(size) : "memory");
    } else {
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;"
            :: "r"(target), "l"(from), "n"(BYTES), "r"(size) : "memory");
    }
}

static __device__ __forceinline__ void pc_commit_copies() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

template <int PENDING>
static __device__ __forceinline__ void pc_await_copies() {
    asm volatile("cp.async.wait_group %0;" :: "n"(PENDING) : "memory");
}

// Tensor cores: four sums of each thread of a warp, its registers of the left and of the right operand.
static __device__ __forceinline__ unsigned pc_to_tf32(float x) {
    unsigned y;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(x));
    return y;
}

static __device__ __forceinline__ void pc_mma_tf32(
    float& s0, float& s1, float& s2, float& s3, float a0, float a1, float a2, float a3, float b0, float b1) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(s0), "+f"(s1), "+f"(s2), "+f"(s3)
        : "r"(pc_to_tf32(a0)), "r"(pc_to_tf32(a1)), "r"(pc_to_tf32(a2)), "r"(pc_to_tf32(a3)), "r"(pc_to_tf32(b0)),
          "r"(pc_to_tf32(b1)));
}

static __device__ __forceinline__ void pc_mma_half(
    float& s0, float& s1, float& s2, float& s3, unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0,
    unsigned b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(s0), "+f"(s1), "+f"(s2), "+f"(s3)
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

static __device__ __forceinline__ void pc_mma_bfloat16(
    float& s0, float& s1, float& s2, float& s3, unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0,
    unsigned b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(s0), "+f"(s1), "+f"(s2), "+f"(s3)
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// Matrices of 8 rows of 16 bytes in shared memory: lane 8*i + j passes where row j of matrix i begins, and each gets 4
// bytes of a row (turned: two elements of 16 bits of a column).
static __device__ __forceinline__ void pc_load_matrices4(
    unsigned& r0, unsigned& r1, unsigned& r2, unsigned& r3, const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
        : "=r"(r0), "=r"(r1), "=r"(r2), "=r"(r3) : "r"((unsigned)__cvta_generic_to_shared(row)) : "memory");
}

static __device__ __forceinline__ void pc_load_matrices4_turned(
    unsigned& r0, unsigned& r1, unsigned& r2, unsigned& r3, const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
        : "=r"(r0), "=r"(r1), "=r"(r2), "=r"(r3) : "r"((unsigned)__cvta_generic_to_shared(row)) : "memory");
}

static __device__ __forceinline__ void pc_load_matrices2(unsigned& r0, unsigned& r1, const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
        : "=r"(r0), "=r"(r1) : "r"((unsigned)__cvta_generic_to_shared(row)) : "memory");
}

static __device__ __forceinline__ void pc_load_matrices2_turned(
    unsigned& r0, unsigned& r1, const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
        : "=r"(r0), "=r"(r1) : "r"((unsigned)__cvta_generic_to_shared(row)) : "memory");
}

// Products of warpgroups (sm_90a). An operand is described by where it begins in shared memory, the bytes between its
// panels of 128 bytes, and those between groups of eight rows.
static __device__ __forceinline__ unsigned long long pc_describe(
    const void* first, unsigned long long panels, unsigned long long groups) {
    const unsigned long long address = __cvta_generic_to_shared(first);
    return (address & 0x3ffff) >> 4 | panels >> 4 << 16 | groups >> 4 << 32 | 1ull << 62;
}

// What threads have stored to shared memory is seen by warpgroups that multiply it, after a barrier.
static __device__ __forceinline__ void pc_show_stores() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// The sums stay in their registers from the first product to the last one's end.
template <int COUNT>
static __device__ __forceinline__ void pc_begin_products(float* sums) {
    #pragma unroll
    for (int i = 0; i < COUNT; ++i) asm volatile("" : "+f"(sums[i]) :: "memory");
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

template <int COUNT>
static __device__ __forceinline__ void pc_end_products(float* sums) {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
    #pragma unroll
    for (int i = 0; i < COUNT; ++i) asm volatile("" : "+f"(sums[i]) :: "memory");
}

// Adds 16 steps to a thread's sums of two rows, with so many columns in all; turned operands have their rows (or
// columns) side by side, others their steps.
template <int COLUMNS, bool LEFT_TURNED, bool RIGHT_TURNED>
__device__ void pc_multiply_half(float* upper, float* lower, unsigned long long left, unsigned long long right);

template <int COLUMNS, bool LEFT_TURNED, bool RIGHT_TURNED>
__device__ void pc_multiply_bfloat16(float* upper, float* lower, unsigned long long left, unsigned long long right);
"""


def _product_of_bytes(left: str, right: str) -> str:
    """The tensor cores' function for ``int8`` and ``uint8`` operands."""
    kinds = ".".join({"int8": "s8", "uint8": "u8"}[kind] for kind in (left, right))
    return f"""
static __device__ __forceinline__ void pc_mma_{left}_{right}(
    int& s0, int& s1, int& s2, int& s3, unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1) {{
    asm("mma.sync.aligned.m16n8k32.row.col.s32.{kinds}.s32 {{%0, %1, %2, %3}}, {{%4, %5, %6, %7}}, {{%8, %9}}, "
        "{{%0, %1, %2, %3}};"
        : "+r"(s0), "+r"(s1), "+r"(s2), "+r"(s3)
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}}
"""


_BYTES = ("int8", "uint8")
_PRODUCTS_OF_BYTES = "".join(_product_of_bytes(left, right) for left in _BYTES for right in _BYTES)

MACHINE = _PTX + _PRODUCTS_OF_BYTES

PORTABLE = r"""
// Where an element of BYTES bytes of a swizzled buffer lies: pieces of 16 bytes change places within rows of 128.
template <int BYTES>
static __device__ __forceinline__ int pc_swizzled(int element) {
    return element ^ (element / (128 / BYTES) & 7) * (16 / BYTES);
}

static __device__ __forceinline__ float pc_from_bfloat16(unsigned short x) {
    return __uint_as_float((unsigned)x << 16);
}

// To nearest even: the step through float rounds to odd, so nothing is rounded twice.
static __device__ __forceinline__ unsigned short pc_to_bfloat16(double x) {
    const float toward_zero = __double2float_rz(x);
    const unsigned inexact = (double)toward_zero != x;
    return pc_to_bfloat16(__uint_as_float(__float_as_uint(toward_zero) | inexact));
}

template <typename T>
constexpr bool pc_is_float = T(0.5) != T(0);

template <typename A, typename B>
static __device__ __forceinline__ auto pc_min(A a, B b) -> decltype(a + b) {
    const decltype(a + b) x = a, y = b;
    return x < y || x != x ? x : y;
}

template <typename A, typename B>
static __device__ __forceinline__ auto pc_max(A a, B b) -> decltype(a + b) {
    const decltype(a + b) x = a, y = b;
    return x > y || x != x ? x : y;
}

// Division and remainder of numbers of any types, rounded towards zero or down. Those of integers never trap: by 0 they
// give 0, and the minimum divided by -1 is the minimum.
template <typename A, typename B>
static __device__ __forceinline__ auto pc_truncdiv(A a, B b) -> decltype(a + b) {
    using T = decltype(a + b);
    const T x = a, y = b;
    if constexpr (pc_is_float<T>) return trunc(x / y);
    else if (T(-1) < T(0) && y == T(-1)) return T(0) - x;
    else return y == 0 ? T(0) : x / y;
}

template <typename A, typename B>
static __device__ __forceinline__ auto pc_truncmod(A a, B b) -> decltype(a + b) {
    using T = decltype(a + b);
    const T x = a, y = b;
    if constexpr (pc_is_float<T>) return fmod(x, y);
    else return y == 0 || (T(-1) < T(0) && y == T(-1)) ? T(0) : x % y;
}

template <typename A, typename B>
static __device__ __forceinline__ auto pc_floordiv(A a, B b) -> decltype(a + b) {
    using T = decltype(a + b);
    const T x = a, y = b;
    if constexpr (pc_is_float<T>) return floor(x / y);
    else {
        const T rest = pc_truncmod(x, y);
        return pc_truncdiv(x, y) - T(rest != 0 && (rest < 0) != (y < 0));
    }
}

template <typename A, typename B>
static __device__ __forceinline__ auto pc_floormod(A a, B b) -> decltype(a + b) {
    using T = decltype(a + b);
    const T y = b, rest = pc_truncmod((T)a, y);
    return rest != 0 && (rest < 0) != (y < 0) ? rest + y : rest;
}

// Shifts of integers in which an amount of the width or more (or below 0) moves all bits out.
template <typename T, typename N>
static __device__ __forceinline__ auto pc_shl(T x, N n) -> decltype(x << 1) {
    return (unsigned long long)n < 8 * sizeof(T) ? x << n : 0;
}

template <typename T, typename N>
static __device__ __forceinline__ auto pc_shr(T x, N n) -> decltype(x >> 1) {
    if ((unsigned long long)n < 8 * sizeof(T)) return x >> n;
    return x < 0 ? -1 : 0;
}

// Tells of an index that is outside of a dimension, unless one was told before.
static __device__ __forceinline__ void pc_wrong_index(long long* status, long long index, long long size) {
    if (atomicCAS((unsigned long long*)status, 0ull, 1ull) == 0) {
        status[1] = index;
        status[2] = size;
    }
}
"""

PRELUDE = MACHINE + PORTABLE
