// CUDA C for a CPU: the built-in names of the language, and the functions of polycomp's prelude that need a GPU
// (prelude.MACHINE). What is not CUDA's is in namespace harness. No header of the library is read: that would take
// longer than the compilation of a kernel. As NVRTC, this knows no names of <cstdint> or <cfloat>.
#pragma once

#include "launch.hpp"

#define __global__ __attribute__((visibility("hidden"), noipa))
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __builtin_assume(x) harness::assume((x), __builtin_LINE())
// __shared__ is defined before each source: `static` in a section of its own (see build.py).

constexpr int warpSize = harness::WARP;
using size_t = decltype(sizeof(0));

// ---- vectors: with CUDA's alignment -------------------------------------------------------------

#define HARNESS_VECTORS(T, NAME)                                                                    \
    struct alignas(2 * sizeof(T)) NAME##2 { T x, y; };                                              \
    struct NAME##3 { T x, y, z; };                                                                  \
    struct alignas(4 * sizeof(T) > 16 ? 16 : 4 * sizeof(T)) NAME##4 { T x, y, z, w; };              \
    static inline NAME##2 make_##NAME##2(T x, T y) { return {x, y}; }                               \
    static inline NAME##3 make_##NAME##3(T x, T y, T z) { return {x, y, z}; }                       \
    static inline NAME##4 make_##NAME##4(T x, T y, T z, T w) { return {x, y, z, w}; }
#define uint3 harness_uint3  // launch.hpp has it
HARNESS_VECTORS(unsigned, uint)
#undef uint3
HARNESS_VECTORS(signed char, char)
HARNESS_VECTORS(unsigned char, uchar)
HARNESS_VECTORS(short, short)
HARNESS_VECTORS(unsigned short, ushort)
HARNESS_VECTORS(int, int)
HARNESS_VECTORS(long long, longlong)
HARNESS_VECTORS(unsigned long long, ulonglong)
HARNESS_VECTORS(float, float)
HARNESS_VECTORS(double, double)

// ---- mathematics --------------------------------------------------------------------------------

#define HARNESS_UNARY(F) double F(double) noexcept; float F##f(float) noexcept;
#define HARNESS_BINARY(F) double F(double, double) noexcept; float F##f(float, float) noexcept;
extern "C" {
HARNESS_UNARY(sqrt) HARNESS_UNARY(cbrt) HARNESS_UNARY(exp) HARNESS_UNARY(exp2) HARNESS_UNARY(exp10)
HARNESS_UNARY(expm1) HARNESS_UNARY(log) HARNESS_UNARY(log2) HARNESS_UNARY(log10) HARNESS_UNARY(log1p)
HARNESS_UNARY(sin) HARNESS_UNARY(cos) HARNESS_UNARY(tan) HARNESS_UNARY(asin) HARNESS_UNARY(acos) HARNESS_UNARY(atan)
HARNESS_UNARY(sinh) HARNESS_UNARY(cosh) HARNESS_UNARY(tanh) HARNESS_UNARY(asinh) HARNESS_UNARY(acosh)
HARNESS_UNARY(atanh) HARNESS_UNARY(erf) HARNESS_UNARY(erfc) HARNESS_UNARY(tgamma) HARNESS_UNARY(lgamma)
HARNESS_UNARY(floor) HARNESS_UNARY(ceil) HARNESS_UNARY(trunc) HARNESS_UNARY(rint) HARNESS_UNARY(nearbyint)
HARNESS_UNARY(round) HARNESS_UNARY(fabs)
HARNESS_BINARY(pow) HARNESS_BINARY(atan2) HARNESS_BINARY(fmod) HARNESS_BINARY(remainder) HARNESS_BINARY(copysign)
HARNESS_BINARY(fmin) HARNESS_BINARY(fmax) HARNESS_BINARY(hypot)
double fma(double, double, double) noexcept;
float fmaf(float, float, float) noexcept;
double ldexp(double, int) noexcept;
float ldexpf(float, int) noexcept;
int abs(int) noexcept;
}
static inline double rsqrt(double x) { return 1 / sqrt(x); }
static inline float rsqrtf(float x) { return 1 / sqrtf(x); }
static inline long long abs(long long x) { return x < 0 ? -x : x; }
static inline float abs(float x) { return fabsf(x); }
static inline double abs(double x) { return fabs(x); }
static inline float __expf(float x) { return expf(x); }
static inline float __logf(float x) { return logf(x); }
static inline float __log2f(float x) { return log2f(x); }
static inline float __sinf(float x) { return sinf(x); }
static inline float __cosf(float x) { return cosf(x); }
static inline float __powf(float x, float y) { return powf(x, y); }
static inline float __fdividef(float x, float y) { return x / y; }
static inline float __fdiv_rn(float x, float y) { return x / y; }
static inline float __frcp_rn(float x) { return 1 / x; }
static inline float __fsqrt_rn(float x) { return sqrtf(x); }
static inline float __fadd_rn(float x, float y) { return x + y; }
static inline float __fmul_rn(float x, float y) { return x * y; }
static inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
static inline float __saturatef(float x) { return x > 0 ? x < 1 ? x : 1 : 0; }
#define isnan(x) __builtin_isnan(x)
#define isinf(x) __builtin_isinf(x)
#define isfinite(x) __builtin_isfinite(x)
#define signbit(x) __builtin_signbit(x)

