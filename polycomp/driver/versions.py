"""What decides whether something made earlier is still what this compiler would make."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import pathlib

from polycomp.driver.cache import key_of

_BACK = ("dtypes", "expr", "te", "poly", "loops", "schedules", "codegen", "driver.kernel")
_LIBRARIES = ("islpy", "llvmlite")


@functools.cache
def backend_version() -> str:
    """Differs whenever what turns tensor expressions into code differs."""
    libraries = [f"{name} {importlib.metadata.version(name)}" for name in _LIBRARIES]
    return key_of(*libraries, *(_content(f"polycomp.{room}") for room in _BACK))


@functools.cache
def compiler_version() -> str:
    """Differs whenever any part of the compiler differs."""
    return key_of(backend_version(), _content("polycomp"))


def _content(module: str) -> str:
    """A digest of a module's source, or of all the sources of a package."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ImportError(f"{module} has no source")
    if spec.submodule_search_locations is None:
        return key_of(pathlib.Path(spec.origin).read_bytes())
    folder = pathlib.Path(spec.origin).parent
    parts = [part for p in sorted(folder.rglob("*.py")) for part in (str(p.relative_to(folder)), p.read_bytes())]
    return key_of(*parts)
