"""Tuples, lists, dicts and named tuples of leaves, taken apart and put together again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Leaf:
    """The place of one leaf."""


@dataclasses.dataclass(frozen=True)
class Branch:
    """A container: how to build it from its parts, and what identifies it (type, keys)."""

    identity: Hashable
    children: tuple[Structure, ...]
    build: Callable[[list[Any]], Any] = dataclasses.field(compare=False)


Structure = Leaf | Branch

LEAF = Leaf()


def flatten(value: Any, leaves: list[Any]) -> Structure:
    """Append the leaves of ``value`` in order, dicts by insertion, and return its structure."""
    if isinstance(value, dict):
        keys = tuple(value)
        children = tuple(flatten(v, leaves) for v in value.values())
        return Branch((dict, keys), children, lambda parts: dict(zip(keys, parts, strict=True)))
    if isinstance(value, tuple | list):
        kind = type(value)
        children = tuple(flatten(v, leaves) for v in value)
        named = hasattr(kind, "_fields")
        return Branch(kind, children, (lambda parts: kind(*parts)) if named else kind)
    leaves.append(value)
    return LEAF


def paths(structure: Structure, root: str) -> Iterator[str]:
    """The name of each leaf, as Python would reach it: ``params['w'][0]``."""
    if isinstance(structure, Leaf):
        yield root
        return
    identity = structure.identity
    keys: Sequence[Any] = identity[1] if isinstance(identity, tuple) else range(len(structure.children))
    for key, child in zip(keys, structure.children, strict=True):
        yield from paths(child, f"{root}[{key!r}]")


def unflatten(structure: Structure, leaves: Iterator[Any]) -> Any:
    """The value of ``structure`` with these leaves."""
    if isinstance(structure, Leaf):
        return next(leaves)
    return structure.build([unflatten(child, leaves) for child in structure.children])
