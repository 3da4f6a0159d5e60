"""Pictures as SVG text, to be put into a page as they are."""

from __future__ import annotations

import html
from collections.abc import Sequence

COLOURS = ("#4e79a7", "#f28e2b", "#e15759", "#76b7b2", "#59a14f", "#edc948", "#b07aa1", "#ff9da7", "#9c755f")
"""Of things that are told apart, legible on white and on black."""

_LEAST_WIDTH = 640  # of wide pictures on small screens, where they are moved sideways instead of being made smaller


def element(name: str, content: str = "", **attributes: object) -> str:
    """``<name ...>content</name>``. ``content`` is SVG; an underscore in an attribute stands for a hyphen."""
    text = "".join(f' {k.rstrip("_").replace("_", "-")}="{html.escape(_text(v))}"' for k, v in attributes.items())
    return f"<{name}{text}>{content}</{name}>" if content else f"<{name}{text}/>"


def title(text: str) -> str:
    """What is shown where the pointer rests on the element around it."""
    return element("title", html.escape(text))


def line(x1: float, y1: float, x2: float, y2: float, width: float = 1, faint: bool = False) -> str:
    """A line in the colour of the page's text."""
    opacity = 0.15 if faint else 0.9
    return element(
        "line", x1=x1, y1=y1, x2=x2, y2=y2, stroke="currentColor", stroke_width=width, stroke_opacity=opacity
    )


def label(x: float, y: float, text: str, anchor: str = "start", **attributes: object) -> str:
    """Text whose ``anchor`` (start, middle or end) is at the point."""
    return element("text", html.escape(text), x=x, y=y, text_anchor=anchor, **attributes)


def picture(width: int, height: int, name: str, parts: Sequence[str]) -> str:
    """An SVG picture; ``name`` says what it shows to those who cannot see it."""
    box = f"0 0 {width} {height}"
    style = f"width:100%;max-width:{width}px;min-width:{min(width, _LEAST_WIDTH)}px"
    return element("svg", "\n".join(parts), viewBox=box, style=style, role="img", aria_label=name)


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
