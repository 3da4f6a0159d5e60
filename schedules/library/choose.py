"""Choosing a schedule: the kind of a kernel is read off its tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from polycomp.decisions import Chooser, Decisions
from polycomp.expr import Interval, Var
from polycomp.poly.kernel import Kernel
from polycomp.schedules.library.analysis import as_contraction, computed, is_reduction
from polycomp.schedules.library.attention import as_attention, schedule_attention
from polycomp.schedules.library.collapse import collapse
from polycomp.schedules.library.contraction import schedule_contraction
from polycomp.schedules.library.elementwise import schedule_elementwise
from polycomp.schedules.library.gpu.choose import schedule_on_gpu
from polycomp.schedules.library.gpu.prepare import prepare
from polycomp.schedules.library.gpu.products import Product
from polycomp.schedules.library.gpu.scores import Attention
from polycomp.schedules.library.prepare import inline_cheap
from polycomp.schedules.library.reduction import schedule_reductions
from polycomp.schedules.library.transformed import as_transformed, schedule_transformed
from polycomp.schedules.library.widening import widen_operands
from polycomp.schedules.schedule import Schedule
from polycomp.target import Target
from polycomp.te import Tensor

_LIBRARY = Decisions()  # none is made otherwise


def schedule_kernel(
    name: str,
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    ranges: Mapping[Var, Interval],
    target: Target,
    decisions: Decisions = _LIBRARY,
) -> Kernel:
    """The kernel that computes ``outputs`` from ``inputs`` (placeholders), scheduled for ``target``.

    Adjacent dimensions may come out merged: memory is the same, shapes are not. ``ranges`` bound the sizes.
    ``decisions`` are made otherwise than the library would; raises :class:`ScheduleError` when they do not fit.
    """
    return build_schedule(name, inputs, outputs, ranges, target, decisions).kernel


def build_schedule(
    name: str,
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    ranges: Mapping[Var, Interval],
    target: Target,
    decisions: Chooser = _LIBRARY,
) -> Schedule:
    """Like :func:`schedule_kernel`, but returns the schedule with its trace and its decisions."""
    products: tuple[Product | Attention, ...] = ()
    if target.is_gpu:
        merged_outputs, merged_inputs, products = prepare(outputs, inputs, target)
    else:
        merged_outputs, merged_inputs = collapse(widen_operands(inline_cheap(outputs)), inputs)
    schedule = Schedule(merged_outputs, merged_inputs, ranges, name, check=False, decisions=decisions)
    if target.is_gpu:
        schedule_on_gpu(schedule, computed(merged_outputs), products, target)
    else:
        _schedule_on_cpu(schedule, computed(merged_outputs), target)
    schedule.decisions.check_known(schedule.decided)
    return schedule


def _schedule_on_cpu(schedule: Schedule, stages: Sequence[Tensor], target: Target) -> None:
    contractions = [t for t in stages if as_contraction(t) is not None]
    transformed, attention = as_transformed(stages), as_attention(stages, schedule.kernel.outputs)
    if transformed is not None:
        schedule_transformed(schedule, transformed, target)
    elif attention is not None:
        schedule_attention(schedule, stages, attention, target)
    elif contractions:
        schedule_contraction(schedule, stages, contractions[-1], target)
    elif any(is_reduction(t) for t in stages):
        schedule_reductions(schedule, stages, target)
    else:
        for tensor in stages:
            schedule_elementwise(schedule, tensor, target)
