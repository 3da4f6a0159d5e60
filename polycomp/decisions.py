"""The decisions of a kernel's schedule: what was chosen, what could have been chosen, and what is to be chosen instead.

They are the search space of a kernel: a schedule that is built tells its decisions in the order in which they were
made, each with its alternatives, and can be built again with some of them made otherwise. (The idea is that of the
sampling instructions in the traces of Shao et al., "Tensor program optimization with probabilistic programs", 2022.)
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeVar

from polycomp.errors import ScheduleError

Value = int | str | bool | tuple[int, ...]
Choice = TypeVar("Choice", bound=Value)


@dataclasses.dataclass(frozen=True)
class Decision:
    """A choice that was made: ``value``, which is one of ``alternatives``. ``name`` is unique within its schedule."""

    name: str
    value: Value
    alternatives: tuple[Value, ...]


class Chooser(Protocol):
    """Who makes the decisions of a schedule while it is built."""

    def choose(self, name: str, own: Value, alternatives: Sequence[Value]) -> Value:
        """One of the ``alternatives``; ``own`` is the library's choice."""

    def check_known(self, made: Iterable[Decision]) -> None:
        """Told, in the end, all that were made."""


@dataclasses.dataclass(frozen=True)
class Decisions:
    """Choices by name, in order of the names, that replace those of the schedule library; the others stay its own."""

    values: tuple[tuple[str, Value], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.values)

    def get(self, name: str) -> Value | None:
        """The choice of that name, or None when it is left to the library."""
        return dict(self.values).get(name)

    def replace(self, name: str, value: Value) -> Decisions:
        """These, with one choice made or changed."""
        return Decisions(tuple(sorted({**dict(self.values), name: value}.items())))

    def choose(self, name: str, own: Value, alternatives: Sequence[Value]) -> Value:
        """The choice of that name, else ``own``. Raises :class:`ScheduleError` when it is not an alternative."""
        wanted = self.get(name)
        if wanted is None:
            return own
        chosen = next((a for a in alternatives if a == wanted), None)
        if chosen is None:
            listed = ", ".join(map(repr, alternatives))
            raise ScheduleError(f"{name!r} cannot be {wanted!r}; the alternatives are {listed}")
        return chosen

    def check_known(self, made: Iterable[Decision]) -> None:
        """Raise :class:`ScheduleError` when a choice is none of the decisions that were ``made``."""
        names = [decision.name for decision in made]
        unknown = [name for name, _ in self.values if name not in names]
        if unknown:
            known = ", ".join(map(repr, names)) or "none"
            raise ScheduleError(f"this schedule has no decision {unknown[0]!r}; its decisions are: {known}")

    @property
    def key(self) -> str:
        """A text that is equal for equal decisions."""
        return self.to_json()

    def to_json(self) -> str:
        """The choices as JSON text: an object by name."""
        return json.dumps(dict(self.values))

    @classmethod
    def from_json(cls, text: str) -> Decisions:
        """Read :meth:`to_json`'s text back. Raises :class:`ScheduleError` when it is not well formed."""
        try:
            return cls.from_dict(json.loads(text))
        except ValueError as error:
            raise _malformed(error) from error

    @classmethod
    def from_dict(cls, raw: Any) -> Decisions:
        """The choices by name, as JSON has them. Raises :class:`ScheduleError` when they are not well formed."""
        try:
            return cls(tuple(sorted((str(name), _value(value)) for name, value in raw.items())))
        except (AttributeError, TypeError) as error:
            raise _malformed(error) from error


def _malformed(error: Exception) -> ScheduleError:
    return ScheduleError(f"these are no decisions as Decisions.to_json writes them: {error}")


def _value(raw: object) -> Value:
    if isinstance(raw, list) and all(type(x) is int for x in raw):
        return tuple(raw)
    if isinstance(raw, int | str):
        return raw
    raise TypeError(f"{raw!r} is no choice")
