"""Schedules for reductions and what surrounds them: pooling, means, softmax, normalisation.

A *main* stage is an output (or a tensor that several outputs need). Everything that only it needs is computed inside of
its loops: once per row when the reduction runs along memory, once per vector of neighbouring results otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from polycomp.expr import Interval, Reduce, Var, free_vars, loads, simplify, substitute
from polycomp.poly.tree import Scope
from polycomp.schedules.library.analysis import constant, depends_on, is_reduction, stride_of
from polycomp.schedules.library.elementwise import (
    is_large,
    lanes_for,
    parallelize,
    schedule_elementwise,
    vectorize_innermost,
)
from polycomp.schedules.schedule import LoopRef, Schedule
from polycomp.target import Target
from polycomp.te import Axis, Tensor

_PARTIAL_VECTORS = 4  # vectors of partial sums: enough to hide the latency of an addition
_REGISTER_ELEMENTS = 1024
_LONGEST_BLOCK = 32  # of a scan, whose elements are unrolled


def schedule_reductions(schedule: Schedule, stages: Sequence[Tensor], target: Target) -> None:
    """Schedule all ``stages`` (producers first), some of which are reductions."""
    mains = main_stages(stages, schedule.kernel.outputs)
    for main in mains:
        own = exclusive_producers(main, stages, mains)
        if not is_reduction(main) and not any(map(is_reduction, own)) and not own:
            schedule_elementwise(schedule, main, target)
        else:
            _schedule_main(schedule, main, own, target)


def main_stages(stages: Sequence[Tensor], outputs: Sequence[Tensor]) -> list[Tensor]:
    """Outputs, tensors that no other stage reads, and those that more than one of these needs."""
    mains = [t for t in stages if t in outputs or not any(t in user.inputs() for user in stages)]
    changed = True
    while changed:
        changed = False
        for tensor in stages:
            if tensor not in mains and len(_needed_by(tensor, stages, mains)) > 1:
                mains = [t for t in stages if t in mains or t is tensor]
                changed = True
    return mains


def _needed_by(tensor: Tensor, stages: Sequence[Tensor], mains: Sequence[Tensor]) -> set[Tensor]:
    """The main stages that read ``tensor``, directly or through stages that are not main."""
    found: set[Tensor] = set()
    for user in stages:
        if tensor in user.inputs():
            found |= {user} if user in mains else _needed_by(user, stages, mains)
    return found


def exclusive_producers(main: Tensor, stages: Sequence[Tensor], mains: Sequence[Tensor]) -> list[Tensor]:
    """The stages that are computed for ``main`` alone, producers first."""
    return [t for t in stages if t not in mains and _needed_by(t, stages, mains) == {main}]


def _schedule_main(schedule: Schedule, main: Tensor, own: list[Tensor], target: Target) -> None:
    reductions = [t for t in (*own, main) if is_reduction(t)]
    along = _runs_along_memory(reductions[-1]) if reductions else False
    lanes = lanes_for(reductions[-1] if reductions else main, target)
    if is_reduction(main):
        own = [*own, schedule.cache_write(main)]
    if along:
        _schedule_rows(schedule, main, own, lanes, target)
    else:
        _schedule_columns(schedule, main, own, lanes, target)


def _runs_along_memory(tensor: Tensor) -> bool:
    """Whether the reduction's last axis steps through memory element by element, and its results do not."""
    assert isinstance(tensor.body, Reduce)
    sources = [x for x in loads(tensor.body) if x.indices]
    if not sources or not tensor.reduce_axes:
        return False
    largest = max(sources, key=lambda x: len({v for i in x.indices for v in free_vars(i)}))
    if stride_of(largest, tensor.reduce_axes[-1]) != 1:
        return False
    return not tensor.axes or stride_of(largest, tensor.axes[-1]) != 1 or constant(tensor.axes[-1].extent) == 1


def _row_axes(main: Tensor, own: Sequence[Tensor]) -> list[bool]:
    """For each axis of ``main``, whether every reduction it reads is read along that axis (so rows are apart)."""
    if is_reduction(main):
        return [True] * main.rank
    assert main.body is not None
    keep = [True] * main.rank
    for load in loads(main.body):
        if load.source in own and _contains_reduction(load.source, own):
            used = [i for i in load.indices if isinstance(i, Axis)]
            reduced = is_reduction(load.source)
            keep = [k and (a in used or not reduced) for k, a in zip(keep, main.axes, strict=True)]
    return keep


