"""Decisions of passes: where a part of a graph could be computed in several ways, none of which is always the fastest.

The pass has a choice of its own, from a formula; a tuning log may know better, since ``polycomp tune`` measures the
kernels of every way. The decisions are listed in ``Graph.sites``.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence

from polycomp.decisions import Choice, Decision
from polycomp.errors import ScheduleError
from polycomp.graph import Graph, Node, Site
from polycomp.options import Options


class Sites:
    """The decisions of one pass. ``problem`` names what is to be computed, in the same words for the same problem."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.made: list[Site] = []

    def decide(self, problem: str, name: str, own: Choice, alternatives: Sequence[Choice], at: Node) -> Choice:
        """One of the ``alternatives``, ``own`` unless the options say otherwise; ``at`` is the node it is about.

        Raises :class:`ScheduleError` when what the options say is no alternative, and warns when that is only advice.
        """
        if len(alternatives) < 2:
            return own
        chosen = self._chosen(problem, name, own, alternatives)
        self.made.append(Site(problem, Decision(name, chosen, tuple(alternatives)), at.sources or (at.name,)))
        return chosen

    def _chosen(self, problem: str, name: str, own: Choice, alternatives: Sequence[Choice]) -> Choice:
        try:
            chosen = self.options.decisions_for(problem).choose(name, own, alternatives)
            return next(a for a in alternatives if a == chosen)
        except ScheduleError as error:
            if not self.options.is_advised(problem):
                raise
            warnings.warn(f"the tuning log's advice for {problem} does not fit: {error}", stacklevel=2)
            return own

    def note(self, graph: Graph) -> Graph:
        """``graph`` with these decisions beside those of earlier passes."""
        return dataclasses.replace(graph, sites=(*graph.sites, *self.made))
