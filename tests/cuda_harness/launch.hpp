// What kernels (device.hpp) and the runtime (runtime.cpp, main.cpp) agree on.
#pragma once

struct uint3 {
    unsigned x, y, z;
};

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

namespace harness {

constexpr int WARP = 32;

// A __global__ function. `call` takes pointers to the values of its parameters, as cuLaunchKernel does.
struct Kernel {
    const char* name;
    void (*call)(void** arguments);
    char *shared, *shared_end;  // the __shared__ arrays of its source
    const int* parameters;      // each: the bytes of what a pointer points to, or minus the bytes of a number
    int parameter_count;
};

enum Order { THREADS_BACKWARD = 1, BLOCKS_BACKWARD = 2 };

struct Launch {
    const Kernel* kernel;
    void** arguments;
    uint3 grid, block;
    char* dynamic_shared;
    long long dynamic_bytes;
    int order;
    char* message;  // where to say what went wrong
    int message_bytes;
    const void* address;  // of the memory that it is about, or null
};

// Where threads wait for one another.
enum Place { SYNCTHREADS, SYNCWARP, SHUFFLE, BALLOT };

// Returns when all threads of the block are here.
void wait_for_block(int line);

// Returns when all living threads of the warp that `lanes` names are here: the value that lane `source` brought
// (SHUFFLE; all bits are set when that lane is not here), or a bit for each lane whose value is not 0 (BALLOT).
unsigned long long meet(Place place, unsigned lanes, unsigned long long value, int source, int line);

// The number of the running thread in its warp.
int lane();

char* dynamic_shared();

// Ends the launch with a message about the running thread.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

}  // namespace harness

// Runs all threads of all blocks, one at a time. Returns whether it worked; else `message` is written. Not for several
// threads of the host at once.
extern "C" int harness_launch(harness::Launch* launch);
