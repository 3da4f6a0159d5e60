"""The other side of :mod:`polycomp.tuner.process`: what runs in a process that may be killed.

Imports nothing of the compiler, so that a process that only runs code starts at once.
"""

from __future__ import annotations

import dataclasses
import os
import resource
from collections.abc import Callable
from typing import Any

from polycomp.driver.messages import serve
from polycomp.errors import BuildError, OutOfMemoryError, ScheduleError
from polycomp.tuner.status import Status


class ProcessFailure(Exception):  # noqa: N818  (an outcome of a request, not an error of this program)
    """A request that was not answered, and why. Also what a process answers when it could not do what was asked."""

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(status, reason)
        self.status, self.reason = status, reason


@dataclasses.dataclass(frozen=True)
class Settings:
    """``memory_bytes`` of address space that the process may have; the ``cores`` that it runs on (none: any)."""

    memory_bytes: int
    cores: tuple[int, ...] = ()


def serve_requests(answer: Callable[[Any], Any], warm_up: Callable[[], None] | None = None) -> None:
    """What such a process does: obey the :class:`Settings` that come first, ``warm_up``, then answer requests."""

    def answer_or_explain(request: Any) -> Any:
        try:
            return answer(request)
        except ProcessFailure as failure:
            return failure
        except (MemoryError, OutOfMemoryError):
            return ProcessFailure(Status.OUT_OF_MEMORY, "it took more memory than the limit")
        except (BuildError, ScheduleError) as error:
            return ProcessFailure(Status.REFUSED, str(error))
        except Exception as error:  # noqa: BLE001  (whatever it is, it is this candidate's outcome)
            return ProcessFailure(Status.CRASH, f"{type(error).__name__}: {error}")

    def begin(settings: Settings) -> None:
        _obey(settings)
        if warm_up is not None:
            warm_up()

    serve(answer_or_explain, begin)


def _obey(settings: Settings) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (settings.memory_bytes, settings.memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if settings.cores:
        os.sched_setaffinity(0, settings.cores)
