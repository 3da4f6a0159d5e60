"""How much another batch of trials is expected to be worth to a layer."""

from __future__ import annotations

import dataclasses

_OPTIMISM = 0.3
"""The part of its time that a layer is hoped to lose with its first batch; with the n-th, an n-th of that."""


@dataclasses.dataclass
class Standing:
    """A layer in the course of tuning: it is run ``calls`` times per inference, ``best`` seconds each (None: not yet
    known), after ``batches`` of trials, of which the last took the part ``gain`` off its time."""

    calls: int
    best: float | None = None
    batches: int = 0
    gain: float = 0.0
    exhausted: bool = False

    def update(self, best: float | None) -> None:
        """After another batch."""
        if self.best is not None and best is not None:
            self.gain = max(0.0, 1 - best / self.best)
        self.batches += 1
        self.best = best if best is not None else self.best


def expected_gain(layer: Standing) -> float:
    """Seconds per inference that another batch may take off: the product of the layer's time and its gain.

    The latter is what the last batch gained, or what one hopes for, which shrinks with the batches (the gradient of the
    task scheduler of Zheng et al., "Ansor", OSDI 2020, simplified).
    """
    if layer.best is None:
        return 0.0
    return layer.calls * layer.best * max(layer.gain, _OPTIMISM / (1 + layer.batches))
