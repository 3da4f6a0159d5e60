"""How fast a model's kernels are beside what the machine can do.

The roofline model is that of Williams, Waterman and Patterson, "Roofline: an insightful visual performance model for
multicore architectures", CACM 52(4), 2009.
"""
