// Copies to shared memory that are done when they are waited for, for device.hpp: what is read before shows.

namespace harness {
struct Copy {
    void* to;
    const void* from;  // null: zeros
    int bytes, group;
};

constexpr int MOST_COPIES = 256;  // that a thread has not waited for

struct Copies {
    Copy waiting[MOST_COPIES];
    int count, committed;
};

static Copies copies[1024];  // by thread

// What is copied is watched for races; the lists of copies are not the kernel's.
#define HARNESS_UNWATCHED __attribute__((noinline, no_sanitize_thread))

static __attribute__((noinline)) void copy_now(void* to, const void* from, int bytes) {
    for (int i = 0; i < bytes / 4; ++i) ((unsigned*)to)[i] = from ? ((const unsigned*)from)[i] : 0;
}
}  // namespace harness

template <int BYTES>
static HARNESS_UNWATCHED void pc_copy_ahead(void* to, const void* from, bool wanted) {
    static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "cp.async copies 4, 8 or 16 bytes");
    if ((unsigned long long)to % BYTES || (wanted && (unsigned long long)from % BYTES)) __builtin_trap();
    harness::Copies& own = harness::copies[threadIdx.x];
    const harness::Copy copy = {to, wanted ? from : nullptr, BYTES, own.committed};
    if (own.count == harness::MOST_COPIES) __builtin_trap();
    own.waiting[own.count++] = copy;
}

static HARNESS_UNWATCHED void pc_commit_copies() { ++harness::copies[threadIdx.x].committed; }

template <int PENDING>
static HARNESS_UNWATCHED void pc_await_copies() {
    harness::Copies& own = harness::copies[threadIdx.x];
    int kept = 0;
    for (int i = 0; i < own.count; ++i) {
        const harness::Copy& copy = own.waiting[i];
        if (copy.group < own.committed - PENDING) harness::copy_now(copy.to, copy.from, copy.bytes);
        else own.waiting[kept++] = copy;
    }
    own.count = kept;
}
