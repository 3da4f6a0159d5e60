"""polycomp as a peer."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

from measure import Array, Peer

import polycomp as pc


def module_peer(module: pc.Module, feeds: Mapping[str, Array]) -> Peer:
    """A compiled or loaded module."""
    wanted = dict(feeds)
    return Peer(lambda: module.run(wanted), lambda: module.run(wanted))


def open_peer(module: pathlib.Path, feeds: Mapping[str, Array], threads: int) -> Peer:
    """The module in a file."""
    return module_peer(pc.load(module, threads=threads), feeds)
