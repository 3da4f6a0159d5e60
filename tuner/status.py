"""What can become of a trial."""

from __future__ import annotations

import enum


class Status(enum.StrEnum):
    """What became of a trial."""

    OK = "ok"
    WRONG = "wrong"  # its results differ from the reference's
    CRASH = "crash"  # the process that compiled or ran it died, or it failed in an unexpected way
    TIMEOUT = "timeout"  # it took longer to compile or to run than the limit
    REFUSED = "refused"  # it is no legal schedule
    OUT_OF_MEMORY = "out-of-memory"  # compiling or running it took more than the limit
