"""What a measurement was made with."""

from __future__ import annotations

import functools
import importlib.metadata

from polycomp.driver.versions import backend_version


@functools.cache
def _found() -> tuple[tuple[str, str], ...]:
    installed = [(name, importlib.metadata.version(name)) for name in ("polycomp", "islpy", "llvmlite")]
    return (*installed, ("sources", backend_version()[:12]))


def tool_versions() -> dict[str, str]:
    """Versions by name; that of ``sources`` is a digest of those of polycomp that make code."""
    return dict(_found())