def _contains_reduction(tensor: Tensor, own: Sequence[Tensor]) -> bool:
    return is_reduction(tensor) or any(_contains_reduction(t, own) for t in tensor.inputs() if t in own)


def _schedule_rows(schedule: Schedule, main: Tensor, own: list[Tensor], lanes: int, target: Target) -> None:
    """One row after the other, each row's stages in turn, vectors along the row."""
    keep = _row_axes(main, own)
    scans = {t: schedule.cache_write(t) for t in own if is_scan(t)}
    partials = {t: partial_sums(schedule, t, lanes) for t in own if is_reduction(t) and t not in scans}
    loops = schedule[main].loops
    rows = [x for x, k in zip(loops, keep, strict=True) if k]
    inner = [x for x, k in zip(loops, keep, strict=True) if not k]
    schedule.reorder(*rows, *inner)
    row = rows[-1] if rows else None
    passes: dict[Tensor, LoopRef] = {}
    for tensor in reversed(own):
        if tensor in scans:
            _place_scan(schedule, tensor, scans[tensor], row)
            continue
        blocks = place_stage(schedule, tensor, row, lanes)
        if blocks:
            passes[tensor] = blocks[-1]
        partial = partials.get(tensor)
        if partial is not None:
            place_partial(schedule, partial, row)
    if inner:
        blocks = vectorize_innermost(schedule, inner, lanes)
        if blocks:
            passes[main] = blocks[-1]
    if row is not None:
        _prefetch_next_row(schedule, [*own, main], passes, target)
    if rows and any(map(_is_big_domain, (*own, main))):
        parallelize(schedule, rows, target)


def _prefetch_next_row(
    schedule: Schedule, stages: Sequence[Tensor], passes: Mapping[Tensor, LoopRef], target: Target
) -> None:
    """Ask for the next row while this one is computed, where a row is walked over more than once.

    Memory has nothing to do in the later walks otherwise. What is read is asked for by the last stage that reads it,
    what is written by the stage that writes it.
    """
    for source in schedule.kernel.inputs:
        readers = [t for t in stages if source in t.inputs()]
        if len(readers) > 1:
            _look_ahead(schedule, source, passes.get(readers[-1]), target)
    _look_ahead(schedule, stages[-1], passes.get(stages[-1]), target)


def _look_ahead(schedule: Schedule, tensor: Tensor, blocks: LoopRef | None, target: Target) -> None:
    """Ask for ``tensor`` a whole run of the loop ahead, unless that would push out what is needed before."""
    count = None if blocks is None else constant(schedule.extent(blocks))
    if blocks is not None and count is not None and count * target.vector_bytes <= target.l2_bytes // 8:
        schedule.prefetch(tensor, blocks, count)


def _is_big_domain(tensor: Tensor) -> bool:
    return is_large([a.extent for a in (*tensor.axes, *tensor.reduce_axes)])


def partial_sums(schedule: Schedule, tensor: Tensor, lanes: int, vectors: int = _PARTIAL_VECTORS) -> Tensor | None:
    """So many ``vectors`` of partial results for a reduction along memory, fewer in a short row; None where one vector
    holds the whole row."""
    axes = tensor.reduce_axes
    extent = constant(axes[-1].extent)
    if extent is not None and extent <= lanes:
        return None
    wanted = vectors if extent is None or extent >= 2 * vectors * lanes else 1
    vectors = schedule.decide(f"{tensor.name}.partial_vectors", wanted, (1, 2, 4, 8))
    return schedule.rfactor(tensor, len(axes) - 1, vectors * lanes)


def _move_to(schedule: Schedule, tensor: Tensor, row: LoopRef | None) -> tuple[Sequence[LoopRef], Sequence[LoopRef]]:
    """Compute ``tensor`` inside of ``row`` (or leave it where it is, without one); its spatial and reduce loops."""
    if row is None:
        loops = schedule[tensor].loops
    else:
        loops = schedule.compute_at(tensor, row, _scope(schedule, tensor, row))
    return loops[: tensor.rank], loops[tensor.rank :]


def place_stage(schedule: Schedule, tensor: Tensor, row: LoopRef | None, lanes: int) -> Sequence[LoopRef]:
    """Compute ``tensor`` inside of ``row`` and vectorise its innermost loop; the loops outside of vectors."""
    spatial, reduced = _move_to(schedule, tensor, row)
    if reduced and _is_short(schedule, reduced[-1]):
        schedule.vectorize(reduced[-1])
    elif not reduced and spatial:
        return vectorize_innermost(schedule, spatial, lanes)
    return ()


