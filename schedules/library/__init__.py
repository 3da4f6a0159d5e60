"""The library of schedules: for every kind of kernel and target, a good schedule without any search."""

from polycomp.schedules.library.choose import schedule_kernel

__all__ = ["schedule_kernel"]
