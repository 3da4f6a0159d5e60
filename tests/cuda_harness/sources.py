"""Kernels written by hand, in the manner of emitted ones."""

MATMUL = r"""
extern "C" __global__ void __launch_bounds__(256) matmul_0(const float* __restrict__ a, const float* __restrict__ b,
        float* __restrict__ c, long long n, unsigned char* __restrict__ workspace, long long* __restrict__ status) {
    __shared__ __align__(16) float a_tile[16][16];
    __shared__ __align__(16) float b_tile[16][16];
    const int x = threadIdx.x % 16, y = threadIdx.x / 16;
    const long long row = blockIdx.x / (n / 16) * 16 + y, column = blockIdx.x % (n / 16) * 16 + x;
    float sum = 0.0f;
    for (long long k = 0; k < n; k += 16) {
        a_tile[y][x] = a[row * n + k + x];
        b_tile[y][x] = b[(k + y) * n + column];
        __syncthreads();  // filled
        #pragma unroll
        for (int i = 0; i < 16; i++) sum += a_tile[y][i] * b_tile[i][x];
        __syncthreads();  // read
    }
    c[row * n + column] = sum;
}
"""

DIVERGENT = r"""
extern "C" __global__ void leaves(float* out, long long n) {
    if (threadIdx.x >= n) return;
    __syncthreads();
    out[threadIdx.x] = 1.0f;
}
extern "C" __global__ void parts(float* out, long long n) {
    if (threadIdx.x < n) {
        __syncthreads();
        out[threadIdx.x] = 1.0f;
    } else {
        out[threadIdx.x] = 2.0f;
        __syncthreads();
    }
}
extern "C" __global__ void lacks_lanes(float* out, long long n) {
    if (threadIdx.x < n) out[threadIdx.x] = pc_shuffle_xor(out[threadIdx.x], 1);
    else __syncthreads();
}
extern "C" __global__ void not_named(float* out) {
    out[threadIdx.x] = pc_shuffle_xor(out[threadIdx.x], 1, 0xffffu);
}
"""

WARPS = r"""
extern "C" __global__ void butterfly(const float* x, float* out) {
    float sum = x[threadIdx.x];
    for (int step = 16; step > 0; step /= 2) sum += pc_shuffle_xor(sum, step);
    out[threadIdx.x] = sum;
}
extern "C" __global__ void shuffles(const long long* x, long long* out) {
    const long long value = x[threadIdx.x];
    const unsigned all = 0xffffffffu;
    long long* mine = out + threadIdx.x * 6;
    mine[0] = __shfl_xor_sync(all, value, 5);
    mine[1] = __shfl_down_sync(all, value, 3);
    mine[2] = __shfl_up_sync(all, value, 3, 8);
    mine[3] = __shfl_sync(all, value, 11, 8);
    mine[4] = __ballot_sync(all, value % 3 == 0);
    mine[5] = __any_sync(all, value == 7) * 2 + __all_sync(all, value >= 0);
}
extern "C" __global__ void types(const double* d, const unsigned* u, const unsigned short* h, double* e, unsigned* v,
        unsigned short* i) {
    const int t = threadIdx.x;
    e[t] = pc_shuffle_xor(d[t], 1);
    v[t] = pc_shuffle(u[t], 2);
    i[t] = pc_shuffle_xor(h[t], 16);
}
extern "C" __global__ void exchange_by_memory(const float* x, float* out) {
    __shared__ float values[32];
    values[threadIdx.x] = x[threadIdx.x];
    __syncwarp();
    out[threadIdx.x] = values[31 - threadIdx.x];
}
"""

