"""Pictures as SVG text, to be put into a page as they are."""

from __future__ import annotations

import html
from collections.abc import Sequence


def element(name: str, content: str = "", **attributes: object) -> str:
    """``<name ...>content</name>``. ``content`` is SVG; an underscore in an attribute stands for a hyphen."""
    text = "".join(f' {k.rstrip("_").replace("_", "-")}="{html.escape(_text(v))}"' for k, v in attributes.items())
    return f"<{name}{text}>{content}</{name}>" if content else f"<{name}{text}/>"


def title(text: str) -> str:
    """What is shown where the pointer rests on the element around it."""
    return element("title", html.escape(text))


def label(x: float, y: float, text: str, anchor: str = "start", **attributes: object) -> str:
    """Text whose ``anchor`` (start, middle or end) is at the point."""
    return element("text", html.escape(text), x=x, y=y, text_anchor=anchor, **attributes)


def picture(width: int, height: int, name: str, parts: Sequence[str]) -> str:
    """An SVG picture; ``name`` says what it shows to those who cannot see it."""
    box = f"0 0 {width} {height}"
    return element("svg", "\n".join(parts), viewBox=box, width=width, height=height, role="img", aria_label=name)


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