#define HARNESS_EXTREMA(T)                                          \
    static inline T min(T x, T y) { return y < x ? y : x; }         \
    static inline T max(T x, T y) { return x < y ? y : x; }
HARNESS_EXTREMA(int) HARNESS_EXTREMA(unsigned) HARNESS_EXTREMA(long long) HARNESS_EXTREMA(unsigned long long)
static inline float min(float x, float y) { return fminf(x, y); }
static inline float max(float x, float y) { return fmaxf(x, y); }
static inline double min(double x, double y) { return fmin(x, y); }
static inline double max(double x, double y) { return fmax(x, y); }

// ---- bits ---------------------------------------------------------------------------------------

namespace harness {
template <typename To, typename From>
static inline To bits(From from) {
    static_assert(sizeof(To) >= sizeof(From), "bits would be lost");
    To to{};
    __builtin_memcpy(&to, &from, sizeof from);
    return to;
}
static inline void assume(bool holds, int line) {
    if (!holds) fail("assumes in line %d what does not hold", line);
}
}  // namespace harness

static inline int __float_as_int(float x) { return harness::bits<int>(x); }
static inline unsigned __float_as_uint(float x) { return harness::bits<unsigned>(x); }
static inline float __int_as_float(int x) { return harness::bits<float>(x); }
static inline float __uint_as_float(unsigned x) { return harness::bits<float>(x); }
static inline long long __double_as_longlong(double x) { return harness::bits<long long>(x); }
static inline double __longlong_as_double(long long x) { return harness::bits<double>(x); }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
static inline int __clzll(long long x) { return x ? __builtin_clzll(x) : 64; }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __mulhi(int x, int y) { return (1ll * x * y) >> 32; }
static inline unsigned __umulhi(unsigned x, unsigned y) { return (1ull * x * y) >> 32; }
static inline unsigned long long __umul64hi(unsigned long long x, unsigned long long y) {
    return ((unsigned __int128)x * y) >> 64;
}
static inline int __dp4a(int x, int y, int sum) {
    for (int i = 0; i < 4; i++) sum += (signed char)(x >> 8 * i) * (signed char)(y >> 8 * i);
    return sum;
}
static inline int __float2int_rn(float x) { return (int)rintf(x); }
static inline float __double2float_rz(double x) {
    const float near = (float)x;
    const bool beyond = fabs((double)near) > fabs(x);
    return beyond ? __uint_as_float(__float_as_uint(near) - 1) : near;
}
template <typename T>
static inline T __ldg(const T* address) { return *address; }

// ---- threads that wait for one another ----------------------------------------------------------

static inline void __syncthreads(int line = __builtin_LINE()) { harness::wait_for_block(line); }
static inline void __syncwarp(unsigned lanes = ~0u, int line = __builtin_LINE()) {
    harness::meet(harness::SYNCWARP, lanes, 0, 0, line);
}
static inline void __threadfence() {}
static inline void __threadfence_block() {}

