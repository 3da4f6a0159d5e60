// What the scheduler (runtime.cpp) and the detector of races (races.cpp) know of each other.
#pragma once

#include <cstdint>

namespace harness {

// When an access happened: phases are numbered from barrier to barrier, through all blocks of all launches.
struct Moment {
    std::uint64_t phase : 40;
    std::uint64_t thread : 12;
    std::uint64_t warp_phase : 12;  // counts the thread's calls of __syncwarp
};

struct Progress {
    Moment now{};
    std::uint64_t launch_phase = 0, block_phase = 0;  // the phases with which they began
    int line = 0;  // of the barrier that began this phase; 0: the block's beginning
};

// That of the running thread; null when none is running.
const Progress* progress();

// Whether the address is of the running thread's own stack.
bool is_local(const void* address);

// Whether the address is of the block's shared memory.
bool is_shared(const void* address);

// Ends the launch with a message that is about memory at an address.
[[noreturn]] void fail_at(const void* address, const char* format, ...) __attribute__((format(printf, 2, 3)));

// Forgets all accesses.
void forget_accesses();

}  // namespace harness
