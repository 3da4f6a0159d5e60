"""The function by which Python calls a module on numpy arrays of known dtypes and shapes, as LLVM IR.

It has the signature of a CPython method (METH_FASTCALL), checks its arguments, makes the outputs, releases the
interpreter's lock and runs ``polycomp_run``: some hundred nanoseconds where the same in Python takes microseconds.
Modules import nothing of Python for it: the addresses of what it calls come in the plan that it is bound to, an int64
array of :data:`PLAN_WORDS` words with these meanings, then a record per argument, then one per output.

- argument: the address of the dtype, the number of dimensions, the place among the pointers that ``polycomp_run`` is
  given (-1: not read), the dimensions;
- output: the address of the dtype, the number of dimensions, the bytes to allocate, the alignment (a power of two),
  the place among the pointers, a word to use, the dimensions.

Anything unexpected (another dtype, shape or layout, no memory, an index out of range, a run of the same plan in another
thread) is answered with NotImplemented, and nothing has happened: the caller takes the long way, which tells.
"""

from __future__ import annotations

from string import Template

from polycomp.target import Target

CALLER_SYMBOLS = ("polycomp_call",)

PLAN_WORDS = (
    "arguments",  # how many
    "outputs",
    "as_tuple",  # 0: the only output itself
    "busy",  # 1 during a run
    "not_implemented",  # objects
    "array_type",
    "byte_dtype",
    "new_array",  # functions of numpy and Python
    "set_base",
    "incref",
    "decref",
    "save_thread",
    "restore_thread",
    "clear_error",
    "new_tuple",
    "set_item",
    "io",  # the arguments of polycomp_run
    "sizes",
    "arena",
    "workspace",
    "weights",
    "context",
    "pool",  # address of a word that is null, or the address of {core, threads, object}; 0: no pool is needed
    "threads",
)
"""The words of a plan, in order."""


def caller_ir(target: Target) -> str:
    """LLVM IR of ``polycomp_call``. Defines :data:`CALLER_SYMBOLS`."""
    positions = {name: str(i) for i, name in enumerate(PLAN_WORDS)}
    return Template(_TEMPLATE).substitute(positions, triple=target.triple, records=str(len(PLAN_WORDS)))


