"""A vectorised loop that is split, and the inner part vectorised too."""

from __future__ import annotations

from mistakes import doubled, refuses

from polycomp.errors import NestingError


def test_vectorize_twice() -> None:
    s = doubled(16)
    s.vectorize("i")
    _, inner = s.split("i", 4)
    message = (
        "vectorize('ii') would leave the vectorised loop 'ii' inside of the vectorised loop 'io'; call serial('io') or "
        "unroll('io') first"
    )
    with refuses(s, NestingError, message):
        s.vectorize(inner)
