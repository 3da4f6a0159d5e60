// Executes a launch: blocks one after the other, the threads of a block as fibers that take turns where they wait.

#include <sys/mman.h>

#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "context.hpp"
#include "launch.hpp"
#include "runtime.hpp"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace harness {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr bool SANITIZED = true;
constexpr std::size_t STACK = 512 << 10;
void leave_stack(void** fake, const void* bottom, std::size_t size) {
    __sanitizer_start_switch_fiber(fake, bottom, size);
}
void enter_stack(void* fake, const void** bottom, std::size_t* size) {
    __sanitizer_finish_switch_fiber(fake, bottom, size);
}
#else
constexpr bool SANITIZED = false;
constexpr std::size_t STACK = 64 << 10;
void leave_stack(void**, const void*, std::size_t) {}
void enter_stack(void*, const void**, std::size_t*) {}
#endif

constexpr int MOST_THREADS = 1024;
constexpr std::size_t PAGE = 64 << 10;  // a multiple of any machine's

struct Fiber {
    char* stack;      // above a page that may not be touched
    void* context = nullptr;
    void* fake = nullptr;  // AddressSanitizer's
};

enum State { READY, WAITING, DONE };

struct Thread {
    Fiber* fiber;
    State state;
    Place place;
    int line;
    unsigned lanes;
    int source;
    unsigned long long value, result;
    unsigned warp_phase;
};

// The launch that is running; there is one at a time.
struct Machine {
    Launch* launch = nullptr;
    Thread threads[MOST_THREADS];
    unsigned waiting[MOST_THREADS / WARP], living[MOST_THREADS / WARP];  // lanes: at a place of the warp; not ended
    int count = 0, started = 0, current = -1;
    bool failed = false;
    Progress progress;
    std::vector<Fiber*> fibers, idle;
    Fiber* entered = nullptr;
    void *scheduler = nullptr, *scheduler_fake = nullptr;
    const void* scheduler_stack = nullptr;
    std::size_t scheduler_stack_bytes = 0;
} m;

// ---- fibers -------------------------------------------------------------------------------------

void enter(Fiber& fiber) {
    m.entered = &fiber;
    leave_stack(&m.scheduler_fake, fiber.stack, STACK);
    harness_switch(&m.scheduler, fiber.context);
    enter_stack(m.scheduler_fake, nullptr, nullptr);
    m.current = -1;
}

void back_to_scheduler(Fiber& fiber) {
    leave_stack(&fiber.fake, m.scheduler_stack, m.scheduler_stack_bytes);
    harness_switch(&fiber.context, m.scheduler);
    enter_stack(fiber.fake, &m.scheduler_stack, &m.scheduler_stack_bytes);
}

void become(int thread) {
    m.current = thread;
    unsigned i = thread;
    threadIdx = {i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y};
    m.progress.now.thread = i;
    m.progress.now.warp_phase = m.threads[i].warp_phase;
}

void end_thread();

// What every fiber runs: threads that have not started, until one waits (this fiber is its, then) or none is left.
void fiber_main() {
    enter_stack(nullptr, &m.scheduler_stack, &m.scheduler_stack_bytes);
    Fiber& self = *m.entered;
    for (;;) {
        while (m.started < m.count) {
            int i = m.started++;
            become(m.launch->order & THREADS_BACKWARD ? m.count - 1 - i : i);
            m.threads[m.current].fiber = &self;
            m.launch->kernel->call(m.launch->arguments);
            end_thread();
        }
        m.idle.push_back(&self);
        back_to_scheduler(self);
    }
}

// Stacks begin at different places of their pages, or all would use the same lines of the first cache.
void restart(Fiber& fiber, std::size_t number) {
    fiber.context = fresh_context(fiber.stack + STACK - number % 31 * 128, fiber_main);
    fiber.fake = nullptr;
}