namespace harness {
template <typename T>
static inline T shuffle(unsigned lanes, T value, int source, bool inside, int line) {
    if (!inside) source = lane();
    const unsigned long long got = meet(SHUFFLE, lanes, bits<unsigned long long>(value), source, line);
    T result;
    __builtin_memcpy(&result, &got, sizeof result);
    return result;
}
}  // namespace harness

// A warp may be cut into pieces of `width` lanes; beyond its piece a lane gets its own value.
template <typename T>
static inline T __shfl_sync(unsigned lanes, T value, int source, int width = 32, int line = __builtin_LINE()) {
    const int first = harness::lane() & -width;
    return harness::shuffle(lanes, value, first | (source & (width - 1)), true, line);
}
template <typename T>
static inline T __shfl_xor_sync(unsigned lanes, T value, int mask, int width = 32, int line = __builtin_LINE()) {
    const int source = (harness::lane() ^ mask) & 31;
    return harness::shuffle(lanes, value, source, source < (harness::lane() & -width) + width, line);
}
template <typename T>
static inline T __shfl_down_sync(unsigned lanes, T value, unsigned by, int width = 32, int line = __builtin_LINE()) {
    const int source = harness::lane() + by;
    return harness::shuffle(lanes, value, source, source < (harness::lane() & -width) + width, line);
}
template <typename T>
static inline T __shfl_up_sync(unsigned lanes, T value, unsigned by, int width = 32, int line = __builtin_LINE()) {
    const int source = harness::lane() - by;
    return harness::shuffle(lanes, value, source, source >= (harness::lane() & -width), line);
}
static inline unsigned __ballot_sync(unsigned lanes, int vote, int line = __builtin_LINE()) {
    return harness::meet(harness::BALLOT, lanes, vote != 0, 0, line);
}
static inline int __any_sync(unsigned lanes, int vote, int line = __builtin_LINE()) {
    return __ballot_sync(lanes, vote, line) != 0;
}
static inline int __all_sync(unsigned lanes, int vote, int line = __builtin_LINE()) {
    return __ballot_sync(lanes, !vote, line) == 0;
}

// ---- atomic functions: those that CUDA has, no others -------------------------------------------

#define HARNESS_ATOMIC(NAME, T, RESULT)                                                     \
    static __attribute__((noinline, no_sanitize_thread)) T NAME(T* address, T value) {      \
        const T old = *address;                                                             \
        *address = RESULT;                                                                  \
        return old;                                                                         \
    }
#define HARNESS_ATOMICS(T)                                                                              \
    HARNESS_ATOMIC(atomicAdd, T, old + value)                                                           \
    HARNESS_ATOMIC(atomicExch, T, value)
#define HARNESS_ATOMIC_EXTREMA(T)                                                                       \
    HARNESS_ATOMIC(atomicMin, T, value < old ? value : old)                                             \
    HARNESS_ATOMIC(atomicMax, T, old < value ? value : old)                                             \
    HARNESS_ATOMIC(atomicAnd, T, old & value)                                                           \
    HARNESS_ATOMIC(atomicOr, T, old | value)
#define HARNESS_ATOMIC_CAS(T)                                                                           \
    static __attribute__((noinline, no_sanitize_thread)) T atomicCAS(T* address, T expected, T value) { \
        const T old = *address;                                                                         \
        if (old == expected) *address = value;                                                          \
        return old;                                                                                     \
    }
HARNESS_ATOMICS(int) HARNESS_ATOMICS(unsigned) HARNESS_ATOMICS(unsigned long long) HARNESS_ATOMICS(float)
HARNESS_ATOMIC(atomicAdd, double, old + value)
HARNESS_ATOMIC_EXTREMA(int) HARNESS_ATOMIC_EXTREMA(unsigned) HARNESS_ATOMIC_EXTREMA(long long)
HARNESS_ATOMIC_EXTREMA(unsigned long long)
HARNESS_ATOMIC_CAS(int) HARNESS_ATOMIC_CAS(unsigned) HARNESS_ATOMIC_CAS(unsigned long long)
HARNESS_ATOMIC_CAS(unsigned short)

