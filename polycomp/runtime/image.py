"""A module before it is written or loaded: manifest, code and weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from polycomp.errors import ModuleFileError
from polycomp.runtime.manifest import Manifest
from polycomp.runtime.memory import Bytes, allocate


@dataclasses.dataclass(frozen=True)
class ModuleParts:
    """What the compiler hands over. ``weights`` are C-contiguous arrays with their byte offsets, ascending.

    Gaps between them, and up to ``manifest.weight_bytes``, are zero.
    """

    manifest: Manifest
    shared_object: bytes
    weights: Iterable[tuple[int, np.ndarray[Any, Any]]]

    def weight_runs(self) -> Iterator[tuple[int, Bytes]]:
        """``(gap, bytes)`` of each array: how many zeros precede it, and its content.

        Raises :class:`ModuleFileError` when arrays overlap or do not fit.
        """
        end = 0
        for offset, array in self.weights:
            content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            if offset < end or offset + content.nbytes > self.manifest.weight_bytes:
                total = self.manifest.weight_bytes
                raise ModuleFileError(f"a weight of {content.nbytes} bytes does not fit at {offset} of {total} bytes")
            yield offset - end, content
            end = offset + content.nbytes
        yield self.manifest.weight_bytes - end, np.empty(0, np.uint8)


@dataclasses.dataclass(frozen=True)
class ModuleImage:
    """A module in memory or in a mapped file. ``weights`` is 64-byte aligned and not written to.

    ``label`` names it in errors.
    """

    manifest: Manifest
    shared_object: memoryview
    weights: Bytes
    label: str

    @property
    def parts(self) -> ModuleParts:
        return ModuleParts(self.manifest, bytes(self.shared_object), [(0, self.weights)])


def assemble(parts: ModuleParts) -> ModuleImage:
    """Copy the weights to where a module can be run from."""
    weights = allocate(parts.manifest.weight_bytes)
    end = 0
    for gap, content in parts.weight_runs():
        weights[end : end + gap] = 0
        end += gap
        weights[end : end + content.nbytes] = content
        end += content.nbytes
    return ModuleImage(parts.manifest, memoryview(parts.shared_object), weights, f"module {parts.manifest.name!r}")