void add_fiber() {
    const int kind = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void* memory = mmap(nullptr, STACK + PAGE, PROT_READ | PROT_WRITE, kind, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, PAGE, PROT_NONE) != 0) {
        std::perror("no memory for the stacks of threads");
        std::abort();
    }
    Fiber* fiber = new Fiber{static_cast<char*>(memory) + PAGE};
    restart(*fiber, m.fibers.size());
    m.fibers.push_back(fiber);
    m.idle.push_back(fiber);
}

// After a failure fibers are in the midst of threads that nobody continues.
void restart_all() {
    m.idle.clear();
    for (std::size_t i = 0; i < m.fibers.size(); i++) {
        restart(*m.fibers[i], i);
        m.idle.push_back(m.fibers[i]);
    }
}

// ---- waiting ------------------------------------------------------------------------------------

Thread& self() { return m.threads[m.current]; }

// The running thread is WAITING: returns when the scheduler continues it.
void suspend() {
    const int thread = m.current;
    back_to_scheduler(*self().fiber);
    become(thread);
}

bool meets(const Thread& a, const Thread& b) {
    return a.state == WAITING && a.place == b.place && a.line == b.line && a.lanes == b.lanes;
}

// Lets the group of lanes go that `t` waits with, when all are there.
void release_group(int warp, const Thread& t) {
    const unsigned group = t.lanes & m.living[warp];
    if ((m.waiting[warp] & group) != group) return;
    Thread* lanes = m.threads + warp * WARP;
    unsigned long long ballot = 0;
    for (int i = 0; i < WARP; i++) {
        if (!(group >> i & 1)) continue;
        if (!meets(lanes[i], t)) return;
        if (lanes[i].value) ballot |= 1ull << i;
    }
    for (int i = 0; i < WARP; i++) {
        if (!(group >> i & 1)) continue;
        const int source = lanes[i].source;
        lanes[i].result = lanes[i].place == BALLOT ? ballot : group >> source & 1 ? lanes[source].value : ~0ull;
        if (lanes[i].place == SYNCWARP) lanes[i].warp_phase++;
    }
    for (int i = 0; i < WARP; i++)
        if (group >> i & 1) lanes[i].state = READY;
    m.waiting[warp] &= ~group;
}

void end_thread() {
    const int warp = m.current / WARP, lane = m.current % WARP;
    self().state = DONE;
    m.living[warp] &= ~(1u << lane);
    for (int i = 0; i < WARP; i++)
        if (m.waiting[warp] >> i & 1) release_group(warp, m.threads[warp * WARP + i]);
}

// ---- failures -----------------------------------------------------------------------------------

const char* name_of(Place place) {
    const char* names[] = {"__syncthreads", "__syncwarp", "a shuffle", "a vote"};
    return names[place];
}

std::string about(int thread) {
    const unsigned i = thread, x = i % blockDim.x, y = i / blockDim.x % blockDim.y, z = i / blockDim.x / blockDim.y;
    if (blockDim.y * blockDim.z == 1) return "thread " + std::to_string(x);
    return "thread (" + std::to_string(x) + ", " + std::to_string(y) + ", " + std::to_string(z) + ")";
}

std::string state_of(int thread) {
    const Thread& t = m.threads[thread];
    if (t.state == DONE) return about(thread) + " has ended";
    return about(thread) + " waits at " + name_of(t.place) + " in line " + std::to_string(t.line);
}

void write_message(const std::string& what) {
    std::snprintf(m.launch->message, m.launch->message_bytes, "%s, block (%u, %u, %u): %s", m.launch->kernel->name,
                  blockIdx.x, blockIdx.y, blockIdx.z, what.c_str());
    m.failed = true;
}

// Leaves the running thread for good.
[[noreturn]] void abandon() {
    leave_stack(nullptr, m.scheduler_stack, m.scheduler_stack_bytes);
    void* nowhere;
    harness_switch(&nowhere, m.scheduler);
    __builtin_unreachable();
}

void write_failure(const void* address, const char* format, va_list values) {
    char what[400];
    std::vsnprintf(what, sizeof what, format, values);
    write_message(about(m.current) + " " + what);
    m.launch->address = address;
}

