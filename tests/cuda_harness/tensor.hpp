// Tensor cores, for device.hpp: each lane of a warp passes what the instruction takes, and gets what it gives.

// 10 bits of fraction, to nearest, ties away from zero.
static inline unsigned pc_to_tf32(float x) { return (__float_as_uint(x) + 0x1000) & 0xffffe000; }

namespace harness {
static inline unsigned shuffled(unsigned value, int source, int line) {
    return __shfl_sync(0xffffffffu, value, source, 32, line);
}

static inline float low_of(unsigned pair, float (*convert)(unsigned short)) { return convert(pair & 0xffff); }
static inline float high_of(unsigned pair, float (*convert)(unsigned short)) { return convert(pair >> 16); }

// Matrix i of 8 by 8: lane 8*i + j has the address of row j; lane 4*r + c gets elements 2*c and 2*c + 1 of row r, or,
// turned, of column r.
static inline unsigned matrix_pair(const void* row, int matrix, bool turned, int line) {
    const int r = lane() / 4, c = lane() % 4;
    unsigned short pair[2];
    for (int k = 0; k < 2; ++k) {
        const int from = matrix * 8 + (turned ? 2 * c + k : r);
        const auto address = __shfl_sync(0xffffffffu, (unsigned long long)row, from, 32, line);
        pair[k] = ((const unsigned short*)address)[turned ? r : 2 * c + k];
    }
    return pair[0] | (unsigned)pair[1] << 16;
}

// Sums of products of 16 steps: lane 4*r + q has steps 2*q, 2*q + 1 (and those 8 later) of rows r and r + 8, and of
// column r.
static inline void mma16(
    float* s, const unsigned* a, const unsigned* b, float (*convert)(unsigned short), int line) {
    const int r = lane() / 4, c = lane() % 4;
    for (int q = 0; q < 4; ++q) {
        unsigned left[4], right[2][2];
        for (int i = 0; i < 4; ++i) left[i] = shuffled(a[i], 4 * r + q, line);
        for (int i = 0; i < 2; ++i)
            for (int j = 0; j < 2; ++j) right[j][i] = shuffled(b[i], 4 * (2 * c + j) + q, line);
        for (int h = 0; h < 2; ++h)
            for (int j = 0; j < 2; ++j)
                for (int i = 0; i < 2; ++i) {
                    const unsigned x = left[h + 2 * i], y = right[j][i];
                    s[2 * h + j] += low_of(x, convert) * low_of(y, convert) + high_of(x, convert) * high_of(y, convert);
                }
    }
}

// Sums of products of 32 steps of bytes: lane 4*r + q has steps 4*q to 4*q + 3 (and those 16 later) of rows r and r + 8,
// and of column r.
template <typename L, typename R>
static inline void mma32(int* s, const unsigned* a, const unsigned* b, int line) {
    const int r = lane() / 4, c = lane() % 4;
    for (int q = 0; q < 4; ++q) {
        unsigned left[4], right[2][2];
        for (int i = 0; i < 4; ++i) left[i] = shuffled(a[i], 4 * r + q, line);
        for (int i = 0; i < 2; ++i)
            for (int j = 0; j < 2; ++j) right[j][i] = shuffled(b[i], 4 * (2 * c + j) + q, line);
        for (int h = 0; h < 2; ++h)
            for (int j = 0; j < 2; ++j)
                for (int i = 0; i < 2; ++i)
                    for (int bit = 0; bit < 32; bit += 8) {
                        const int x = (L)(left[h + 2 * i] >> bit), y = (R)(right[j][i] >> bit);
                        s[2 * h + j] = (int)((unsigned)s[2 * h + j] + (unsigned)(x * y));
                    }
    }
}

template <typename L, typename R>
static inline void mma_bytes(
    int& s0, int& s1, int& s2, int& s3, const unsigned (&a)[4], const unsigned (&b)[2], int line) {
    int s[4] = {s0, s1, s2, s3};
    mma32<L, R>(s, a, b, line);
    s0 = s[0], s1 = s[1], s2 = s[2], s3 = s[3];
}
}  // namespace harness