BLOCK_SUM = r"""
static __device__ float block_sum(float value, float* partial) {
    for (int step = 16; step > 0; step /= 2) value += pc_shuffle_xor(value, step);
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
    __syncthreads();
    value = threadIdx.x % 32 < blockDim.x / 32 ? partial[threadIdx.x % 32] : 0.0f;
    for (int step = 16; step > 0; step /= 2) value += pc_shuffle_xor(value, step);
    return value;
}
extern "C" __global__ void __launch_bounds__(256) sum_0(const float* __restrict__ x, float* __restrict__ out,
        long long n) {
    __shared__ float partial[32];
    float value = 0.0f;
    for (long long i = threadIdx.x; i < n; i += 256) value += x[blockIdx.x * n + i];
    value = block_sum(value, partial);
    if (threadIdx.x == 0) out[blockIdx.x] = value;
}
"""

MEMORY = r"""
extern "C" __global__ void reverse(const float* x, float* out) {
    extern __shared__ __align__(16) float values[];
    values[threadIdx.x] = x[blockIdx.x * blockDim.x + threadIdx.x];
    __syncthreads();
    out[blockIdx.x * blockDim.x + threadIdx.x] = values[blockDim.x - 1 - threadIdx.x];
}
extern "C" __global__ void unwritten(float* out) {
    __shared__ float values[64];
    extern __shared__ float more[];
    out[2 * blockIdx.x] = values[threadIdx.x];
    out[2 * blockIdx.x + 1] = more[threadIdx.x];
    values[threadIdx.x] = more[threadIdx.x] = 1.0f;
}
extern "C" __global__ void swapped(const float* __restrict__ x, float* __restrict__ out, long long shift) {
    const float4 v = *(const float4*)(x + shift + threadIdx.x * 4);
    *(float4*)(out + threadIdx.x * 4) = make_float4(v.w, v.z, v.y, v.x);
}
extern "C" __global__ void shifted(const float* x, float* out, long long by) {
    out[threadIdx.x] = x[threadIdx.x + by];
}
extern "C" __global__ void indexed(const int* x, int* out, long long i) {
    __shared__ int shared_values[8];
    int values[4] = {1, 2, 3, 4};
    shared_values[i] = x[0];
    out[0] = values[x[0]] + shared_values[i];
}
extern "C" __global__ void overruns(const float* x, float* out, long long by) {
    __shared__ float values[8];
    __shared__ float others[8];
    float* p = values;
    p[threadIdx.x + by] = others[threadIdx.x] = x[0];
    __syncthreads();
    out[threadIdx.x] = p[0] + others[by];
}
extern "C" __global__ void positions(int* out) {
    const int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    const int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    out[block * blockDim.x * blockDim.y * blockDim.z + thread] += block * 100 + thread;
}
extern "C" __global__ void divides(const int* x, int* out) { out[0] = x[0] / x[1]; }
extern "C" __global__ void recursive(int* out, long long depth) {
    volatile int much[30000];
    much[depth] = 1;
    out[0] = much[depth];
}
extern "C" __global__ void assumes(int* out, long long n) {
    __builtin_assume(n % 4 == 0);
    out[0] = n;
}
extern "C" __global__ void copied(const float* x, float* out, long long shift) {
    *(float4*)(out + threadIdx.x * 4) = *(const float4*)(x + shift + threadIdx.x * 4);
}
"""

ATOMICS = r"""
extern "C" __global__ void checked(const long long* __restrict__ index, float* __restrict__ out, long long n,
        unsigned char* __restrict__ workspace, long long* __restrict__ status) {
    const long long i = index[threadIdx.x];
    if (i < 0 || i >= n) pc_wrong_index(status, i, n);
    else out[i] = 1.0f;
}
extern "C" __global__ void counts(int* a, unsigned long long* b, float* c, long long* d) {
    atomicAdd(a, 1);
    atomicAdd(b, 2ull);
    atomicAdd(c, 0.5f);
    atomicMax(d, (long long)threadIdx.x);
    atomicMax(a + 1, (int)threadIdx.x);
    atomicCAS(a + 2, 0, (int)threadIdx.x + 1);
}
"""

