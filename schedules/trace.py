"""The record of applied primitives: printable as Python, readable back, applicable to the same computation again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

from polycomp.errors import ScheduleError, TraceError


@dataclasses.dataclass(frozen=True)
class Step:
    """One applied primitive. Loops and tensors among its operands are given by name."""

    primitive: str
    operands: tuple[Any, ...] = ()
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        parts = [repr(o) for o in self.operands] + [f"{k}={v!r}" for k, v in self.options.items()]
        return f"{self.primitive}({', '.join(parts)})"

    def apply(self, schedule: Any) -> Any:
        """Apply the primitive to a ``Schedule``."""
        return schedule._method(self.primitive)(*self.operands, **self.options)


@dataclasses.dataclass(frozen=True)
class Trace:
    """The primitives that were applied to a schedule, in order. Loops are named alike in equal computations."""

    steps: tuple[Step, ...] = ()

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, index: int) -> Step:
        return self.steps[index]

    def __str__(self) -> str:
        return "\n".join(map(str, self.steps))

    def as_python(self, name: str = "s") -> str:
        """One statement per primitive, on a schedule called ``name``."""
        return "".join(f"{name}.{step}\n" for step in self.steps)

    def to_json(self) -> str:
        """The trace as JSON text: a list of ``[primitive, operands, options]``."""
        return json.dumps([[s.primitive, list(s.operands), dict(s.options)] for s in self.steps])

    @classmethod
    def from_json(cls, text: str) -> Trace:
        """Read :meth:`to_json`'s text back. Raises :class:`TraceError` when it is not well formed."""
        try:
            steps = tuple(_step(entry) for entry in json.loads(text))
        except (TypeError, ValueError) as error:
            raise TraceError(f"this is no trace as Trace.to_json writes it: {error}") from error
        return cls(steps)

    def apply(self, schedule: Any) -> None:
        """Apply all steps. Raises :class:`TraceError` naming the first that does not fit."""
        for number, step in enumerate(self.steps, 1):
            try:
                step.apply(schedule)
            except ScheduleError as error:
                raise TraceError(f"step {number} of the trace, {step}, does not fit this schedule: {error}") from error


def _step(entry: Any) -> Step:
    kinds = tuple(map(type, entry)) if isinstance(entry, list) else ()
    if kinds != (str, list, dict):
        raise TypeError(f"{entry!r} is not [primitive, operands, options]")
    primitive, operands, options = entry
    return Step(primitive, tuple(_tuples(o) for o in operands), options)


def _tuples(operand: Any) -> Any:
    """JSON has no tuples: those of ``tile`` come back as lists."""
    return tuple(map(_tuples, operand)) if isinstance(operand, list) else operand
