"""Figures and names as people read them, in commands and reports."""

from __future__ import annotations

from collections.abc import Sequence

_DIGITS = 6  # of a kernel's digest


def bytes_text(size: float) -> str:
    """A size for people: ``4.7 MB``."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} GB"


def seconds_text(seconds: float) -> str:
    """A time for people, to three digits: ``1.23 ms``."""
    unit, scale = ("s", 1.0) if seconds >= 1 else ("ms", 1e3) if seconds >= 1e-3 else ("µs", 1e6)
    return f"{seconds * scale:.3g} {unit}"


def kernel_text(symbol: str) -> str:
    """A kernel's name with the beginning of its digest, which is enough to tell it from others."""
    stem, _, digest = symbol.rpartition("_")
    return f"{stem}_{digest[:_DIGITS]}" if stem else symbol


def shape_text(shape: Sequence[object]) -> str:
    """``1x3x224x224``, or ``scalar``."""
    return "x".join(map(str, shape)) or "scalar"


def count_text(count: int, noun: str) -> str:
    """``1 kernel``, ``2 kernels``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
