"""The primitives that say where tensors are computed and stored.

The examples' tensors are those of :mod:`polycomp.schedules.loop_primitives`; ``q`` is ``p[i, j] + 1``, and ``p`` is
``w[i, j] * 2``, for 16 ``i`` and 32 ``j``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from polycomp.errors import ExtentError, FactorError, PlacementError
from polycomp.poly.tree import SWIZZLED_BYTES, Allocate, Scope, walk
from polycomp.schedules import merging, placement, stages
from polycomp.schedules.handles import LoopLike, LoopRef, TensorLike, quoted
from polycomp.schedules.state import ScheduleState, primitive
from polycomp.te import Tensor


class StagePrimitives(ScheduleState):
    """Primitives on stages. A tensor is given by itself or by its name."""

    @primitive
    def compute_inline(self, tensor: TensorLike) -> None:
        """Replace every read of ``tensor`` by its definition, and compute it nowhere. Not for reductions, outputs.

        >>> s = pc.Schedule(z)
        >>> s.compute_inline("y")
        >>> s.show()
        for i2 in range(8):
            z[i2] = x[i2] * 2.0 + x[i2 + 2] * 2.0
        """
        self.kernel = stages.inline(self.kernel, self.tensor(tensor))

    @primitive
    def compute_at(
        self, tensor: TensorLike, loop: LoopLike, scope: Scope | str = Scope.WORKSPACE, overcompute: bool = False
    ) -> tuple[LoopRef, ...]:
        """Compute what an iteration of ``loop`` needs of ``tensor`` inside of that iteration, into private storage.

        Returns the new loops around the tensor's (updating) statement. With ``overcompute`` the whole box is computed
        even where it reaches beyond the tensor: reads there are clamped to the edge, and nothing is guarded. Of a
        recurrence all steps are computed, and all of a dimension along which an element is made of its neighbours.

        >>> s = pc.Schedule(z)
        >>> s.show()
        y = memory(float32, [10])
        for i in range(10):
            y[i] = x[i] * 2.0
        for i2 in range(8):
            z[i2] = y[i2] + y[i2 + 2]
        >>> io, ii = s.split("i2", 4)
        >>> s.compute_at("y", io)
        (i3,)
        >>> s.show()
        for i2o in range(2):
            y = memory(float32, [6])  # from [i2o*4] on
            for i3 in range(6):
                y[i2o*4 + i3] = x[i2o*4 + i3] * 2.0
            for i2i in range(4):
                z[i2o*4 + i2i] = y[i2o*4 + i2i] + y[i2o*4 + i2i + 2]
        """
        stage, ref = self.tensor(tensor), self._ref(loop)
        self.kernel = placement.compute_at(self.kernel, stage, ref.var, _scope(scope), overcompute, self._names)
        inside = self.loops_of(stage)
        return inside[inside.index(ref) + 1 :]

    @primitive
    def compute_with(self, tensor: TensorLike, loop: LoopLike) -> tuple[LoopRef, ...]:
        """Compute ``tensor`` in the loops of another stage, from the first that they do not share down to ``loop``.

        Each of those is merged with one of the tensor's own loops, which must run equally often; returns the rest of
        them. In each iteration the tensor comes before what reads it, or last.

        >>> w = pc.compute((10,), lambda j: y[j] + 1.0, "w")
        >>> s = pc.Schedule(w)
        >>> s.compute_with("y", "j")
        ()
        >>> s.show()
        y = memory(float32, [10])
        for j in range(10):
            y[j] = x[j] * 2.0
            w[j] = y[j] + 1.0
        """
        stage, ref = self.tensor(tensor), self._ref(loop)
        self._last_statement(stage)
        self.kernel = merging.compute_with(self.kernel, stage, ref.var)
        inside = self.loops_of(stage)
        return inside[inside.index(ref) + 1 :]

    @primitive
    def compute_root(self, tensor: TensorLike) -> tuple[LoopRef, ...]:
        """Compute the whole of ``tensor`` in loops of its own before all that reads it; returns those loops.

        >>> s = pc.Schedule(z)
        >>> _ = s.compute_at("y", "i2")
        >>> s.compute_root("y")
        (i4,)
        >>> s.show()
        y = memory(float32, [10])
        for i4 in range(10):
            y[i4] = x[i4] * 2.0
        for i2 in range(8):
            z[i2] = y[i2] + y[i2 + 2]
        """
        stage = self.tensor(tensor)
        self.kernel = stages.at_root(self.kernel, stage, self._taken())
        return self.loops_of(stage)

    @primitive
    def cache_write(self, tensor: TensorLike) -> Tensor:
        """Compute ``tensor`` in a new tensor ``<name>.acc`` and copy from it; returns the new tensor.

        The copy can then be tiled, and the accumulator placed into its tile by :meth:`compute_at`, in registers: sums
        are then not kept in memory while they are being made.

        >>> s = pc.Schedule(c)
        >>> acc = s.cache_write("c")
        >>> (io, jo), (ii, ji) = s.tile((s[c].loops[0], 2), (s[c].loops[1], 6))
        >>> s.compute_at(acc, jo, scope="register")
        (i3, j3, k2)
        >>> s.show()
        for i2o in range(2):
            for j2o in range(1):
                c.acc = registers(float32, [2, 6])  # from [i2o*2, j2o*6] on
                for i3 in range(2):
                    for j3 in range(6):
                        c.acc[i2o*2 + i3, j2o*6 + j3] = 0.0
                        for k2 in range(3):
                            c.acc[i2o*2 + i3, j2o*6 + j3] += a[i2o*2 + i3, k2] * b[k2, j2o*6 + j3]
                for i2i in range(2):
                    for j2i in range(6):
                        c[i2o*2 + i2i, j2o*6 + j2i] = c.acc[i2o*2 + i2i, j2o*6 + j2i]
        """
        self.kernel, made = stages.cache_write(self.kernel, self.tensor(tensor), self._taken())
        return made

    @primitive
    def cache_read(
        self,
        tensor: TensorLike,
        reader: TensorLike,
        tiles: Mapping[int, int] | Mapping[str, int] | None = None,
        access: int | None = None,
    ) -> Tensor:
        """Let ``reader`` read a copy ``<name>.packed`` of ``tensor``; returns the copy.

        With ``access`` only that one of several accesses, counted from 0 in the order of the definition.

        ``tiles`` maps dimensions to factors: each such dimension of size n becomes a first dimension ceil(n/f) and a
        last one f (in the given order), so that the copy is made of panels; what lies beyond n is zero.

        >>> s = pc.Schedule(c)
        >>> packed = s.cache_read("b", "c", {1: 2})
        >>> s.show()
        b.packed = memory(float32, [3, 3, 2])
        for p0 in range(3):
            for p1 in range(3):
                for p2 in range(2):
                    b.packed[p0, p1, p2] = b[p1, p0*2 + p2]
        for i in range(4):
            for j in range(6):
                c[i, j] = 0.0
                for k in range(3):
                    c[i, j] += a[i, k] * b.packed[j//2, k, j%2]
        """
        factors = {int(d): f for d, f in (tiles or {}).items()}
        wrong = [f for f in factors.values() if isinstance(f, bool) or not isinstance(f, int) or f < 1]
        if wrong:
            raise FactorError(f"cache_read: a tile needs a positive int as factor, not {wrong[0]!r}")
        source, user = self.tensor(tensor), self.tensor(reader)
        self.kernel, made = stages.cache_read(self.kernel, source, user, factors, access, self._taken())
        return made

    @primitive
    def rfactor(self, tensor: TensorLike, axis: int, factor: int, blocked: bool = False) -> Tensor:
        """Split a reduction over its axis number ``axis`` into ``factor`` independent partial results.

        Returns the tensor of partial results, ``<name>.rf``, whose last dimension is the ``factor`` partials;
        ``tensor`` then reduces over those. This is what makes a reduction parallel along the reduced axis. The order
        of additions changes, and with it the rounding of floats.

        Neighbours along the axis go to different partial results, as suits vectors. ``blocked``, each takes one piece
        of the axis instead, as suits threads, and the partials are the first dimension.

        >>> k = pc.reduce_axis(10, "k")
        >>> s = pc.Schedule(pc.compute((), lambda: pc.sum(x[k], axis=k), "t"))
        >>> s.show()
        t[] = 0.0
        for k in range(10):
            t[] += x[k]
        >>> partial = s.rfactor("t", 0, 2)
        >>> s.show()
        t.rf = memory(float32, [2])
        for k.lane in range(2):
            t.rf[k.lane] = 0.0
            for k.outer in range(5):
                t.rf[k.lane] += x[k.outer*2 + k.lane]
        t[] = 0.0
        for k.lane2 in range(2):
            t[] += t.rf[k.lane2]
        >>> s = pc.Schedule(pc.compute((), lambda: pc.sum(x[k], axis=k), "t"))
        >>> _ = s.rfactor("t", 0, 2, blocked=True)
        >>> s.show()
        t.rf = memory(float32, [2])
        for k.lane in range(2):
            t.rf[k.lane] = 0.0
            for k.outer in range(5):
                t.rf[k.lane] += x[k.lane*5 + k.outer]
        t[] = 0.0
        for k.lane2 in range(2):
            t[] += t.rf[k.lane2]
        """
        if isinstance(factor, bool) or not isinstance(factor, int) or factor < 1:
            raise FactorError(f"rfactor needs a positive int as factor, not {factor!r}")
        self.kernel, made = stages.rfactor(self.kernel, self.tensor(tensor), axis, factor, blocked, self._taken())
        return made

    @primitive
    def set_scope(self, tensor: TensorLike, scope: Scope | str) -> None:
        """Store an intermediate tensor in memory (``"workspace"``) or, if it is small, in registers (``"register"``).

        On a GPU ``"shared"`` is the shared memory of a thread block, and registers that lie around loops of threads
        are those of the thread that touches them.

        >>> s = pc.Schedule(z)
        >>> s.set_scope("y", "register")
        >>> s.show()
        y = registers(float32, [10])
        for i in range(10):
            y[i] = x[i] * 2.0
        for i2 in range(8):
            z[i2] = y[i2] + y[i2 + 2]
        """
        stage, where = self.tensor(tensor), _scope(scope)
        shape = self._storage("set_scope", stage).stored_shape
        if where is not Scope.WORKSPACE and not all(isinstance(d, int) for d in shape):
            extents = ", ".join(map(str, shape))
            name = "registers" if where is Scope.REGISTER else "shared memory"
            raise PlacementError(f"set_scope of {stage.name!r} to {name}: its size [{extents}] is not constant")
        tree = placement.with_storage(self.tree, stage, lambda node: dataclasses.replace(node, scope=where))
        self.kernel = dataclasses.replace(self.kernel, tree=tree)

    @primitive
    def fold_storage(self, tensor: TensorLike, dimension: int, factor: int) -> None:
        """Store element ``i`` of a dimension of an intermediate tensor at ``i % factor``: only so much is kept.

        Legal when every element is read before another one is written to its place. Steps of time that need only the
        step before are kept modulo 2. A factor that is not below the dimension's extent keeps all of it, and computing
        the tensor elsewhere (:meth:`compute_at`) does so as well.

        >>> u = pc.recurrence((50, 10), lambda u, t, i: pc.select(t < 1, x[i], u[t - 1, i] * 0.5), name="u")
        >>> s = pc.Schedule(pc.compute((10,), lambda j: u[49, j] + 1.0, "last"))
        >>> s.fold_storage("u", 0, 2)
        >>> s.show()
        u = memory(float32, [2, 10])  # dimension 0 modulo 2
        for t in range(50):
            for i in range(10):
                u[t, i] = select(t < 1, x[i], u[t - 1, i] * 0.5)
        for j in range(10):
            last[j] = u[49, j] + 1.0
        """
        stage = self.tensor(tensor)
        shape = self._storage("fold_storage", stage).shape
        _check_dimension("fold_storage", stage, dimension)
        if isinstance(factor, bool) or not isinstance(factor, int) or factor < 1:
            raise FactorError(f"fold_storage of {stage.name!r} needs a positive int as factor, not {factor!r}")
        extent = shape[dimension]
        kept = 0 if isinstance(extent, int) and factor >= extent else factor
        self.kernel = dataclasses.replace(self.kernel, tree=placement.folded(self.tree, stage, dimension, kept))

    @primitive
    def pad_storage(self, tensor: TensorLike, dimension: int, extra: int) -> None:
        """Make the memory of an intermediate tensor longer than needed along a dimension: its rows begin elsewhere.

        Rows that lie a power of two apart get in each other's way, in the sets of a cache and in the banks of a GPU's
        shared memory (TVM's ``storage_align``). Computing the tensor elsewhere takes this back.

        >>> s = pc.Schedule(z)
        >>> s.pad_storage("y", 0, 2)
        >>> s.show()
        y = memory(float32, [12])
        for i in range(10):
            y[i] = x[i] * 2.0
        for i2 in range(8):
            z[i2] = y[i2] + y[i2 + 2]
        """
        stage = self.tensor(tensor)
        shape = self._storage("pad_storage", stage).shape
        _check_dimension("pad_storage", stage, dimension)
        if isinstance(extra, bool) or not isinstance(extra, int) or extra < 0:
            raise FactorError(f"pad_storage of {stage.name!r} needs an int from 0 on, not {extra!r}")
        padded = (*shape[:dimension], shape[dimension] + extra, *shape[dimension + 1 :])
        tree = placement.with_storage(self.tree, stage, lambda node: dataclasses.replace(node, shape=padded))
        self.kernel = dataclasses.replace(self.kernel, tree=tree)

    @primitive
    def swizzle_storage(self, tensor: TensorLike) -> None:
        """Store a tensor of shared memory in panels of 128 bytes of its last dimension, in rows whose pieces of 16
        bytes change places: what threads read of a column is then in all banks, and no memory is lost.

        It is how products of warpgroups take their operands (128-byte swizzling, "PTX ISA", wgmma). The last dimension
        has a multiple of 128 bytes, the one before it of 8 rows. Computing the tensor elsewhere takes this back.

        >>> s = pc.Schedule(q)
        >>> io, ii = s.split("i2", 8)
        >>> s.bind(io, "block")
        >>> s.compute_at("p", io, "shared")
        (i3, j3)
        >>> s.swizzle_storage("p")
        >>> s.show()
        for i2o in block(2):
            p = shared(float32, [8, 32])  # from [i2o*8, 0] on, swizzled
            for i3 in range(8):
                for j3 in range(32):
                    p[i2o*8 + i3, j3] = w[i2o*8 + i3, j3] * 2.0
            for i2i in range(8):
                for j2 in range(32):
                    q[i2o*8 + i2i, j2] = p[i2o*8 + i2i, j2] + 1.0
        """
        stage = self.tensor(tensor)
        storage = self._storage("swizzle_storage", stage)
        if storage.scope is not Scope.SHARED:
            raise PlacementError(
                f"swizzle_storage of {stage.name!r}: it is in {storage.scope.value} memory; compute it at a loop over "
                f"blocks in 'shared' first"
            )
        rows, columns = (0, *(n if isinstance(n, int) else 0 for n in storage.shape))[-2:]
        if not rows or rows % 8 or columns * stage.dtype.bytes % SWIZZLED_BYTES:
            raise ExtentError(
                f"swizzle_storage of {stage.name!r} needs a multiple of 8 rows of a multiple of {SWIZZLED_BYTES} "
                f"bytes, not {list(storage.shape)} of {stage.dtype.value}"
            )
        tree = placement.with_storage(self.tree, stage, lambda node: dataclasses.replace(node, swizzled=True))
        self.kernel = dataclasses.replace(self.kernel, tree=tree)

    def _storage(self, primitive_name: str, tensor: Tensor) -> Allocate:
        """Where an intermediate tensor is stored. Raises :class:`PlacementError` for an argument."""
        stored = [n for n, _ in walk(self.tree) if isinstance(n, Allocate)]
        found = next((n for n in stored if n.tensor is tensor), None)
        if found is None:
            names = quoted(dict.fromkeys(n.tensor.name for n in stored))
            raise PlacementError(
                f"{primitive_name} of {tensor.name!r}: it is an argument; tensors stored here are {names}"
            )
        return found


def _check_dimension(primitive_name: str, tensor: Tensor, dimension: object) -> None:
    if isinstance(dimension, bool) or not isinstance(dimension, int) or not 0 <= dimension < tensor.rank:
        raise FactorError(
            f"{primitive_name}: {tensor.name!r} has {tensor.rank} dimensions, there is no dimension {dimension!r}"
        )


def _scope(scope: Scope | str) -> Scope:
    """A scope by name. Raises :class:`FactorError`."""
    if isinstance(scope, Scope) and scope is not Scope.ARGUMENT:
        return scope
    known = {s.value: s for s in Scope if s is not Scope.ARGUMENT}
    found = known.get(scope) if isinstance(scope, str) else None
    if found is None:
        raise FactorError(f"a scope is 'workspace', 'register' or 'shared', not {getattr(scope, 'value', scope)!r}")
    return found
