"""The thread pool that every module carries, as LLVM IR.

Fork-join over static contiguous chunks: the caller signals one word per worker, computes chunk 0 itself, then waits
for a counter to reach zero. Waiting first spins, then sleeps on a futex. Whoever sleeps announces it in a flag before
it looks at the word a last time, and whoever changes the word looks at the flag afterwards (sequentially consistent on
both sides), so no wake-up is lost.

A pool pointer points to a handle ``{ptr core, i64 threads}``. The core begins with a handle of itself; a handle with
fewer threads is a view of the same pool, whose regions use only that many threads.
"""

from __future__ import annotations

from collections.abc import Mapping
from string import Template

from polycomp.target import Target

POOL_SYMBOLS = (
    "polycomp_pool_create",
    "polycomp_pool_destroy",
    "polycomp_pool_threads",
    "polycomp_parallel_for",
)

SPIN_NANOSECONDS = 50_000
_TRIES_PER_CLOCK = 16
_STACK_BYTES = 8 << 20

_MACHINE: Mapping[str, Mapping[str, str]] = {
    "x86_64": {
        "futex": "202",
        "pause": "call void @llvm.x86.sse2.pause()",
        "declare_pause": "declare void @llvm.x86.sse2.pause()",
    },
    # An ISB delays the next try by some tens of cycles; YIELD is a no-operation on most cores.
    "aarch64": {
        "futex": "98",
        "pause": "call void @llvm.aarch64.isb(i32 15)",
        "declare_pause": "declare void @llvm.aarch64.isb(i32)",
    },
}


def pool_ir(target: Target) -> str:
    """LLVM IR of the thread pool for ``target``'s machine (x86_64 or aarch64 Linux). Defines :data:`POOL_SYMBOLS`."""
    numbers = {"spin": str(SPIN_NANOSECONDS), "tries": str(_TRIES_PER_CLOCK), "stack": str(_STACK_BYTES)}
    return Template(_TEMPLATE).substitute(_MACHINE[target.arch], triple=target.triple, **numbers)