CONVERSIONS = r"""
extern "C" __global__ void halves(const unsigned short* h, float* half_value, float* bfloat_value) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    half_value[i] = pc_from_half(h[i]);
    bfloat_value[i] = pc_from_bfloat16(h[i]);
}
extern "C" __global__ void floats(const float* x, unsigned short* half, unsigned short* bfloat) {
    half[blockIdx.x] = pc_to_half(x[blockIdx.x]);
    bfloat[blockIdx.x] = pc_to_bfloat16(x[blockIdx.x]);
}
extern "C" __global__ void doubles(const double* x, unsigned short* half, unsigned short* bfloat) {
    half[blockIdx.x] = pc_to_half(x[blockIdx.x]);
    bfloat[blockIdx.x] = pc_to_bfloat16(x[blockIdx.x]);
}
"""

ARITHMETIC = r"""
extern "C" __global__ void integers(const int* a, const int* b, int* out) {
    const int i = blockIdx.x, x = a[i], y = b[i];
    int* mine = out + 8 * i;
    mine[0] = pc_floordiv(x, y);
    mine[1] = pc_floormod(x, y);
    mine[2] = pc_truncdiv(x, y);
    mine[3] = pc_truncmod(x, y);
    mine[4] = pc_floordiv((long long)x, y);
    mine[5] = pc_floordiv((unsigned)x, (unsigned)y);
    mine[6] = pc_shl(x, y);
    mine[7] = pc_shr(x, y);
}
extern "C" __global__ void reals(const float* a, const float* b, float* out, const double* c, const double* d) {
    const int i = blockIdx.x;
    const float x = a[i], y = b[i];
    float* mine = out + 6 * i;
    mine[0] = pc_min(x, y);
    mine[1] = pc_max(x, y);
    mine[2] = pc_floordiv(x, y);
    mine[3] = pc_floormod(x, y);
    mine[4] = pc_truncmod(x, y);
    mine[5] = pc_max(c[i], d[i]);
}
extern "C" __global__ void intrinsics(const float* x, float* out) {
    out[0] = rsqrtf(x[0]);
    out[1] = __int_as_float(__float_as_int(x[1]) ^ (int)0x80000000);
    out[2] = max(x[0], 3.0f) + min(2, 1) + (float)max(1u, 2u);
    out[3] = expf(x[0]) + erff(x[0]) + tanhf(x[0]) + fmaf(x[0], x[1], 1.0f);
    out[4] = __popc(255) + __clz(1) + __dp4a(0x01020304, 0x01ff0101, 10);
    out[5] = isnan(x[0]) + 2 * isinf(x[1]) + __ldg(x);
}
"""

RACES = r"""
extern "C" __global__ void neighbours(const float* x, float* out, long long wait) {
    __shared__ float values[64];
    values[threadIdx.x] = x[threadIdx.x];
    if (wait == 1) __syncthreads();
    if (wait == 2) __syncwarp();
    out[threadIdx.x] = values[threadIdx.x ^ 1] + values[threadIdx.x ^ 32];
}
extern "C" __global__ void same_place(float* out) { out[blockIdx.x / 2] = 1.0f; }
extern "C" __global__ void bytes(unsigned char* out) { out[threadIdx.x] = 1; }
extern "C" __global__ void total(float* out) { atomicAdd(out, 1.0f); }
"""

SCALE_AND_SHIFT = r"""
extern "C" __global__ void __launch_bounds__(64) twice_0(const float* __restrict__ x, float* __restrict__ out,
        long long n, unsigned char* __restrict__ workspace, long long* __restrict__ status) {
    const long long i = blockIdx.x * 64ll + threadIdx.x;
    if (i < n) ((float*)workspace)[i] = 2.0f * x[i];
}
extern "C" __global__ void __launch_bounds__(64) twice_1(const float* __restrict__ x, float* __restrict__ out,
        long long n, unsigned char* __restrict__ workspace, long long* __restrict__ status) {
    const long long i = blockIdx.x * 64ll + threadIdx.x;
    if (i < n) out[i] = ((float*)workspace)[n - 1 - i];
}
"""

SOURCES = (MATMUL, DIVERGENT, WARPS, BLOCK_SUM, MEMORY, ATOMICS, CONVERSIONS, ARITHMETIC, RACES, SCALE_AND_SHIFT)
