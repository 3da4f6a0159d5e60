// Products of warpgroups, for device.hpp: each thread adds what is its own, when it waits for them.

namespace harness {
// Where an operand begins, and the bytes between panels and between groups of eight rows.
struct Described {
    const char* first;
    int panels, groups;
};

constexpr int MOST_DESCRIBED = 64;  // that a thread has not waited for

// Element of a row (or column) and a step, in a swizzled matrix: pieces of 16 bytes change places by their address.
static inline unsigned short element(const Described& from, bool turned, int row, int step) {
    const int outer = turned ? step : row, inner = turned ? row : step;
    const char* place = from.first + inner / 64 * (turned ? from.panels : 0) + outer / 8 * from.groups + outer % 8 * 128;
    unsigned long long address = (unsigned long long)(place + inner % 64 * 2);
    address ^= (address >> 7 & 7) << 4;
    return *(const unsigned short*)address;
}

struct Product {
    float *upper, *lower;
    Described left, right;
    int columns;
    bool left_turned, right_turned;
    float (*convert)(unsigned short);
};

struct Products {
    Product waiting[MOST_DESCRIBED];
    int count;
    Described described[2];
    int which;
};

static Products products[1024];  // by thread

static HARNESS_UNWATCHED Products& own_products() { return products[threadIdx.x]; }

static inline void multiply(const Product& p) {
    const int row = threadIdx.x / 32 % 4 * 16 + lane() / 4;
    for (int tile = 0; tile < p.columns / 8; ++tile)
        for (int half = 0; half < 2; ++half)
            for (int i = 0; i < 2; ++i) {
                float& sum = (half ? p.lower : p.upper)[2 * tile + i];
                const int column = 8 * tile + lane() % 4 * 2 + i;
                for (int step = 0; step < 16; ++step)
                    sum += p.convert(element(p.left, p.left_turned, row + 8 * half, step)) *
                           p.convert(element(p.right, p.right_turned, column, step));
            }
}

static HARNESS_UNWATCHED void keep(const Product& p) {
    Products& own = own_products();
    if (own.count == MOST_DESCRIBED) __builtin_trap();
    own.waiting[own.count++] = p;
}

static HARNESS_UNWATCHED bool next_product(Product& p, int number) {
    Products& own = own_products();
    if (number == own.count) {
        own.count = 0;
        return false;
    }
    p = own.waiting[number];
    return true;
}
}  // namespace harness

// A description stands for the thread's last two, one of which it is the number of.
static HARNESS_UNWATCHED unsigned long long pc_describe(
    const void* first, unsigned long long panels, unsigned long long groups) {
    if ((unsigned long long)first % 16 || panels % 16 || groups % 16 || panels >> 18 || groups >> 18) __builtin_trap();
    harness::Products& own = harness::own_products();
    own.which = !own.which;
    own.described[own.which] = {(const char*)first, (int)panels, (int)groups};
    return own.which;
}

static inline void pc_show_stores() {}

template <int COUNT>
static inline void pc_begin_products(float*, int line = __builtin_LINE()) {
    for (int other = 0; other < 4; ++other) harness::shuffled(0, other, line);  // all threads of a warp come here
}

template <int COUNT>
static inline void pc_end_products(float*) {
    harness::Product p;
    for (int number = 0; harness::next_product(p, number); ++number) harness::multiply(p);
}

template <int COLUMNS, bool LEFT_TURNED, bool RIGHT_TURNED>
static HARNESS_UNWATCHED void pc_multiply_half(
    float* upper, float* lower, unsigned long long left, unsigned long long right) {
    static_assert(COLUMNS % 8 == 0 && COLUMNS >= 8 && COLUMNS <= 256, "wgmma has 8 to 256 columns");
    const harness::Described* d = harness::own_products().described;
    harness::keep({upper, lower, d[left], d[right], COLUMNS, LEFT_TURNED, RIGHT_TURNED, pc_from_half});
}

template <int COLUMNS, bool LEFT_TURNED, bool RIGHT_TURNED>
static HARNESS_UNWATCHED void pc_multiply_bfloat16(
    float* upper, float* lower, unsigned long long left, unsigned long long right) {
    static_assert(COLUMNS % 8 == 0 && COLUMNS >= 8 && COLUMNS <= 256, "wgmma has 8 to 256 columns");
    const harness::Described* d = harness::own_products().described;
    harness::keep({upper, lower, d[left], d[right], COLUMNS, LEFT_TURNED, RIGHT_TURNED, harness_from_bfloat16});
}