# Words that different threads write lie 128 bytes apart: x86-64 prefetches cache lines in pairs.
_TEMPLATE = """
target triple = "$triple"

; 0 self, 1 threads | 3 busy | 5 function, 6 argument, 7 count, 8 parts | 10 pending, 11 waiting | 13 stop | 15 slots
%core = type { ptr, i64, [112 x i8], i32, [124 x i8], ptr, ptr, i64, i64, [96 x i8], i32, i32, [120 x i8],
               i32, [124 x i8], [0 x %slot] }
; 0 word, 1 sleeping, 2 core, 3 index, 4 thread
%slot = type { i32, i32, ptr, i64, i64, [96 x i8] }

$declare_pause
declare i64 @llvm.umin.i64(i64, i64)
declare i64 @llvm.smax.i64(i64, i64)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
declare ptr @aligned_alloc(i64, i64)
declare void @free(ptr)
declare i64 @syscall(i64, ...)
declare i32 @clock_gettime(i32, ptr)
declare i32 @sched_yield()
declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_join(i64, ptr)
declare i32 @pthread_attr_init(ptr)
declare i32 @pthread_attr_setstacksize(ptr, i64)
declare i32 @pthread_attr_destroy(ptr)
declare i32 @pthread_sigmask(i32, ptr, ptr)

define internal i64 @pool_now() nounwind {
  %time = alloca { i64, i64 }
  %status = call i32 @clock_gettime(i32 1, ptr %time)
  %seconds = load i64, ptr %time
  %rest.at = getelementptr { i64, i64 }, ptr %time, i32 0, i32 1
  %rest = load i64, ptr %rest.at
  %scaled = mul i64 %seconds, 1000000000
  %now = add i64 %scaled, %rest
  ret i64 %now
}

; Private futexes: 128 waits while the word has the value, 129 wakes one sleeper.
define internal void @pool_sleep(ptr %word, i32 %value) nounwind noinline {
  %status = call i64 (i64, ...) @syscall(i64 $futex, ptr %word, i32 128, i32 %value, ptr null, ptr null, i32 0)
  ret void
}

define internal void @pool_wake(ptr %word) nounwind noinline {
  %status = call i64 (i64, ...) @syscall(i64 $futex, ptr %word, i32 129, i32 1, ptr null, ptr null, i32 0)
  ret void
}

; Spin until (*word == value) is equal; false when the time for spinning is over. Yielding now and then lets the thread
; that is waited for run, should it be queued on the same core, and costs nothing while no other thread wants the core.
define internal i1 @pool_spin(ptr %word, i32 %value, i1 %equal) nounwind {
entry:
  br label %try
try:
  %start = phi i64 [ 0, %entry ], [ %start, %pause ], [ %started, %clock ]
  %i = phi i64 [ 0, %entry ], [ %i.next, %pause ], [ 0, %clock ]
  %now.value = load atomic i32, ptr %word acquire, align 4
  %same = icmp eq i32 %now.value, %value
  %done = icmp eq i1 %same, %equal
  br i1 %done, label %yes, label %pause
pause:
  $pause
  %i.next = add i64 %i, 1
  %more = icmp ult i64 %i.next, $tries
  br i1 %more, label %try, label %check
check:
  %yielded = call i32 @sched_yield()
  %now = call i64 @pool_now()
  %first = icmp eq i64 %start, 0
  %started = select i1 %first, i64 %now, i64 %start
  %spent = sub i64 %now, %started
  %late = icmp ugt i64 %spent, $spin
  br i1 %late, label %no, label %clock
clock:
  br label %try
yes:
  ret i1 true
no:
  ret i1 false
}

define internal ptr @pool_slot(ptr %core, i64 %index) alwaysinline nounwind {
  %slot = getelementptr %core, ptr %core, i64 0, i32 15, i64 %index
  ret ptr %slot
}

; Run the chunk of the current region that belongs to a thread.
define internal void @pool_chunk(ptr %core, i64 %index) nounwind {
  %function.at = getelementptr %core, ptr %core, i64 0, i32 5
  %argument.at = getelementptr %core, ptr %core, i64 0, i32 6
  %count.at = getelementptr %core, ptr %core, i64 0, i32 7
  %parts.at = getelementptr %core, ptr %core, i64 0, i32 8
  %function = load ptr, ptr %function.at
  %argument = load ptr, ptr %argument.at
  %count = load i64, ptr %count.at
  %parts = load i64, ptr %parts.at
  %each = udiv i64 %count, %parts
  %longer = urem i64 %count, %parts
  %before = call i64 @llvm.umin.i64(i64 %index, i64 %longer)
  %base = mul i64 %index, %each
  %begin = add i64 %base, %before
  %is.longer = icmp ult i64 %index, %longer
  %extra = zext i1 %is.longer to i64
  %short.end = add i64 %begin, %each
  %end = add i64 %short.end, %extra
  call void %function(ptr %argument, i64 %begin, i64 %end, i64 %index)
  ret void
}

define internal void @pool_signal(ptr %slot) nounwind {
  %old = atomicrmw add ptr %slot, i32 1 seq_cst
  %sleeping.at = getelementptr %slot, ptr %slot, i64 0, i32 1
  %sleeping = load atomic i32, ptr %sleeping.at seq_cst, align 4
  %asleep = icmp ne i32 %sleeping, 0
  br i1 %asleep, label %wake, label %done
wake:
  call void @pool_wake(ptr %slot)
  br label %done
done:
  ret void
}

; Wait until the slot's word differs from what was seen; returns the new word.
define internal i32 @pool_await(ptr %slot, i32 %seen) nounwind {
  %signalled = call i1 @pool_spin(ptr %slot, i32 %seen, i1 false)
  br i1 %signalled, label %done, label %prepare
prepare:
  %sleeping.at = getelementptr %slot, ptr %slot, i64 0, i32 1
  store atomic i32 1, ptr %sleeping.at seq_cst, align 4
  br label %check
check:
  %word = load atomic i32, ptr %slot seq_cst, align 4
  %same = icmp eq i32 %word, %seen
  br i1 %same, label %sleep, label %awake
sleep:
  call void @pool_sleep(ptr %slot, i32 %seen)
  br label %check
awake:
  store atomic i32 0, ptr %sleeping.at seq_cst, align 4
  br label %done
done:
  %new = load atomic i32, ptr %slot acquire, align 4
  ret i32 %new
}

define internal ptr @pool_worker(ptr %slot) nounwind {
entry:
  %core.at = getelementptr %slot, ptr %slot, i64 0, i32 2
  %index.at = getelementptr %slot, ptr %slot, i64 0, i32 3
  %core = load ptr, ptr %core.at
  %index = load i64, ptr %index.at
  %pending.at = getelementptr %core, ptr %core, i64 0, i32 10
  %waiting.at = getelementptr %core, ptr %core, i64 0, i32 11
  %stop.at = getelementptr %core, ptr %core, i64 0, i32 13
  br label %next
next:
  %seen = phi i32 [ 0, %entry ], [ %word, %region ], [ %word, %last ], [ %word, %wake ]
  %word = call i32 @pool_await(ptr %slot, i32 %seen)
  %stop = load atomic i32, ptr %stop.at acquire, align 4
  %stopped = icmp ne i32 %stop, 0
  br i1 %stopped, label %leave, label %region
region:
  call void @pool_chunk(ptr %core, i64 %index)
  %pending = atomicrmw sub ptr %pending.at, i32 1 seq_cst
  %is.last = icmp eq i32 %pending, 1
  br i1 %is.last, label %last, label %next
last:
  %waiting = load atomic i32, ptr %waiting.at seq_cst, align 4
  %asleep = icmp ne i32 %waiting, 0
  br i1 %asleep, label %wake, label %next
wake:
  call void @pool_wake(ptr %pending.at)
  br label %next
leave:
  ret ptr null
}

; Wait until all workers of the region have finished.
define internal void @pool_join(ptr %core) nounwind {
  %pending.at = getelementptr %core, ptr %core, i64 0, i32 10
  %finished = call i1 @pool_spin(ptr %pending.at, i32 0, i1 true)
  br i1 %finished, label %done, label %prepare
prepare:
  %waiting.at = getelementptr %core, ptr %core, i64 0, i32 11
  store atomic i32 1, ptr %waiting.at seq_cst, align 4
  br label %check
check:
  %pending = load atomic i32, ptr %pending.at seq_cst, align 4
  %none = icmp eq i32 %pending, 0
  br i1 %none, label %awake, label %sleep
sleep:
  call void @pool_sleep(ptr %pending.at, i32 %pending)
  br label %check
awake:
  store atomic i32 0, ptr %waiting.at seq_cst, align 4
  br label %done
done:
  ret void
}

define void @polycomp_parallel_for(ptr %pool, ptr %function, ptr %argument, i64 %count) nounwind {
entry:
  %some = icmp sgt i64 %count, 0
  br i1 %some, label %check, label %done
check:
  %no.pool = icmp eq ptr %pool, null
  br i1 %no.pool, label %serial, label %sized
sized:
  %core = load ptr, ptr %pool
  %threads.at = getelementptr { ptr, i64 }, ptr %pool, i64 0, i32 1
  %threads = load i64, ptr %threads.at
  %parts = call i64 @llvm.umin.i64(i64 %threads, i64 %count)
  %alone = icmp ult i64 %parts, 2
  br i1 %alone, label %serial, label %claim
claim:
  %busy.at = getelementptr %core, ptr %core, i64 0, i32 3
  %claimed = cmpxchg ptr %busy.at, i32 0, i32 1 acquire monotonic
  %free = extractvalue { i32, i1 } %claimed, 1
  br i1 %free, label %fork, label %serial
fork:
  %function.at = getelementptr %core, ptr %core, i64 0, i32 5
  %argument.at = getelementptr %core, ptr %core, i64 0, i32 6
  %count.at = getelementptr %core, ptr %core, i64 0, i32 7
  %parts.at = getelementptr %core, ptr %core, i64 0, i32 8
  %pending.at = getelementptr %core, ptr %core, i64 0, i32 10
  store ptr %function, ptr %function.at
  store ptr %argument, ptr %argument.at
  store i64 %count, ptr %count.at
  store i64 %parts, ptr %parts.at
  %helpers = sub i64 %parts, 1
  %pending = trunc i64 %helpers to i32
  store atomic i32 %pending, ptr %pending.at monotonic, align 4
  br label %signal
signal:
  %i = phi i64 [ 1, %fork ], [ %i.next, %signal ]
  %slot = call ptr @pool_slot(ptr %core, i64 %i)
  call void @pool_signal(ptr %slot)
  %i.next = add i64 %i, 1
  %more = icmp ult i64 %i.next, %parts
  br i1 %more, label %signal, label %work
work:
  call void @pool_chunk(ptr %core, i64 0)
  call void @pool_join(ptr %core)
  store atomic i32 0, ptr %busy.at release, align 4
  br label %done
serial:
  call void %function(ptr %argument, i64 0, i64 %count, i64 0)
  br label %done
done:
  ret void
}

define i64 @polycomp_pool_threads(ptr %pool) nounwind {
  %none = icmp eq ptr %pool, null
  br i1 %none, label %one, label %many
one:
  ret i64 1
many:
  %threads.at = getelementptr { ptr, i64 }, ptr %pool, i64 0, i32 1
  %threads = load i64, ptr %threads.at
  ret i64 %threads
}

define void @polycomp_pool_destroy(ptr %pool) nounwind {
entry:
  %none = icmp eq ptr %pool, null
  br i1 %none, label %done, label %stop
stop:
  %core = load ptr, ptr %pool
  %threads.at = getelementptr %core, ptr %core, i64 0, i32 1
  %threads = load i64, ptr %threads.at
  %stop.at = getelementptr %core, ptr %core, i64 0, i32 13
  store atomic i32 1, ptr %stop.at seq_cst, align 4
  br label %signal
signal:
  %i = phi i64 [ 1, %stop ], [ %i.next, %signal.one ]
  %signal.more = icmp ult i64 %i, %threads
  br i1 %signal.more, label %signal.one, label %join
signal.one:
  %signal.slot = call ptr @pool_slot(ptr %core, i64 %i)
  call void @pool_signal(ptr %signal.slot)
  %i.next = add i64 %i, 1
  br label %signal
join:
  %j = phi i64 [ 1, %signal ], [ %j.next, %join.one ]
  %join.more = icmp ult i64 %j, %threads
  br i1 %join.more, label %join.one, label %release
join.one:
  %join.slot = call ptr @pool_slot(ptr %core, i64 %j)
  %thread.at = getelementptr %slot, ptr %join.slot, i64 0, i32 4
  %thread = load i64, ptr %thread.at
  %joined = call i32 @pthread_join(i64 %thread, ptr null)
  %j.next = add i64 %j, 1
  br label %join
release:
  call void @free(ptr %core)
  br label %done
done:
  ret void
}

; Start the workers with all signals blocked, so that the program's own threads handle them.
; A worker whose stack size cannot be set has the system's default, which is as large.
define internal i1 @pool_start(ptr %core, i64 %threads) nounwind {
entry:
  %attributes = alloca [128 x i8], align 16
  %all = alloca [128 x i8], align 16
  %old = alloca [128 x i8], align 16
  call void @llvm.memset.p0.i64(ptr %all, i8 -1, i64 128, i1 false)
  %masked = call i32 @pthread_sigmask(i32 2, ptr %all, ptr %old)
  %initialised = call i32 @pthread_attr_init(ptr %attributes)
  %sized = call i32 @pthread_attr_setstacksize(ptr %attributes, i64 $stack)
  %threads.at = getelementptr %core, ptr %core, i64 0, i32 1
  br label %next
next:
  %i = phi i64 [ 1, %entry ], [ %i.next, %started ]
  ; destroying joins exactly the workers that have started
  store i64 %i, ptr %threads.at
  %more = icmp ult i64 %i, %threads
  br i1 %more, label %start, label %done
start:
  %slot = call ptr @pool_slot(ptr %core, i64 %i)
  %core.at = getelementptr %slot, ptr %slot, i64 0, i32 2
  %index.at = getelementptr %slot, ptr %slot, i64 0, i32 3
  %thread.at = getelementptr %slot, ptr %slot, i64 0, i32 4
  store ptr %core, ptr %core.at
  store i64 %i, ptr %index.at
  %status = call i32 @pthread_create(ptr %thread.at, ptr %attributes, ptr @pool_worker, ptr %slot)
  %failed = icmp ne i32 %status, 0
  br i1 %failed, label %done, label %started
started:
  %i.next = add i64 %i, 1
  br label %next
done:
  %complete = phi i1 [ true, %next ], [ false, %start ]
  %destroyed = call i32 @pthread_attr_destroy(ptr %attributes)
  %restored = call i32 @pthread_sigmask(i32 2, ptr %old, ptr null)
  ret i1 %complete
}

define ptr @polycomp_pool_create(i64 %wanted) nounwind {
  %threads = call i64 @llvm.smax.i64(i64 %wanted, i64 1)
  %slots.end = getelementptr %core, ptr null, i64 0, i32 15, i64 %threads
  %bytes = ptrtoint ptr %slots.end to i64
  %core = call ptr @aligned_alloc(i64 128, i64 %bytes)
  %none = icmp eq ptr %core, null
  br i1 %none, label %fail, label %fill
fill:
  call void @llvm.memset.p0.i64(ptr align 128 %core, i8 0, i64 %bytes, i1 false)
  store ptr %core, ptr %core
  %complete = call i1 @pool_start(ptr %core, i64 %threads)
  br i1 %complete, label %done, label %clean
clean:
  call void @polycomp_pool_destroy(ptr %core)
  br label %fail
fail:
  ret ptr null
done:
  ret ptr %core
}
"""
