"""The primitives that rewrite loops.

The examples' tensors: ``y`` is ``x[i] * 2`` for ten ``i``; ``z`` is ``y[i] + y[i + 2]`` for eight; ``c`` is the product
of the matrices ``a`` (4 by 3) and ``b`` (3 by 6), ``f`` that of ``g`` (16 by 8) and ``h`` (8 by 8); ``d`` that of the
row ``u`` and the matrix ``v`` of bytes, whose rows are in groups of four.
"""

from __future__ import annotations

import dataclasses
import functools

from polycomp.errors import ExtentError, FactorError, NestingError
from polycomp.expr import Var, compare, const, minimum, simplify, wrap
from polycomp.poly.tree import Ahead, Loop, LoopKind
from polycomp.schedules import placement, reshape
from polycomp.schedules.handles import LoopLike, LoopRef, TensorLike, name_of, quoted
from polycomp.schedules.hints import after_fusion, after_split, fused_hints, with_hints_around
from polycomp.schedules.rewrite import as_dim, loop_range, ranges_of_path, substitute_loops
from polycomp.schedules.state import ScheduleState, primitive
from polycomp.te import Dim


class LoopPrimitives(ScheduleState):
    """Primitives on loops. A loop is given by its handle or its name."""

    @primitive
    def split(self, loop: LoopLike, factor: int, tail: str = "guard") -> tuple[LoopRef, LoopRef]:
        """``for i<n`` becomes ``for io<ceil(n/factor): for ii<factor``, with ``i = io*factor + ii``.

        Where ``factor`` does not divide ``n``, what lies beyond ``n`` is guarded (``tail="guard"``), or the inner loop
        ends early (``tail="shrink"``; it can then be neither unrolled nor vectorised). Returns (outer, inner).

        >>> s = pc.Schedule(y)
        >>> s.show()
        for i in range(10):
            y[i] = x[i] * 2.0
        >>> s.split("i", 4)
        (io, ii)
        >>> s.show()
        for io in range(3):
            for ii in range(4):
                if io*4 + ii < 10:
                    y[io*4 + ii] = x[io*4 + ii] * 2.0
        """
        _check_positive(factor, f"split of loop {name_of(loop)!r}", "factor")
        if tail not in ("guard", "shrink"):
            raise FactorError(f"split of loop {name_of(loop)!r}: tail is 'guard' or 'shrink', not {tail!r}")
        ref = self._ref(loop)
        copies = [self._split(copy, factor, tail) for copy in self._copies_of(ref.var)]
        outer, inner = self._split(ref.var, factor, tail)
        if copies:
            self._copies = {**self._copies, outer: tuple(c[0] for c in copies), inner: tuple(c[1] for c in copies)}
        return LoopRef(outer), LoopRef(inner)

    def _split(self, var: Var, factor: int, tail: str) -> tuple[Var, Var]:
        path = self._path(LoopRef(var))
        node = path[-1]
        assert isinstance(node, Loop)
        ranges = ranges_of_path(path[:-1], self.kernel.ranges)
        outer, inner = self._fresh(f"{var.name}o"), self._fresh(f"{var.name}i")
        count = as_dim(simplify((wrap(node.extent) + (factor - 1)) // factor, ranges))
        ranges[outer] = loop_range(count, ranges)
        ranges[inner] = (0, factor - 1)
        value = outer * factor + inner
        exact = simplify(wrap(node.extent) % factor, ranges) == const(0)
        guard = None if exact or tail == "shrink" else simplify(compare("lt", value, node.extent), ranges)
        extent: Dim = factor
        if tail == "shrink" and not exact:
            extent = simplify(minimum(node.extent - outer * factor, factor), ranges)
        body = substitute_loops(node.body, {node.var: value}, ranges, guard)
        body = with_hints_around(body, var, after_split(outer, inner, factor))
        new = Loop(outer, count, node.kind, (Loop(inner, extent, LoopKind.SERIAL, body, node.prefetch),))
        self._replace(var, lambda _: (new,))
        return outer, inner

    @primitive
    def tile(self, *loops_and_factors: tuple[LoopLike, int]) -> tuple[tuple[LoopRef, ...], tuple[LoopRef, ...]]:
        """Split each ``(loop, factor)`` and move all inner loops inside all outer ones. Returns (outers, inners).

        >>> s = pc.Schedule(c)
        >>> s.tile(("i", 2), ("j", 3))
        ((io, jo), (ii, ji))
        >>> s.show()
        for io in range(2):
            for jo in range(2):
                for ii in range(2):
                    for ji in range(3):
                        c[io*2 + ii, jo*3 + ji] = 0.0
                        for k in range(3):
                            c[io*2 + ii, jo*3 + ji] += a[io*2 + ii, k] * b[k, jo*3 + ji]
        """
        names = [name_of(loop) for loop, _ in loops_and_factors]
        if len(set(names)) != len(names):
            raise NestingError(f"tile was given a loop twice: {quoted(names)}")
        pairs = [self.split(loop, factor) for loop, factor in loops_and_factors]
        outers, inners = tuple(p[0] for p in pairs), tuple(p[1] for p in pairs)
        self.reorder(*outers, *inners)
        return outers, inners

    @primitive
    def fuse(self, outer: LoopLike, inner: LoopLike) -> LoopRef:
        """``for i<n: for j<m`` becomes ``for f<n*m``, with ``i = f // m`` and ``j = f % m``; m must be constant.

        >>> s = pc.Schedule(pc.compute((4, 6), lambda i, j: x[i + j], "w"))
        >>> s.fuse("i", "j")
        i.j
        >>> s.show()
        for i.j in range(24):
            w[i.j//6, i.j%6] = x[i.j%6 + i.j//6]
        """
        node, within = self.loop(outer), self._ref(inner)
        if len(node.body) != 1 or not isinstance(node.body[0], Loop) or node.body[0].var != within.var:
            raise NestingError(f"fuse needs loop {within.name!r} to be the only thing inside of loop {node.var.name!r}")
        inside = node.body[0]
        if not isinstance(inside.extent, int):
            raise ExtentError(
                f"fuse of {node.var.name!r} with {within.name!r} needs a constant inner extent, not {inside.extent}: "
                f"dividing by a symbolic size is not affine"
            )
        ranges = ranges_of_path(self._path(outer)[:-1], self.kernel.ranges)
        fused = self._fresh(f"{node.var.name}.{within.name}")
        extent = as_dim(simplify(wrap(node.extent) * inside.extent, ranges))
        ranges[fused] = loop_range(extent, ranges)
        values = {node.var: fused // inside.extent, inside.var: fused % inside.extent}
        values = {v: simplify(e, ranges) for v, e in values.items()}
        body = substitute_loops(inside.body, values, ranges)
        for var, count in ((node.var, inside.extent), (inside.var, 1)):
            body = with_hints_around(body, var, after_fusion(fused, count))
        new = Loop(fused, extent, node.kind, body, fused_hints(node, inside, inside.extent))
        self._replace(node.var, lambda _: (new,))
        return LoopRef(fused)

    @primitive
    def reorder(self, *loops: LoopLike) -> None:
        """Put the named loops, which must be nested in one another, into this order, outermost first.

        Loops between them that are not named keep their place. What stands before an inner loop in the body of an
        outer one (the initialisation of a reduction) keeps its own copies of the loops that move inside. Splitting,
        unrolling or vectorising such a loop later does the same to its copies.

        >>> s = pc.Schedule(c)
        >>> s.reorder("k", "i", "j")
        >>> s.show()
        for i2 in range(4):
            for j2 in range(6):
                c[i2, j2] = 0.0
        for k in range(3):
            for i in range(4):
                for j in range(6):
                    c[i, j] += a[i, k] * b[k, j]
        """
        refs = [self._ref(loop) for loop in loops]
        if len(set(refs)) != len(refs):
            raise NestingError(f"reorder was given a loop twice: {quoted(r.name for r in refs)}")
        if len(refs) < 2:
            return
        top = self._outermost(refs)
        taken = self._taken()
        copies = dict(self._copies)
        self._replace(top.var, lambda node: placement.reordered(node, [r.var for r in refs], taken, copies))
        self._copies = copies

    @primitive
    def unroll(self, loop: LoopLike) -> None:
        """Expand the loop's body once per iteration in the emitted code; its extent must be constant.

        >>> s = pc.Schedule(y)
        >>> io, ii = s.split("i", 2)
        >>> s.unroll(ii)
        >>> s.show()
        for io in range(5):
            for ii in unroll(2):
                y[io*2 + ii] = x[io*2 + ii] * 2.0
        """
        self._mark(loop, LoopKind.UNROLL)

    @primitive
    def vectorize(self, loop: LoopLike) -> None:
        """Execute all iterations of the loop at once, as vectors; its extent must be constant.

        A loop of a reduction may be vectorised: its iterations are then summed across the vector.

        >>> s = pc.Schedule(y)
        >>> io, ii = s.split("i", 5)
        >>> s.vectorize(ii)
        >>> s.show()
        for io in range(2):
            for ii in vector(5):
                y[io*5 + ii] = x[io*5 + ii] * 2.0
        """
        self._mark(loop, LoopKind.VECTOR)

    @primitive
    def dot(self, loop: LoopLike) -> None:
        """Sum the loop's iterations, products of narrow numbers, by one instruction where the machine has it.

        The loop is the innermost one, within a vectorised loop, and its iterations read neighbouring elements: four
        bytes or two halves, the size of the sum. Elsewhere it is unrolled.

        >>> s = pc.Schedule(d)
        >>> s.vectorize("i")
        >>> s.reorder("k", "i", "q")
        >>> s.dot("q")
        >>> s.show()
        for i2 in vector(8):
            d[i2] = 0
        for k in range(3):
            for i in vector(8):
                for q in dot(4):
                    d[i] += int32(u[k, q])*int32(v[k, i, q])
        """
        self._mark(loop, LoopKind.DOT)

    @primitive
    def parallel(self, loop: LoopLike) -> None:
        """Share the loop's iterations out to the threads of the pool. No iteration may need what another writes.

        >>> s = pc.Schedule(c)
        >>> s.parallel("i")
        >>> s.explain("parallel", "k").legal
        False
        >>> s.show()
        for i in parallel(4):
            for j in range(6):
                c[i, j] = 0.0
                for k in range(3):
                    c[i, j] += a[i, k] * b[k, j]
        """
        self._mark(loop, LoopKind.PARALLEL)

    @primitive
    def bind(self, loop: LoopLike, to: str) -> None:
        """Make the loop's iterations thread blocks of a GPU (``"block"``), or threads of a block (``"thread"``).

        No iteration may need what another writes, but threads may reduce into one element: a horizontal reduction.
        Loops of threads are inside of those of blocks and of constant extent. Several of them may follow one another
        in a block, and share tensors there: barriers between them are derived where they are needed. Nested loops
        bound to the same are numbered in row-major order.

        >>> s = pc.Schedule(c)
        >>> s.bind("i", "block")
        >>> s.bind("j", "thread")
        >>> s.show()
        for i in block(4):
            for j in thread(6):
                c[i, j] = 0.0
                for k in range(3):
                    c[i, j] += a[i, k] * b[k, j]
        """
        kind = {"block": LoopKind.BLOCK, "thread": LoopKind.THREAD}.get(to) if isinstance(to, str) else None
        if kind is None:
            raise FactorError(f"bind of loop {name_of(loop)!r}: it can be bound to 'block' or 'thread', not to {to!r}")
        ref = self._ref(loop)
        around = [n for n in self._path(ref)[:-1] if isinstance(n, Loop) and n.kind is LoopKind.THREAD]
        if kind is LoopKind.BLOCK and around:
            raise NestingError(
                f"bind of loop {ref.name!r} to blocks: it is inside of the threads of {around[0].var.name!r}"
            )
        self._mark(ref, kind)

    @primitive
    def tensorize(self, rows: LoopLike, columns: LoopLike, steps: LoopLike) -> None:
        """Let a GPU's tensor cores execute three innermost loops: sums of products for two rows and two columns.

        They are what one thread of a warp has of a tile of 16 by 8 sums: rows eight apart and columns side by side,
        for loops of eight and of four threads around them. The steps are 32 bytes of each operand (mma.sync's
        m16n8k8, m16n8k16 and m16n8k32). In the example a warp makes the whole of an ``f`` of 16 by 8 sums.

        >>> s = pc.Schedule(f)
        >>> (ro, row), (column, co) = s.split("i", 8), s.split("j", 2)
        >>> s.reorder(row, column, "k", ro, co)
        >>> s.bind(row, "thread")
        >>> s.bind(column, "thread")
        >>> s.tensorize(ro, co, "k")
        >>> s.show()
        for ii in thread(8):
            for jo in thread(4):
                for io2 in tensor(2):
                    for ji2 in tensor(2):
                        f[io2*8 + ii, jo*2 + ji2] = 0.0
                for k in tensor(8):
                    for io in tensor(2):
                        for ji in tensor(2):
                            f[io*8 + ii, jo*2 + ji] += g[io*8 + ii, k] * h[k, jo*2 + ji]
        """
        extents = [self.loop(loop).extent for loop in (rows, columns, steps)]
        if extents[:2] != [2, 2] or extents[2] not in (8, 16, 32):
            names = quoted(name_of(loop) for loop in (rows, columns, steps))
            raise ExtentError(
                f"tensorize of {names} needs loops of two rows, two columns, and 8, 16 or 32 steps, not of {extents}"
            )
        for loop in (rows, columns, steps):
            self._mark(loop, LoopKind.TENSOR)

    @primitive
    def serial(self, loop: LoopLike) -> None:
        """Take back :meth:`unroll`, :meth:`vectorize`, :meth:`dot`, :meth:`parallel`, :meth:`bind` or
        :meth:`tensorize`.

        >>> s = pc.Schedule(y)
        >>> s.parallel("i")
        >>> s.serial("i")
        >>> s.show()
        for i in range(10):
            y[i] = x[i] * 2.0
        """
        self._mark(loop, LoopKind.SERIAL)

    @primitive
    def unroll_and_jam(self, loop: LoopLike, factor: int) -> LoopRef:
        """Split a loop, move its inner part inside all loops below, and unroll it there; returns that part.

        What the inner loops load is then used ``factor`` times.

        >>> s = pc.Schedule(c)
        >>> s.unroll_and_jam("i", 2)
        ii
        >>> s.show()
        for io in range(2):
            for j in range(6):
                for ii2 in unroll(2):
                    c[io*2 + ii2, j] = 0.0
                for k in range(3):
                    for ii in unroll(2):
                        c[io*2 + ii, j] += a[io*2 + ii, k] * b[k, j]
        """
        _, inner = self.split(loop, factor)
        below: list[LoopRef] = []
        node = self.loop(inner)
        while isinstance(node.body[-1], Loop):
            node = node.body[-1]
            below.append(LoopRef(node.var))
        self.reorder(*below, inner)
        self.unroll(inner)
        return inner

    @primitive
    def pad(self, loop: LoopLike, multiple: int) -> None:
        """Round the loop's extent up to a multiple; the iterations beyond the old extent do nothing.

        Splitting it by that multiple is then exact.

        >>> s = pc.Schedule(y)
        >>> s.pad("i", 4)
        >>> s.show()
        for i in range(12):
            if i < 10:
                y[i] = x[i] * 2.0
        """
        _check_positive(multiple, f"pad of loop {name_of(loop)!r}", "multiple")
        ref = self._ref(loop)
        for var in (ref.var, *self._copies_of(ref.var)):
            ranges = ranges_of_path(self._path(LoopRef(var))[:-1], self.kernel.ranges)
            self._replace(var, functools.partial(reshape.padded, multiple=multiple, ranges=ranges))

    @primitive
    def skew(self, outer: LoopLike, inner: LoopLike, factor: int = 1) -> LoopRef:
        """Replace ``for j`` inside of ``for i`` by a loop over ``j + factor*i``; returns the new loop.

        Iterations keep their order; but where the iteration (i, j) needs (i-1, j+1), the skewed loops may be tiled and
        interchanged although the old ones may not (time skewing of stencils).

        >>> s = pc.Schedule(pc.compute((3, 4), lambda i, j: x[i + j], "w"))
        >>> s.skew("i", "j")
        js
        >>> s.show()
        for i in range(3):
            for js in range(6):
                if js - i >= 0 and js - i < 4:
                    w[i, js - i] = x[js]
        """
        if isinstance(factor, bool) or not isinstance(factor, int) or factor == 0:
            raise FactorError(f"skew of loop {name_of(inner)!r} needs an int other than 0 as factor, not {factor!r}")
        around, within = self._ref(outer), self._ref(inner)
        new = self._fresh(f"{within.name}s")
        ranges = ranges_of_path(self._path(around)[:-1], self.kernel.ranges)
        self._replace(around.var, lambda node: reshape.skewed(node, within.var, factor, new, ranges))
        return LoopRef(new)

    @primitive
    def peel(self, loop: LoopLike, count: int, end: str = "last") -> None:
        """Execute the first or last ``count`` iterations in a loop of their own; the rest keeps its handle.

        >>> s = pc.Schedule(y)
        >>> s.peel("i", 2)
        >>> s.show()
        for i in range(8):
            y[i] = x[i] * 2.0
        for ip in range(2):
            y[ip + 8] = x[ip + 8] * 2.0
        """
        _check_positive(count, f"peel of loop {name_of(loop)!r}", "count")
        if end not in ("first", "last"):
            raise FactorError(f"peel of loop {name_of(loop)!r}: end is 'first' or 'last', not {end!r}")
        ref, taken = self._ref(loop), self._taken()
        ranges = ranges_of_path(self._path(ref)[:-1], self.kernel.ranges)
        self._replace(ref.var, lambda node: reshape.peeled(node, count, end == "first", ranges, taken))

    @primitive
    def prefetch(self, tensor: TensorLike, loop: LoopLike, distance: int, around: LoopLike | None = None) -> None:
        """In each iteration of ``loop``, ask for the cache lines that it will use of ``tensor`` in ``distance`` more.

        With ``around``, a loop outside of ``loop``, ask for what that one will read in ``distance`` more iterations of
        its own: each iteration of ``loop`` for a share, so that memory has all the time until then.

        A hint to the machine without effect on results; lines beyond the tensor's end are harmless. It follows its
        loops when they are split, fused or skewed; what would lose it otherwise is refused.

        >>> s = pc.Schedule(y)
        >>> s.prefetch("x", "i", 8)
        >>> s.show()
        for i in range(10):  # prefetch x, 8 ahead
            y[i] = x[i] * 2.0
        """
        _check_positive(distance, f"prefetch of {name_of(tensor)!r}", "distance")
        ref = self._ref(loop)
        outer = None if around is None else self._ref(around).var
        if outer is not None and all(not isinstance(n, Loop) or n.var != outer for n in self._path(ref)[:-1]):
            raise NestingError(f"prefetch of {name_of(tensor)!r}: loop {outer.name!r} is not around {ref.name!r}")
        ahead = Ahead(self.tensor(tensor), distance, outer)
        self._replace(ref.var, lambda n: (dataclasses.replace(n, prefetch=(*n.prefetch, ahead)),))

    @primitive
    def pipeline(self, loop: LoopLike, stages: int) -> None:
        """Ask for what an iteration copies to a GPU's shared memory ``stages - 1`` iterations before.

        The copies are tensors that are computed at the beginning of a serial loop's body, in shared memory, which then
        is there ``stages`` times. Splitting, fusing or reordering the loop later takes this back.

        >>> s = pc.Schedule(c)
        >>> packed = s.cache_read("b", "c")
        >>> s.bind("j", "thread")
        >>> s.reorder("k", "i", "j")
        >>> row, column = s.compute_at(packed, "k", "shared")
        >>> s.bind(column, "thread")
        >>> s.pipeline("k", 2)
        >>> s.show()
        for i2 in range(4):
            for j2 in thread(6):
                c[i2, j2] = 0.0
        for k in range(3):  # 2 stages
            b.packed = shared(float32, [1, 6])  # from [k, 0] on
            for p02 in range(1):
                for p12 in thread(6):
                    b.packed[k + p02, p12] = b[k + p02, p12]
            for i in range(4):
                for j in thread(6):
                    c[i, j] += a[i, k] * b.packed[k, j]
        """
        _check_positive(stages, f"pipeline of loop {name_of(loop)!r}", "number of stages")
        node = self.loop(loop)
        if node.kind is not LoopKind.SERIAL:
            raise NestingError(f"pipeline of loop {node.var.name!r}: its iterations must follow one another, but it is "
                               f"marked as {node.kind.value}")  # fmt: skip
        self._replace(node.var, lambda n: (dataclasses.replace(n, stages=stages),))

    def _mark(self, loop: LoopLike, kind: LoopKind) -> None:
        node = self.loop(loop)
        if kind.is_expanded and not isinstance(node.extent, int):
            raise ExtentError(
                f"loop {node.var.name!r} runs {node.extent} times, which is not known while compiling; split it by a "
                f"constant first, then mark the inner loop as {kind.value}"
            )
        copies = () if kind.is_shared_out else self._copies_of(node.var)
        for var in (node.var, *copies):
            self._replace(var, lambda n: (dataclasses.replace(n, kind=kind),))


def _check_positive(value: object, where: str, what: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise FactorError(f"{where} needs a positive int as {what}, not {value!r}")