// ---- the prelude's functions that need a GPU (prelude.MACHINE) ----------------------------------
// Those of tensor cores are in tensor.hpp and warpgroups.hpp, copies that are waited for in copies.hpp.

// 2**112 moves the exponent to its place; infinities and NaN get the largest one.
static inline float pc_from_half(unsigned short x) {
    const unsigned magnitude = (x & 0x7fffu) << 13;
    const unsigned finite = __float_as_uint(__uint_as_float(magnitude) * 0x1p112f);
    return __uint_as_float((magnitude < 0x0f800000 ? finite : magnitude | 0x7f800000) | (x & 0x8000u) << 16);
}

// Adding a number whose last place is that of the result rounds to it, for normal numbers and those below alike.
static inline unsigned short pc_to_half(double x) {
    const unsigned short sign = __double_as_longlong(x) < 0 ? 0x8000 : 0;
    const double magnitude = fabs(x);
    if (isnan(x)) return 0x7fff;
    if (magnitude >= 65520) return sign | 0x7c00;
    const long long least = __double_as_longlong(0x1p-14), bits = __double_as_longlong(magnitude);
    const long long exponent = (bits > least ? bits : least) >> 52;  // biased by 1023
    const double place = __longlong_as_double((exponent + 42) << 52);
    const double rounded = (magnitude + place) - place;  // a multiple of 2**(exponent - 10)
    if (rounded < 0x1p-14) return sign | (unsigned short)(rounded * 0x1p24);
    const long long result = __double_as_longlong(rounded);
    return sign | (unsigned short)(((result >> 52) - 1008) << 10 | (result >> 42 & 0x3ff));
}
static inline unsigned short pc_to_half(float x) { return pc_to_half((double)x); }

static inline unsigned short pc_to_bfloat16(float x) {
    const unsigned bits = __float_as_uint(x);
    return isnan(x) ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

static inline float pc_min(float x, float y) { return x < y || x != x ? x : y; }
static inline float pc_max(float x, float y) { return x > y || x != x ? x : y; }

template <typename T>
static inline T pc_shuffle_xor(T value, int mask, unsigned lanes = 0xffffffffu, int line = __builtin_LINE()) {
    return __shfl_xor_sync(lanes, value, mask, 32, line);
}
template <typename T>
static inline T pc_shuffle(T value, int source, unsigned lanes = 0xffffffffu, int line = __builtin_LINE()) {
    return __shfl_sync(lanes, value, source, 32, line);
}

#include "copies.hpp"
#include "tensor.hpp"
#include "warpgroups.hpp"

// ---- how a kernel is found and called -----------------------------------------------------------

namespace harness {
template <typename T>
constexpr int parameter = -int(sizeof(T));
template <typename T>
constexpr int parameter<T*> = int(sizeof(T));

template <int... I>
struct Positions {};

template <typename F>
struct Signature;
template <typename... A>
struct Signature<void(A...)> {
    static constexpr int count = sizeof...(A);
    static constexpr int parameters[] = {parameter<A>..., 0};
    template <void (*F)(A...), int... I>
    static void pass(void** arguments, Positions<I...>) { F(*static_cast<A*>(arguments[I])...); }
    template <void (*F)(A...)>
    static void call(void** arguments) { pass<F>(arguments, Positions<__integer_pack(count)...>()); }
};
}  // namespace harness

// After a source whose shared arrays are in section SHARED.
#define HARNESS_KERNEL(F, SHARED)                                                                             \
    extern "C" char __start_##SHARED[] __attribute__((weak, visibility("hidden")));                           \
    extern "C" char __stop_##SHARED[] __attribute__((weak, visibility("hidden")));                            \
    extern "C" __attribute__((visibility("default"))) const harness::Kernel harness_kernel_##F = {            \
        #F, harness::Signature<decltype(F)>::call<F>, __start_##SHARED, __stop_##SHARED,                      \
        harness::Signature<decltype(F)>::parameters, harness::Signature<decltype(F)>::count};
