"""LLVM IR that makes LLVM emit the relocations that kernels have."""

from polycomp.target import host_target, parse_target

HOST = host_target()
ARM = parse_target("aarch64-linux-gnu,cpu=cortex-a72")

# f(i, d, s): copies 16 bytes from s to d, twice, and returns other(table[i]) + *pointer.
FIRST = """
@table = internal constant [4 x i32] [i32 1, i32 2, i32 3, i32 4], align 64
@counter = global i32 7
@zeros = internal global [100 x i64] zeroinitializer
@pointer = constant ptr @counter
@copy = constant ptr @memcpy
declare ptr @memcpy(ptr, ptr, i64)
declare i32 @other(i32)
define i32 @f(i32 %i, ptr %d, ptr %s) {
  %c = call ptr @memcpy(ptr %d, ptr %s, i64 16) nobuiltin
  %p = getelementptr [4 x i32], ptr @table, i32 0, i32 %i
  %v = load i32, ptr %p
  %q = load ptr, ptr @pointer
  %w = load i32, ptr %q
  %o = call i32 @other(i32 %v)
  %g = load volatile ptr, ptr @copy
  %c2 = call ptr %g(ptr %d, ptr %s, i64 16)
  %z = getelementptr [100 x i64], ptr @zeros, i32 0, i32 %i
  %zz = load volatile i64, ptr %z
  %zt = trunc i64 %zz to i32
  store volatile i64 5, ptr %z
  %r = add i32 %o, %w
  %r2 = add i32 %r, %zt
  ret i32 %r2
}
"""

# other(i): counter = 100, returns table[i] + the counter before; its table is another one of the same name.
SECOND = """
@counter = external global i32
@table = internal constant [5 x i32] [i32 10, i32 20, i32 30, i32 40, i32 50]
define i32 @other(i32 %i) {
  %p = getelementptr [5 x i32], ptr @table, i32 0, i32 %i
  %v = load i32, ptr %p
  %w = load i32, ptr @counter
  store i32 100, ptr @counter
  %r = add i32 %v, %w
  ret i32 %r
}
"""

# A jump table, vector constants, a call through a slot, a common and a weak symbol, and an aligned function.
THIRD = """
@shared = common global [4 x i64] zeroinitializer, align 32
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
declare ptr @memmove(ptr, ptr, i64) nonlazybind
define weak i32 @answer() { ret i32 41 }
define i32 @choose(i32 %i, ptr %d) align 64 {
  switch i32 %i, label %other [ i32 0, label %a  i32 1, label %b  i32 2, label %c  i32 3, label %e  i32 4, label %f ]
a:
  store <4 x float> <float 1.0, float 2.5, float -3.0, float 4.0>, ptr %d, align 4
  ret i32 10
b:
  call void @llvm.memset.p0.i64(ptr %d, i8 7, i64 4096, i1 false)
  ret i32 11
c:
  %m = call ptr @memmove(ptr %d, ptr @shared, i64 32) nobuiltin
  ret i32 12
e:
  %x = load volatile float, ptr %d
  %y = fmul float %x, 0x3FF921FB60000000
  store float %y, ptr %d
  ret i32 13
f:
  %n = call i32 @answer()
  ret i32 %n
other:
  store i64 77, ptr getelementptr ([4 x i64], ptr @shared, i32 0, i32 2)
  ret i32 -1
}
"""

STRONG_ANSWER = "define i32 @answer() { ret i32 42 }"