# Objects: 0 reference count, 1 type. Arrays of numpy, since its version 1.7: then 2 data, 3 number of dimensions (i32),
# 4 dimensions, 5 strides, 6 base, 7 dtype, 8 flags (i32: 1 C-contiguous, 256 aligned, 1024 writeable).
_TEMPLATE = """
target triple = "$triple"

%array = type { i64, ptr, ptr, i32, ptr, ptr, ptr, ptr, i32 }

declare i32 @polycomp_run(ptr, ptr, ptr, ptr, ptr, ptr)

define internal i64 @call_word(ptr %plan, i64 %index) alwaysinline nounwind {
  %at = getelementptr i64, ptr %plan, i64 %index
  %word = load i64, ptr %at
  ret i64 %word
}

define internal ptr @call_pointer(ptr %plan, i64 %index) alwaysinline nounwind {
  %at = getelementptr ptr, ptr %plan, i64 %index
  %word = load ptr, ptr %at
  ret ptr %word
}

define internal void @call_set(ptr %words, i64 %index, ptr %value) alwaysinline nounwind {
  %at = getelementptr ptr, ptr %words, i64 %index
  store ptr %value, ptr %at
  ret void
}

define internal void @call_incref(ptr %plan, ptr %object) alwaysinline nounwind {
  %incref = call ptr @call_pointer(ptr %plan, i64 $incref)
  call void %incref(ptr %object)
  ret void
}

define internal void @call_decref(ptr %plan, ptr %object) alwaysinline nounwind {
  %decref = call ptr @call_pointer(ptr %plan, i64 $decref)
  call void %decref(ptr %object)
  ret void
}

define internal i1 @call_same_dimensions(ptr %found, ptr %wanted, i64 %count) alwaysinline nounwind {
entry:
  br label %next
next:
  %d = phi i64 [ 0, %entry ], [ %d.next, %compare ]
  %more = icmp ult i64 %d, %count
  br i1 %more, label %compare, label %done
compare:
  %a = call i64 @call_word(ptr %found, i64 %d)
  %b = call i64 @call_word(ptr %wanted, i64 %d)
  %d.next = add i64 %d, 1
  %same = icmp eq i64 %a, %b
  br i1 %same, label %next, label %done
done:
  %result = phi i1 [ true, %next ], [ false, %compare ]
  ret i1 %result
}

define internal i1 @call_fits(ptr %plan, ptr %record, ptr %object) alwaysinline nounwind {
entry:
  %type.at = getelementptr %array, ptr %object, i64 0, i32 1
  %type = load ptr, ptr %type.at
  %array.type = call ptr @call_pointer(ptr %plan, i64 $array_type)
  %is.array = icmp eq ptr %type, %array.type
  br i1 %is.array, label %look, label %no
look:
  %dtype.at = getelementptr %array, ptr %object, i64 0, i32 7
  %dtype = load ptr, ptr %dtype.at
  %wanted.dtype = call ptr @call_pointer(ptr %record, i64 0)
  %same.dtype = icmp eq ptr %dtype, %wanted.dtype
  %rank.at = getelementptr %array, ptr %object, i64 0, i32 3
  %rank = load i32, ptr %rank.at
  %wanted.rank = call i64 @call_word(ptr %record, i64 1)
  %wanted.short = trunc i64 %wanted.rank to i32
  %same.rank = icmp eq i32 %rank, %wanted.short
  %flags.at = getelementptr %array, ptr %object, i64 0, i32 8
  %flags = load i32, ptr %flags.at
  %layout = and i32 %flags, 257
  %plain = icmp eq i32 %layout, 257
  %same.kind = and i1 %same.dtype, %same.rank
  %fine = and i1 %same.kind, %plain
  br i1 %fine, label %shape, label %no
shape:
  %dimensions.at = getelementptr %array, ptr %object, i64 0, i32 4
  %dimensions = load ptr, ptr %dimensions.at
  %wanted.dimensions = getelementptr i64, ptr %record, i64 3
  %same = call i1 @call_same_dimensions(ptr %dimensions, ptr %wanted.dimensions, i64 %wanted.rank)
  ret i1 %same
no:
  ret i1 false
}

; Pass the addresses of the arguments. Returns the first record of an output, or null when an argument does not fit.
define internal ptr @call_take(ptr %plan, ptr %arguments, i64 %count) nounwind {
entry:
  %io = call ptr @call_pointer(ptr %plan, i64 $io)
  %records = getelementptr i64, ptr %plan, i64 $records
  br label %next
next:
  %i = phi i64 [ 0, %entry ], [ %i.next, %step ]
  %record = phi ptr [ %records, %entry ], [ %record.next, %step ]
  %more = icmp ult i64 %i, %count
  br i1 %more, label %check, label %done
check:
  %object = call ptr @call_pointer(ptr %arguments, i64 %i)
  %fits = call i1 @call_fits(ptr %plan, ptr %record, ptr %object)
  br i1 %fits, label %pass, label %done
pass:
  %place = call i64 @call_word(ptr %record, i64 2)
  %is.read = icmp sge i64 %place, 0
  br i1 %is.read, label %store, label %step
store:
  %data = call ptr @call_pointer(ptr %object, i64 2)
  call void @call_set(ptr %io, i64 %place, ptr %data)
  br label %step
step:
  %rank = call i64 @call_word(ptr %record, i64 1)
  %words = add i64 %rank, 3
  %record.next = getelementptr i64, ptr %record, i64 %words
  %i.next = add i64 %i, 1
  br label %next
done:
  %result = phi ptr [ %record, %next ], [ null, %check ]
  ret ptr %result
}

; A new array; its memory is its own when %data is null. Null when memory is short.
define internal ptr @call_array(ptr %plan, ptr %dtype, i32 %rank, ptr %dimensions, ptr %data) nounwind {
  call void @call_incref(ptr %plan, ptr %dtype)
  %type = call ptr @call_pointer(ptr %plan, i64 $array_type)
  %new = call ptr @call_pointer(ptr %plan, i64 $new_array)
  %own = icmp eq ptr %data, null
  %flags = select i1 %own, i32 0, i32 1281
  %array = call ptr %new(ptr %type, ptr %dtype, i32 %rank, ptr %dimensions, ptr null, ptr %data, i32 %flags, ptr null)
  ret ptr %array
}

; Make one output and pass its address; null when memory is short.
define internal ptr @call_output(ptr %plan, ptr %record) nounwind {
entry:
  %bytes.at = getelementptr i64, ptr %record, i64 2
  %byte.dtype = call ptr @call_pointer(ptr %plan, i64 $byte_dtype)
  %memory = call ptr @call_array(ptr %plan, ptr %byte.dtype, i32 1, ptr %bytes.at, ptr null)
  %none = icmp eq ptr %memory, null
  br i1 %none, label %fail, label %align
align:
  %start = call i64 @call_word(ptr %memory, i64 2)
  %alignment = call i64 @call_word(ptr %record, i64 3)
  %mask = sub i64 0, %alignment
  %before = sub i64 %alignment, 1
  %raised = add i64 %start, %before
  %aligned = and i64 %raised, %mask
  %data = inttoptr i64 %aligned to ptr
  %dtype = call ptr @call_pointer(ptr %record, i64 0)
  %rank = call i64 @call_word(ptr %record, i64 1)
  %short = trunc i64 %rank to i32
  %dimensions = getelementptr i64, ptr %record, i64 6
  %array = call ptr @call_array(ptr %plan, ptr %dtype, i32 %short, ptr %dimensions, ptr %data)
  %failed = icmp eq ptr %array, null
  br i1 %failed, label %drop, label %own
own:
  %set.base = call ptr @call_pointer(ptr %plan, i64 $set_base)
  %owned = call i32 %set.base(ptr %array, ptr %memory)
  %io = call ptr @call_pointer(ptr %plan, i64 $io)
  %place = call i64 @call_word(ptr %record, i64 4)
  call void @call_set(ptr %io, i64 %place, ptr %data)
  ret ptr %array
drop:
  call void @call_decref(ptr %plan, ptr %memory)
  br label %fail
fail:
  ret ptr null
}

; Make all outputs, each kept in its record; false when memory is short, and then there are none.
define internal i1 @call_outputs(ptr %plan, ptr %records, i64 %count) nounwind {
entry:
  br label %next
next:
  %i = phi i64 [ 0, %entry ], [ %i.next, %keep ]
  %record = phi ptr [ %records, %entry ], [ %record.next, %keep ]
  %more = icmp ult i64 %i, %count
  br i1 %more, label %make, label %yes
make:
  %array = call ptr @call_output(ptr %plan, ptr %record)
  %none = icmp eq ptr %array, null
  br i1 %none, label %no, label %keep
keep:
  call void @call_set(ptr %record, i64 5, ptr %array)
  %record.next = call ptr @call_next_output(ptr %record)
  %i.next = add i64 %i, 1
  br label %next
yes:
  ret i1 true
no:
  call void @call_drop(ptr %plan, ptr %records, i64 %i)
  %clear = call ptr @call_pointer(ptr %plan, i64 $clear_error)
  call void %clear()
  ret i1 false
}

define internal ptr @call_next_output(ptr %record) alwaysinline nounwind {
  %rank = call i64 @call_word(ptr %record, i64 1)
  %words = add i64 %rank, 6
  %next = getelementptr i64, ptr %record, i64 %words
  ret ptr %next
}

; Give up the first %count outputs.
define internal void @call_drop(ptr %plan, ptr %records, i64 %count) nounwind {
entry:
  br label %next
next:
  %i = phi i64 [ 0, %entry ], [ %i.next, %drop ]
  %record = phi ptr [ %records, %entry ], [ %record.next, %drop ]
  %more = icmp ult i64 %i, %count
  br i1 %more, label %drop, label %done
drop:
  %array = call ptr @call_pointer(ptr %record, i64 5)
  call void @call_decref(ptr %plan, ptr %array)
  %record.next = call ptr @call_next_output(ptr %record)
  %i.next = add i64 %i, 1
  br label %next
done:
  ret void
}

; The outputs as what Python gets; null with an error set when memory is short.
define internal ptr @call_result(ptr %plan, ptr %records, i64 %count) nounwind {
entry:
  %as.tuple = call i64 @call_word(ptr %plan, i64 $as_tuple)
  %alone = icmp eq i64 %as.tuple, 0
  br i1 %alone, label %single, label %several
single:
  %only = call ptr @call_pointer(ptr %records, i64 5)
  ret ptr %only
several:
  %new.tuple = call ptr @call_pointer(ptr %plan, i64 $new_tuple)
  %set.item = call ptr @call_pointer(ptr %plan, i64 $set_item)
  %tuple = call ptr %new.tuple(i64 %count)
  %none = icmp eq ptr %tuple, null
  br i1 %none, label %fail, label %next
next:
  %i = phi i64 [ 0, %several ], [ %i.next, %set ]
  %record = phi ptr [ %records, %several ], [ %record.next, %set ]
  %more = icmp ult i64 %i, %count
  br i1 %more, label %set, label %done
set:
  %array = call ptr @call_pointer(ptr %record, i64 5)
  %status = call i32 %set.item(ptr %tuple, i64 %i, ptr %array)
  %record.next = call ptr @call_next_output(ptr %record)
  %i.next = add i64 %i, 1
  br label %next
fail:
  call void @call_drop(ptr %plan, ptr %records, i64 %count)
  ret ptr null
done:
  ret ptr %tuple
}

; Hold the pool that there is now, and put it into the context: its object, %plan where none is needed, or null where
; there is none that is large enough. (The core is two words before the context.)
define internal ptr @call_pool(ptr %plan) nounwind {
entry:
  %cell = call ptr @call_pointer(ptr %plan, i64 $pool)
  %serial = icmp eq ptr %cell, null
  br i1 %serial, label %unneeded, label %find
unneeded:
  ret ptr %plan
find:
  %pool = load ptr, ptr %cell
  %none = icmp eq ptr %pool, null
  br i1 %none, label %missing, label %measure
measure:
  %threads = call i64 @call_word(ptr %pool, i64 1)
  %wanted = call i64 @call_word(ptr %plan, i64 $threads)
  %enough = icmp uge i64 %threads, %wanted
  br i1 %enough, label %hold, label %missing
hold:
  %context = call ptr @call_pointer(ptr %plan, i64 $context)
  %core = call ptr @call_pointer(ptr %pool, i64 0)
  call void @call_set(ptr %context, i64 -2, ptr %core)
  %object = call ptr @call_pointer(ptr %pool, i64 2)
  call void @call_incref(ptr %plan, ptr %object)
  ret ptr %object
missing:
  ret ptr null
}

; Run with the interpreter's lock released; returns the status.
define internal i32 @call_run(ptr %plan) nounwind {
  %io = call ptr @call_pointer(ptr %plan, i64 $io)
  %sizes = call ptr @call_pointer(ptr %plan, i64 $sizes)
  %arena = call ptr @call_pointer(ptr %plan, i64 $arena)
  %workspace = call ptr @call_pointer(ptr %plan, i64 $workspace)
  %weights = call ptr @call_pointer(ptr %plan, i64 $weights)
  %context = call ptr @call_pointer(ptr %plan, i64 $context)
  %save = call ptr @call_pointer(ptr %plan, i64 $save_thread)
  %restore = call ptr @call_pointer(ptr %plan, i64 $restore_thread)
  call void @call_set(ptr %context, i64 1, ptr null)
  %state = call ptr %save()
  %status = call i32 @polycomp_run(ptr %io, ptr %sizes, ptr %arena, ptr %workspace, ptr %weights, ptr %context)
  call void %restore(ptr %state)
  ret i32 %status
}

define internal ptr @call_declined(ptr %plan) nounwind {
  %object = call ptr @call_pointer(ptr %plan, i64 $not_implemented)
  call void @call_incref(ptr %plan, ptr %object)
  ret ptr %object
}

define ptr @polycomp_call(ptr %self, ptr %arguments, i64 %given) nounwind {
entry:
  %plan = call ptr @call_pointer(ptr %self, i64 2)
  %wanted = call i64 @call_word(ptr %plan, i64 $arguments)
  %complete = icmp eq i64 %given, %wanted
  %busy.at = getelementptr i64, ptr %plan, i64 $busy
  %busy = load i64, ptr %busy.at
  %free = icmp eq i64 %busy, 0
  %ready = and i1 %complete, %free
  br i1 %ready, label %take, label %declined
take:
  %records = call ptr @call_take(ptr %plan, ptr %arguments, i64 %given)
  %unfit = icmp eq ptr %records, null
  br i1 %unfit, label %declined, label %claim
claim:
  store i64 1, ptr %busy.at
  %pool = call ptr @call_pool(ptr %plan)
  %no.pool = icmp eq ptr %pool, null
  br i1 %no.pool, label %release, label %make
make:
  %count = call i64 @call_word(ptr %plan, i64 $outputs)
  %made = call i1 @call_outputs(ptr %plan, ptr %records, i64 %count)
  br i1 %made, label %run, label %let.go
run:
  %status = call i32 @call_run(ptr %plan)
  %failed = icmp ne i32 %status, 0
  br i1 %failed, label %drop, label %finish
finish:
  %result = call ptr @call_result(ptr %plan, ptr %records, i64 %count)
  store i64 0, ptr %busy.at
  call void @call_let_go(ptr %plan, ptr %pool)
  ret ptr %result
drop:
  call void @call_drop(ptr %plan, ptr %records, i64 %count)
  br label %let.go
let.go:
  call void @call_let_go(ptr %plan, ptr %pool)
  br label %release
release:
  store i64 0, ptr %busy.at
  br label %declined
declined:
  %answer = call ptr @call_declined(ptr %plan)
  ret ptr %answer
}

define internal void @call_let_go(ptr %plan, ptr %pool) nounwind {
  %unneeded = icmp eq ptr %pool, %plan
  br i1 %unneeded, label %done, label %decref
decref:
  call void @call_decref(ptr %plan, ptr %pool)
  br label %done
done:
  ret void
}
"""