static inline void pc_load_matrices4(
    unsigned& r0, unsigned& r1, unsigned& r2, unsigned& r3, const void* row, int line = __builtin_LINE()) {
    r0 = harness::matrix_pair(row, 0, false, line);
    r1 = harness::matrix_pair(row, 1, false, line);
    r2 = harness::matrix_pair(row, 2, false, line);
    r3 = harness::matrix_pair(row, 3, false, line);
}
static inline void pc_load_matrices4_turned(
    unsigned& r0, unsigned& r1, unsigned& r2, unsigned& r3, const void* row, int line = __builtin_LINE()) {
    r0 = harness::matrix_pair(row, 0, true, line);
    r1 = harness::matrix_pair(row, 1, true, line);
    r2 = harness::matrix_pair(row, 2, true, line);
    r3 = harness::matrix_pair(row, 3, true, line);
}
static inline void pc_load_matrices2(
    unsigned& r0, unsigned& r1, const void* row, int line = __builtin_LINE()) {
    r0 = harness::matrix_pair(row, 0, false, line);
    r1 = harness::matrix_pair(row, 1, false, line);
}
static inline void pc_load_matrices2_turned(
    unsigned& r0, unsigned& r1, const void* row, int line = __builtin_LINE()) {
    r0 = harness::matrix_pair(row, 0, true, line);
    r1 = harness::matrix_pair(row, 1, true, line);
}

static inline void pc_mma_half(
    float& s0, float& s1, float& s2, float& s3, unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0,
    unsigned b1, int line = __builtin_LINE()) {
    float s[4] = {s0, s1, s2, s3};
    const unsigned a[4] = {a0, a1, a2, a3}, b[2] = {b0, b1};
    harness::mma16(s, a, b, pc_from_half, line);
    s0 = s[0], s1 = s[1], s2 = s[2], s3 = s[3];
}
static inline float harness_from_bfloat16(unsigned short x) { return __uint_as_float((unsigned)x << 16); }
static inline void pc_mma_bfloat16(
    float& s0, float& s1, float& s2, float& s3, unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0,
    unsigned b1, int line = __builtin_LINE()) {
    float s[4] = {s0, s1, s2, s3};
    const unsigned a[4] = {a0, a1, a2, a3}, b[2] = {b0, b1};
    harness::mma16(s, a, b, harness_from_bfloat16, line);
    s0 = s[0], s1 = s[1], s2 = s[2], s3 = s[3];
}

// Of 8 steps: lane 4*r + q has steps q and q + 4 of rows r and r + 8, and of column r.
static inline void pc_mma_tf32(
    float& s0, float& s1, float& s2, float& s3, float a0, float a1, float a2, float a3, float b0, float b1,
    int line = __builtin_LINE()) {
    float s[4] = {s0, s1, s2, s3};
    const float a[4] = {a0, a1, a2, a3}, b[2] = {b0, b1};
    const int r = harness::lane() / 4, c = harness::lane() % 4;
    for (int q = 0; q < 4; ++q) {
        float left[4], right[2][2];
        for (int i = 0; i < 4; ++i)
            left[i] = __uint_as_float(pc_to_tf32(__shfl_sync(0xffffffffu, a[i], 4 * r + q, 32, line)));
        for (int i = 0; i < 2; ++i)
            for (int j = 0; j < 2; ++j)
                right[j][i] = __uint_as_float(pc_to_tf32(__shfl_sync(0xffffffffu, b[i], 4 * (2 * c + j) + q, 32, line)));
        for (int h = 0; h < 2; ++h)
            for (int j = 0; j < 2; ++j)
                for (int i = 0; i < 2; ++i) s[2 * h + j] += left[h + 2 * i] * right[j][i];
    }
    s0 = s[0], s1 = s[1], s2 = s[2], s3 = s[3];
}

static inline void pc_mma_int8_int8(
    int& s0, int& s1, int& s2, int& s3, unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1,
    int line = __builtin_LINE()) {
    harness::mma_bytes<signed char, signed char>(s0, s1, s2, s3, {a0, a1, a2, a3}, {b0, b1}, line);
}
static inline void pc_mma_int8_uint8(
    int& s0, int& s1, int& s2, int& s3, unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1,
    int line = __builtin_LINE()) {
    harness::mma_bytes<signed char, unsigned char>(s0, s1, s2, s3, {a0, a1, a2, a3}, {b0, b1}, line);
}
static inline void pc_mma_uint8_int8(
    int& s0, int& s1, int& s2, int& s3, unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1,
    int line = __builtin_LINE()) {
    harness::mma_bytes<unsigned char, signed char>(s0, s1, s2, s3, {a0, a1, a2, a3}, {b0, b1}, line);
}
static inline void pc_mma_uint8_uint8(
    int& s0, int& s1, int& s2, int& s3, unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1,
    int line = __builtin_LINE()) {
    harness::mma_bytes<unsigned char, unsigned char>(s0, s1, s2, s3, {a0, a1, a2, a3}, {b0, b1}, line);
}
