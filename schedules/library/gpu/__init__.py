"""Schedules of kernels for GPUs: all of their loops in thread blocks and threads."""