// Whether `t` waits for the thread of a number.
bool waits_for(const Thread& t, int other) {
    if (t.place == SYNCTHREADS) return true;
    const bool same_warp = other / WARP == (&t - m.threads) / WARP;
    return same_warp && (t.lanes >> other % WARP & 1) && m.threads[other].state != DONE;
}

// No thread can go on: some wait for others that do not come.
void report_divergence() {
    int first = 0, other = 0;
    while (m.threads[first].state != WAITING) first++;
    const Thread& t = m.threads[first];
    while (other < m.count - 1 && (!waits_for(t, other) || meets(m.threads[other], t))) other++;
    write_message("divergent barrier: " + state_of(first) + ", but " + state_of(other));
}

// ---- faults -------------------------------------------------------------------------------------

void on_fault(int number, siginfo_t* info, void*) {
    if (m.current < 0) {  // not the kernel's doing: it happens again, without this handler
        std::signal(number, SIG_DFL);
        return;
    }
    const char* address = static_cast<const char*>(info->si_addr);
    const char* stack = self().fiber->stack;
    if (number == SIGFPE) fail("divides an integer by zero");
    if (address >= stack - PAGE && address < stack) fail("needs more than %zu KB of stack", STACK >> 10);
    if (!address) fail("touches address 0, or a vector at an address that is not a multiple of its size");
    fail_at(address, "touches memory that is not its own");
}

// Makes a fault of a kernel a failure of the launch, for as long as the object lives.
class FaultHandler {
   public:
    FaultHandler() {
        if (SANITIZED) return;
        stack_t stack{};
        stack.ss_sp = memory_;
        stack.ss_size = sizeof memory_;
        sigaltstack(&stack, &old_stack_);
        struct sigaction action {};
        action.sa_sigaction = on_fault;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
        for (int i = 0; i < COUNT; i++) sigaction(SIGNALS[i], &action, &old_[i]);
    }
    ~FaultHandler() {
        if (SANITIZED) return;
        for (int i = 0; i < COUNT; i++) sigaction(SIGNALS[i], &old_[i], nullptr);
        sigaltstack(&old_stack_, nullptr);
    }

   private:
    static constexpr int COUNT = 3;
    static constexpr int SIGNALS[COUNT] = {SIGSEGV, SIGBUS, SIGFPE};
    struct sigaction old_[COUNT];
    stack_t old_stack_;
    alignas(16) char memory_[64 << 10];
};

// ---- blocks -------------------------------------------------------------------------------------

// Not memset, which AddressSanitizer watches: there are zones between the arrays that nobody may touch.
__attribute__((no_sanitize_address)) void poison(char* begin, char* end) {
    if (!SANITIZED && begin != end) std::memset(begin, 0xFF, end - begin);
    for (volatile char* p = begin; SANITIZED && p < end; p++) *p = -1;
}

void begin_block() {
    poison(m.launch->kernel->shared, m.launch->kernel->shared_end);
    poison(m.launch->dynamic_shared, m.launch->dynamic_shared + m.launch->dynamic_bytes);
    m.started = 0;
    m.progress.block_phase = ++m.progress.now.phase;
    m.progress.line = 0;
    for (int i = 0; i < m.count; i++) {
        m.threads[i].state = READY;
        m.threads[i].warp_phase = 0;
    }
    for (int first = 0; first < m.count; first += WARP) {
        m.waiting[first / WARP] = 0;
        m.living[first / WARP] = m.count - first >= WARP ? ~0u : (1u << (m.count - first)) - 1;
    }
}

// Each thread from its beginning to where it waits first, or to its end.
void start_threads() {
    while (m.started < m.count && !m.failed) {
        if (m.idle.empty()) add_fiber();
        Fiber* fiber = m.idle.back();
        m.idle.pop_back();
        enter(*fiber);
    }
}