def is_scan(tensor: Tensor) -> bool:
    """Whether neighbouring results, a block of them, are reduced from the same elements: prefix sums within a block,
    each of which leaves out others."""
    if not isinstance(tensor.body, Reduce) or len(tensor.reduce_axes) != 1 or not tensor.axes:
        return False
    last, size = tensor.axes[-1], constant(tensor.reduce_axes[0].extent)
    if size is None or not 1 < size <= _LONGEST_BLOCK or constant(last.extent) == 1:
        return False
    block, lane = Var("block"), Var("lane")
    ranges: dict[Var, Interval] = {block: (0, None), lane: (0, size - 1)}
    indices = [i for load in loads(tensor.body) for i in load.indices if depends_on(i, last)]
    apart = [simplify(substitute(i, {last: block * size + lane}), ranges) for i in indices]
    return bool(apart) and all(lane not in free_vars(i) for i in apart)


def _place_scan(schedule: Schedule, tensor: Tensor, sums: Tensor, row: LoopRef | None) -> None:
    """Compute ``tensor`` inside of ``row``, a block in a vector: it is added to in registers, once per element of the
    block, in the lanes that do not leave it out."""
    spatial, _ = _move_to(schedule, tensor, row)
    size = constant(tensor.reduce_axes[0].extent)
    assert size is not None
    blocks, lane = schedule.split(spatial[-1], size)
    schedule.vectorize(lane)
    *_, vector, element = schedule.compute_at(sums, blocks, Scope.REGISTER)
    schedule.reorder(element, vector)
    schedule.unroll(element)
    schedule.vectorize(vector)


def place_partial(schedule: Schedule, tensor: Tensor, row: LoopRef | None) -> None:
    """Compute vectors of partial results inside of ``row``: the reduction runs outside of the vectors."""
    spatial, reduced = _move_to(schedule, tensor, row)
    schedule.vectorize(spatial[-1])
    schedule.reorder(*spatial[:-1], *reduced, spatial[-1])


def _is_short(schedule: Schedule, loop: LoopRef) -> bool:
    extent = constant(schedule.extent(loop))
    return extent is not None and extent <= 128


def _scope(schedule: Schedule, tensor: Tensor, row: LoopRef) -> Scope:
    """Partial sums and single results live in registers; whole rows in memory."""
    size = schedule.region_elements(tensor, row)
    small = is_reduction(tensor) and size is not None and size <= _REGISTER_ELEMENTS
    return Scope.REGISTER if small else Scope.WORKSPACE


def _schedule_columns(schedule: Schedule, main: Tensor, own: list[Tensor], lanes: int, target: Target) -> None:
    """A vector of neighbouring results at a time; the reductions run outside of the vectors."""
    loops = schedule[main].loops
    keep = _row_axes(main, own)
    if not loops:
        return
    if not keep[-1]:
        _schedule_rows(schedule, main, own, lanes, target)
        return
    outer = list(loops[:-1])
    last = loops[-1]
    extent = constant(schedule.extent(last))
    if extent is None or extent > 2 * lanes:
        blocks, vector = schedule.split(last, lanes)
    else:
        blocks, vector = None, last
    rows = [x for x, k in zip(outer, keep[:-1], strict=True) if k]
    inner = [x for x, k in zip(outer, keep[:-1], strict=True) if not k]
    order = [*rows, *([blocks] if blocks else []), *inner, vector]
    schedule.reorder(*order)
    attach = blocks or (rows[-1] if rows else None)
    for tensor in reversed(own):
        _place_column(schedule, tensor, attach, lanes)
    schedule.vectorize(vector)
    outside = [*rows, *([blocks] if blocks else [])]
    if outside and any(map(_is_big_domain, (*own, main))):
        parallelize(schedule, outside, target)


def _place_column(schedule: Schedule, tensor: Tensor, attach: LoopRef | None, lanes: int) -> None:
    spatial, reduced = _move_to(schedule, tensor, attach)
    if not spatial:
        return
    vector = spatial[-1]
    if constant(schedule.extent(vector)) is None:
        _, vector = schedule.split(vector, lanes)
    schedule.vectorize(vector)
    if reduced:
        schedule.reorder(*spatial[:-1], *reduced, vector)
