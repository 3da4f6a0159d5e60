// Finds races of kernels that are compiled with -fsanitize=thread: these call the functions below before each access to
// memory. Every byte remembers who wrote it last and two of the threads that read it last. Two threads of a block may
// touch a byte, one of them writing, only with a barrier in between, or __syncwarp when they are of one warp; threads
// of different blocks never within one launch. Atomic functions (device.hpp) are not watched.

#include <cstdio>
#include <memory>
#include <unordered_map>

#include "launch.hpp"
#include "runtime.hpp"

namespace harness {
namespace {

struct Byte {
    Moment write, read, other_read;
};

constexpr std::uintptr_t SHEET = 1024;

using Sheet = std::unique_ptr<Byte[]>;

struct Accesses {
    std::unordered_map<std::uintptr_t, Sheet> sheets;
    std::uintptr_t last_number = 0;
    Byte* last = nullptr;
} accesses;

Byte* bytes_of_sheet(std::uintptr_t number) {
    if (accesses.last && accesses.last_number == number) return accesses.last;
    Sheet& sheet = accesses.sheets[number];
    if (!sheet) sheet = std::make_unique<Byte[]>(SHEET);
    accesses.last_number = number;
    return accesses.last = sheet.get();
}

bool same_place(Moment a, Moment b) { return a.phase == b.phase && a.thread == b.thread; }

// Whether an access of the running launch may be at the same time as one now, by another thread.
bool is_concurrent(const Progress& p, Moment then, bool shared) {
    if (then.phase < p.launch_phase) return false;
    if (then.phase < p.block_phase) return !shared;
    if (then.phase < p.now.phase || then.thread == p.now.thread) return false;
    return then.thread / WARP != p.now.thread / WARP || then.warp_phase == p.now.warp_phase;
}

void report(const Progress& p, const void* address, Moment then, bool writes, bool wrote) {
    const char *doing = writes ? "writes" : "reads", *did = wrote ? "wrote" : "read";
    if (then.phase < p.block_phase) fail_at(address, "%s what another block of the launch %s", doing, did);
    char where[60] = "the block's beginning";
    if (p.line) std::snprintf(where, sizeof where, "the barrier in line %d", p.line);
    const int other = then.thread;
    fail_at(address, "%s what thread %d %s, with no barrier between (both after %s)", doing, other, did, where);
}

void touch(const Progress& p, Byte& byte, const void* address, bool writes, bool shared) {
    if (is_concurrent(p, byte.write, shared)) report(p, address, byte.write, writes, true);
    if (!writes) {
        if (!same_place(byte.read, p.now)) byte.other_read = byte.read;
        byte.read = p.now;
        return;
    }
    if (is_concurrent(p, byte.read, shared)) report(p, address, byte.read, writes, false);
    if (is_concurrent(p, byte.other_read, shared)) report(p, address, byte.other_read, writes, false);
    byte.write = p.now;
}

void access(const void* begin, std::size_t size, bool writes) {
    const Progress* p = progress();
    if (!p || is_local(begin)) return;
    const bool shared = is_shared(begin);
    const auto first = reinterpret_cast<std::uintptr_t>(begin);
    for (std::uintptr_t a = first; a < first + size; a++)
        touch(*p, bytes_of_sheet(a / SHEET)[a % SHEET], reinterpret_cast<const void*>(a), writes, shared);
}

}  // namespace

void forget_accesses() {
    accesses.sheets.clear();
    accesses.last = nullptr;
}

}  // namespace harness

extern "C" {
#define ACCESSES(SIZE)                                                                        \
    void __tsan_read##SIZE(void* p) { harness::access(p, SIZE, false); }                      \
    void __tsan_write##SIZE(void* p) { harness::access(p, SIZE, true); }                      \
    void __tsan_unaligned_read##SIZE(void* p) { harness::access(p, SIZE, false); }            \
    void __tsan_unaligned_write##SIZE(void* p) { harness::access(p, SIZE, true); }
ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)
void __tsan_read_range(void* p, std::size_t size) { harness::access(p, size, false); }
void __tsan_write_range(void* p, std::size_t size) { harness::access(p, size, true); }
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
}