// Each thread that need not wait to where it does next. Returns whether there was one.
bool continue_threads() {
    bool any = false;
    for (int i = 0; i < m.count && !m.failed; i++) {
        const int thread = m.launch->order & THREADS_BACKWARD ? m.count - 1 - i : i;
        if (m.threads[thread].state != READY) continue;
        enter(*m.threads[thread].fiber);
        any = true;
    }
    return any;
}

// When no thread can go on: lets all go that wait at a barrier of the block. Returns whether there are any.
bool pass_barrier() {
    int ended = 0, together = 0;
    for (int i = 0; i < m.count; i++) {
        const Thread& t = m.threads[i];
        ended += t.state == DONE;
        together += t.place == SYNCTHREADS && meets(t, m.threads[0]);
    }
    if (ended == m.count) return false;
    if (together != m.count) {
        report_divergence();
        return false;
    }
    for (int i = 0; i < m.count; i++) m.threads[i].state = READY;
    m.progress.now.phase++;
    m.progress.line = m.threads[0].line;
    return true;
}

void run_block() {
    begin_block();
    start_threads();
    while (!m.failed && (continue_threads() || (!m.failed && pass_barrier()))) {
    }
}

void run_blocks() {
    const long long grid = 1ll * gridDim.x * gridDim.y * gridDim.z;
    for (long long i = 0; i < grid && !m.failed; i++) {
        const long long block = m.launch->order & BLOCKS_BACKWARD ? grid - 1 - i : i;
        const long long row = block / gridDim.x;
        blockIdx = {unsigned(block % gridDim.x), unsigned(row % gridDim.y), unsigned(row / gridDim.y)};
        run_block();
    }
}

}  // namespace

void wait_for_block(int line) {
    Thread& t = self();
    t.place = SYNCTHREADS;
    t.line = line;
    t.lanes = 0;
    t.state = WAITING;
    suspend();
}

unsigned long long meet(Place place, unsigned lanes, unsigned long long value, int source, int line) {
    if (!(lanes >> lane() & 1))
        fail("is not among the lanes 0x%x that meet at %s in line %d", lanes, name_of(place), line);
    const int warp = m.current / WARP;
    Thread& t = self();
    t.place = place;
    t.line = line;
    t.lanes = lanes;
    t.source = source;
    t.value = value;
    t.state = WAITING;
    m.waiting[warp] |= 1u << lane();
    release_group(warp, t);
    suspend();
    return t.result;
}

int lane() { return m.current % WARP; }

char* dynamic_shared() { return m.launch->dynamic_shared; }

void fail(const char* format, ...) {
    va_list values;
    va_start(values, format);
    write_failure(nullptr, format, values);
    va_end(values);
    abandon();
}

void fail_at(const void* address, const char* format, ...) {
    va_list values;
    va_start(values, format);
    write_failure(address, format, values);
    va_end(values);
    abandon();
}

const Progress* progress() { return m.current < 0 ? nullptr : &m.progress; }

bool is_local(const void* address) {
    const char* stack = self().fiber->stack;
    return address >= stack && address < stack + STACK;
}

bool is_shared(const void* address) {
    const Launch& l = *m.launch;
    return (address >= l.kernel->shared && address < l.kernel->shared_end) ||
           (address >= l.dynamic_shared && address < l.dynamic_shared + l.dynamic_bytes);
}

}  // namespace harness

extern "C" int harness_launch(harness::Launch* launch) {
    using namespace harness;
    FaultHandler handler;
    m.launch = launch;
    blockDim = {launch->block.x, launch->block.y, launch->block.z};
    gridDim = {launch->grid.x, launch->grid.y, launch->grid.z};
    m.count = blockDim.x * blockDim.y * blockDim.z;
    if (m.count < 1 || m.count > MOST_THREADS) {
        std::snprintf(launch->message, launch->message_bytes, "%s: a block of %d threads; 1 to %d are possible",
                      launch->kernel->name, m.count, MOST_THREADS);
        return 0;
    }
    m.failed = false;
    m.progress.launch_phase = m.progress.now.phase + 1;
    run_blocks();
    forget_accesses();
    if (m.failed) restart_all();
    return !m.failed;
}
