"""How much another batch of trials is expected to be worth to a layer."""

from __future__ import annotations

import dataclasses

_OPTIMISM = 0.4
_DISAPPOINTMENT = 1.5
"""A layer is hoped to lose the part ``_OPTIMISM`` of its time with its first batch, and with the n-th that much by this
power of n: by a mere n, the layer that takes the most time had four of ten trials for its last two percent."""


@dataclasses.dataclass
class Standing:
    """A layer in the course of tuning: it is run ``calls`` times per inference, ``best`` seconds each (None: not yet
    known), after ``batches`` of trials, of which the last took the part ``gain`` off its time. Where it is on a slower
    way of several (``ways``), that one is ``behind`` by so many seconds per inference."""

    calls: int
    best: float | None = None
    batches: int = 0
    gain: float = 0.0
    exhausted: bool = False
    behind: float = 0.0

    def update(self, best: float | None) -> None:
        """After another batch."""
        if self.best is not None and best is not None:
            self.gain = max(0.0, 1 - best / self.best)
        self.batches += 1
        self.best = best if best is not None else self.best


def expected_gain(layer: Standing) -> float:
    """Seconds per inference that another batch may take off: the product of the layer's time and its gain, less by how
    much its way is behind.

    The latter is what the last batch gained, or what one hopes for, which shrinks with the batches (the gradient of the
    task scheduler of Zheng et al., "Ansor", OSDI 2020, simplified).
    """
    if layer.best is None:
        return 0.0
    hope: float = max(layer.gain, _OPTIMISM / (1 + layer.batches) ** _DISAPPOINTMENT)
    return max(0.0, layer.calls * layer.best * hope - layer.behind)
