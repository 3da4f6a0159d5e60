"""Which values share the memory of others: reshapes, pieces that are read in place, and parts of a joined whole."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from polycomp.driver.work import known
from polycomp.te import Dim


@dataclasses.dataclass(frozen=True)
class Place:
    """At byte ``offset`` of the value ``base``; ``whole`` when it is all of it, under another shape."""

    base: str
    offset: Dim = 0
    whole: bool = True


@dataclasses.dataclass(frozen=True)
class Places:
    """``at`` has the place of every value without memory of its own; ``joined`` the parts, in order, of those values
    that no kernel writes itself, because their parts are written in their places."""

    at: Mapping[str, Place]
    joined: Mapping[str, tuple[str, ...]]

    def find(self, name: str) -> tuple[str, Dim]:
        """The value in whose memory ``name`` lies, and the byte where it begins there."""
        offset: Dim = 0
        while name in self.at:
            place = self.at[name]
            name, offset = place.base, known(offset + place.offset)
        return name, offset

    def whole(self, name: str) -> str | None:
        """The value that ``name`` is another shape of; None when it is only a piece of one."""
        while name in self.at:
            place = self.at[name]
            if not place.whole:
                return None
            name = place.base
        return name

    def written(self, name: str) -> Iterator[str]:
        """The values that kernels write for ``name`` to be complete (itself, when it is one or is given)."""
        while name not in self.joined and name in self.at and not self._is_part(name):
            name = self.at[name].base
        parts = self.joined.get(name)
        if parts is None:
            yield name
        else:
            for part in parts:
                yield from self.written(part)

    def _is_part(self, name: str) -> bool:
        return name in self.joined.get(self.at[name].base, ())
