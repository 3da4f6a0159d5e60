"""One measurement as a line of JSON."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

from polycomp.decisions import Decisions
from polycomp.errors import PolycompError, ScheduleError

SCHEMA = 1

_FRONT = re.compile(
    rb'\{"schema":%d,"workload":"[^"\\]*","symbol":"([^"\\]*)","target":"([^"\\]*)","decisions":(\{[^}]*\}),'
    rb'"status":"([^"\\]*)","seconds":([^,]*),(?:"library":([^,]*),)?(?:"in_model":([a-z]*),)?.*\}' % SCHEMA
)


class RecordError(PolycompError):
    """A line of a tuning log that is damaged, or of a later schema."""


@dataclasses.dataclass(frozen=True)
class Record:
    """``workload`` is the digest of a kernel's canonical text, ``symbol`` its name in modules, ``target`` the key of
    the :class:`~polycomp.target.Target`, ``decisions`` a complete set of them.

    ``status`` is a :class:`~polycomp.tuner.status.Status`; ``seconds`` is a run's time and ``samples`` those of single
    runs, both empty unless it is ``ok``; ``library`` is the time of the library's own schedule, as it was then and
    there: records of a kernel are compared by the ratios (:func:`in_unit`). What was measured ``in_model``, beside the
    library's own there, counts more than what was measured alone. ``versions`` are those of what compiled it.

    What follows is for reports, and not in logs of before: the seconds that the cost model ``predicted``, whether it is
    the library's ``own`` schedule, how often the model that is tuned ``calls`` the kernel without tuning (0: only on
    another way), and ``when`` the outcome was known, in seconds since 1970.

    A record of a ``way`` is of no kernel: its ``symbol`` is a problem that passes decide about, ``decisions`` what they
    may decide, ``seconds`` the time of the kernels by which one such problem is then computed, at their best.
    """

    workload: str
    symbol: str
    target: str
    decisions: Decisions
    status: str
    seconds: float | None
    library: float | None = dataclasses.field(default=None, kw_only=True)
    in_model: bool = dataclasses.field(default=False, kw_only=True)
    samples: tuple[float, ...]
    error: str
    versions: dict[str, str]
    predicted: float | None = None
    own: bool = False
    calls: int | None = None
    when: float | None = None
    way: bool = False

    def to_line(self) -> bytes:
        """The record as a line, with its end."""
        fields = {"schema": SCHEMA, **{f.name: getattr(self, f.name) for f in dataclasses.fields(self)}}
        fields["decisions"] = dict(self.decisions.values)
        return _compact(fields) + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Record:
        """Raises :class:`RecordError` for what is no such line."""
        try:
            fields: dict[str, Any] = json.loads(line)
            schema = fields.pop("schema")
            if schema != SCHEMA:
                raise RecordError(f"it is of schema {schema}; this polycomp reads schema {SCHEMA}")
            decisions = Decisions.from_dict(fields["decisions"])
            samples = tuple(map(float, fields["samples"]))
            known = {f.name: fields[f.name] for f in dataclasses.fields(cls) if f.name in fields}
            return cls(**{**known, "decisions": decisions, "samples": samples})
        except (AttributeError, KeyError, TypeError, ValueError, ScheduleError) as error:
            raise RecordError(f"it is no record of a measurement: {type(error).__name__}: {error}") from error


@dataclasses.dataclass(frozen=True)
class Glance:
    """The parts of a record by which the best are found, with the ``decisions`` as JSON text."""

    symbol: str
    target: str
    decisions: bytes
    status: str
    seconds: float | None
    library: float | None
    in_model: bool

    @classmethod
    def of(cls, record: Record) -> Glance:
        """What a record has of them."""
        measured = record.status, record.seconds, record.library, record.in_model
        return cls(record.symbol, record.target, text_of(record.decisions), *measured)

    @classmethod
    def from_line(cls, line: bytes) -> Glance:
        """Read off a line's front, ten times as fast as parsing all of it; what is written in another way is parsed.

        Raises :class:`RecordError` for what is no record.
        """
        found = _FRONT.fullmatch(line)
        if found is None:
            return cls.of(Record.from_line(line))
        symbol, target, decisions, status, seconds, library, in_model = found.groups()
        measured = status.decode(), _time(seconds), _time(library), in_model == b"true"
        return cls(symbol.decode(), target.decode(), decisions, *measured)


def in_unit(seconds: float, library: float | None, unit: float | None) -> float:
    """The seconds that were measured where the library's own schedule took ``library``, had it taken ``unit``: those of
    other minutes and other machines are told alike. As they are where one of the two is not known."""
    return seconds if library is None or unit is None else seconds * unit / library


def _time(text: bytes | None) -> float | None:
    return None if text is None or text == b"null" else float(text)


def text_of(decisions: Decisions) -> bytes:
    """As they are written in a line."""
    return _compact(dict(decisions.values))


def _compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
