"""What decides whether something made earlier is still what this compiler would make."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import pathlib

from polycomp.driver.cache import key_of

_BACK = ("dtypes", "expr", "te", "poly", "loops", "schedules", "codegen", "driver.kernel", "driver.device")
_LIBRARIES = ("islpy", "llvmlite", "nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12")


@functools.cache
def backend_version() -> str:
    """Differs whenever what turns tensor expressions into code differs."""
    return key_of(*map(_installed, _LIBRARIES), *(_content(f"polycomp.{room}") for room in _BACK))


def _installed(library: str) -> str:
    try:
        return f"{library} {importlib.metadata.version(library)}"
    except importlib.metadata.PackageNotFoundError:  # one that only some targets need
        return library


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
