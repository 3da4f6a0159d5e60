"""What a measurement was made with."""

from __future__ import annotations

import functools
import importlib.metadata

from polycomp import __version__
from polycomp.driver.versions import backend_version


@functools.cache
def _found() -> tuple[tuple[str, str], ...]:
    libraries = [(name, importlib.metadata.version(name)) for name in ("islpy", "llvmlite")]
    return (("polycomp", f"{__version__}+{backend_version()[:12]}"), *libraries)


def tool_versions() -> dict[str, str]:
    """Versions by name; that of polycomp has a digest of its sources behind a plus sign."""
    return dict(_found())
