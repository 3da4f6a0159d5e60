"""Choosing a schedule for a GPU: the kind of each part of a kernel is read off its tensors."""

from __future__ import annotations

from collections.abc import Sequence

from polycomp.expr import loads
from polycomp.schedules.library.analysis import as_contraction, is_expensive, is_reduction
from polycomp.schedules.library.gpu.attention import schedule_attention
from polycomp.schedules.library.gpu.columns import as_columns, schedule_columns
from polycomp.schedules.library.gpu.contraction import schedule_product
from polycomp.schedules.library.gpu.elements import schedule_elements
from polycomp.schedules.library.gpu.groups import Group, group_of
from polycomp.schedules.library.gpu.products import Product
from polycomp.schedules.library.gpu.recurrences import schedule_recurrence
from polycomp.schedules.library.gpu.rows import are_long, as_rows, schedule_long_rows, schedule_rows
from polycomp.schedules.library.gpu.scores import Attention
from polycomp.schedules.library.reduction import exclusive_producers, main_stages
from polycomp.schedules.schedule import Schedule
from polycomp.target import Target
from polycomp.te import Tensor


def schedule_on_gpu(
    schedule: Schedule, stages: Sequence[Tensor], products: Sequence[Product | Attention], target: Target
) -> None:
    """Schedule all ``stages`` (producers first): products of matrices, and each other stage that is stored, with what
    is computed for it alone."""
    needed = list(schedule.kernel.outputs)  # by others than the stages that are left
    for product in products:
        if isinstance(product, Attention):
            done = schedule_attention(schedule, stages, product, target)
        else:
            done = schedule_product(schedule, stages, product, target)
        stages = [t for t in stages if t not in done]
        needed += [source for operand in product.operands for source in _sources(schedule, operand)]
    mains = main_stages(stages, needed)
    for main in mains:
        own = exclusive_producers(main, stages, mains)
        if any(t.is_recurrence for t in (*own, main)):
            for stage in (*own, main):
                _schedule_alone(schedule, stage, target)
        else:
            _schedule_group(schedule, group_of(main, own), target)


def _schedule_group(schedule: Schedule, group: Group, target: Target) -> None:
    if as_rows(group) and not are_long(group, target):
        schedule_rows(schedule, group, target)
    elif as_rows(group) and len(group.reductions) == 1 and not group.along[group.main]:
        schedule_long_rows(schedule, group, target)
    elif as_columns(group) and not as_rows(group):
        schedule_columns(schedule, group, target)
    else:
        for stage in group.stages:
            if _is_cheap(stage, group):
                schedule.compute_inline(stage)
            else:
                _schedule_alone(schedule, stage, target)


def _is_cheap(stage: Tensor, group: Group) -> bool:
    """Whether every launch that reads ``stage`` may make it again."""
    elementwise = stage is not group.main and not is_reduction(stage) and not is_expensive(stage)
    return elementwise and not any(as_contraction(t) is not None for t in group.readers(stage))


def _schedule_alone(schedule: Schedule, stage: Tensor, target: Target) -> None:
    """Schedule a stage in loops of its own."""
    if stage.is_recurrence:
        schedule_recurrence(schedule, stage)
    elif is_reduction(stage):
        _schedule_group(schedule, group_of(stage, ()), target)
    else:
        schedule_elements(schedule, stage, target)


def _sources(schedule: Schedule, operand: Tensor) -> list[Tensor]:
    """What a product's operand is made of, whatever was computed in its place."""
    names = (operand.name, f"{operand.name}.acc")
    found = (s for s in schedule.kernel.statements.values() if s.tensor.name in names)
    return [load.source for statement in found for load in loads(statement.value)]
