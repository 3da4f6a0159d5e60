"""The autotuner: searching the legal schedules of a model's kernels by measuring them, and remembering the best."""
