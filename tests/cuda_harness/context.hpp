// Switching between stacks: harness_switch stores the running context in *save and continues with `load`.
#pragma once

extern "C" void harness_switch(void** save, void* load) __attribute__((visibility("hidden")));

#if defined(__x86_64__)
asm(R"(
    .text
    .hidden harness_switch
    .globl harness_switch
    .type harness_switch, @function
harness_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size harness_switch, . - harness_switch
)");

// A context that calls `entry` (which never returns) on the stack that ends at `top`, a multiple of 16.
inline void* fresh_context(char* top, void (*entry)()) {
    void** words = reinterpret_cast<void**>(top);
    words[-1] = nullptr;  // where entry would return to
    words[-2] = reinterpret_cast<void*>(entry);
    for (int i = 3; i <= 8; i++) words[-i] = nullptr;
    return words - 8;
}
#elif defined(__aarch64__)
asm(R"(
    .text
    .hidden harness_switch
    .globl harness_switch
    .type harness_switch, %function
harness_switch:
    sub sp, sp, #160
    stp x19, x20, [sp]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
    .size harness_switch, . - harness_switch
)");

inline void* fresh_context(char* top, void (*entry)()) {
    void** words = reinterpret_cast<void**>(top) - 20;
    for (int i = 0; i < 20; i++) words[i] = nullptr;
    words[11] = reinterpret_cast<void*>(entry);  // x30
    return words;
}
#else
#error "no context switch for this processor"
#endif
