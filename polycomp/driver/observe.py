"""Who wants to know how a compilation goes: progress displays, ``--print-after``, timings."""

from __future__ import annotations


class Observer:
    """Told about each step of a compilation; this one ignores everything. Calls come from one thread at a time."""

    wants_graphs = False
    """Whether :meth:`graph` is of interest: then every pass runs, even where the module is known already."""

    def stage(self, name: str) -> None:
        """The named stage begins."""

    def graph(self, name: str, text: str) -> None:
        """``text`` is the graph that the pass ``name`` made ("import" comes first); only when it is wanted."""

    def kernels(self, done: int, total: int) -> None:
        """``done`` of ``total`` kernels are compiled."""
