// Runs one launch in a process of its own, every buffer a piece of the heap, so that AddressSanitizer sees overruns.
//
//     main KERNELS.so FUNCTION GRID_X GRID_Y GRID_Z BLOCK_X BLOCK_Y BLOCK_Z DYNAMIC_BYTES ORDER < arguments > buffers
//
// An argument is a word of 64 bits: the bytes of a buffer, which follow, or -1 for a number, the next word. Afterwards
// the buffers are written in the same order. When the launch fails it says why, and exits with 3.

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "launch.hpp"

namespace {

struct Buffer {
    void* memory;
    long long bytes;
};

struct Arguments {
    std::vector<Buffer> buffers;
    std::vector<void*> values;  // pointers to the values of the parameters
};

[[noreturn]] void give_up(const std::string& why) {
    std::fprintf(stderr, "%s\n", why.c_str());
    std::exit(3);
}

bool read_word(long long* word) { return std::fread(word, sizeof *word, 1, stdin) == 1; }

Arguments read_arguments() {
    Arguments arguments;
    long long bytes;
    while (read_word(&bytes)) {
        void* value = std::calloc(1, sizeof(long long));
        if (bytes < 0) {
            if (!read_word(static_cast<long long*>(value))) give_up("an argument is cut off");
        } else {
            void* memory = std::malloc(bytes);
            if (std::fread(memory, 1, bytes, stdin) != std::size_t(bytes)) give_up("an argument is cut off");
            arguments.buffers.push_back({memory, bytes});
            std::memcpy(value, &memory, sizeof memory);
        }
        arguments.values.push_back(value);
    }
    return arguments;
}

unsigned number(const char* text) { return std::strtoul(text, nullptr, 10); }

uint3 three(char** texts) { return {number(texts[0]), number(texts[1]), number(texts[2])}; }

}  // namespace

int main(int count, char** texts) {
    if (count != 11) give_up("ten arguments are needed");
    void* library = dlopen(texts[1], RTLD_NOW);
    if (!library) give_up(dlerror());
    void* kernel = dlsym(library, (std::string("harness_kernel_") + texts[2]).c_str());
    if (!kernel) give_up(dlerror());
    Arguments arguments = read_arguments();
    char message[1000];
    harness::Launch launch{};
    launch.kernel = static_cast<const harness::Kernel*>(kernel);
    launch.arguments = arguments.values.data();
    launch.grid = three(texts + 3);
    launch.block = three(texts + 6);
    launch.dynamic_bytes = std::atoll(texts[9]);
    void* shared = nullptr;
    if (posix_memalign(&shared, 1024, launch.dynamic_bytes)) give_up("no memory");
    launch.dynamic_shared = static_cast<char*>(shared);
    launch.order = number(texts[10]);
    launch.message = message;
    launch.message_bytes = sizeof message;
    if (!harness_launch(&launch)) give_up(message);
    for (const Buffer& buffer : arguments.buffers) std::fwrite(buffer.memory, 1, buffer.bytes, stdout);
    return std::fflush(stdout);
}
