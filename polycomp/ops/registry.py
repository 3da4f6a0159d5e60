"""How a family of operators is put together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from polycomp.graph.ir import Operator


def family(*operators: Operator) -> Mapping[str, Operator]:
    """The operators by name; raises ValueError when two have the same name."""
    return merge([{o.name: o} for o in operators])


def merge(families: Iterable[Mapping[str, Operator]]) -> Mapping[str, Operator]:
    """One mapping of all ``families``; raises ValueError when two of them define the same operator."""
    merged: dict[str, Operator] = {}
    for operators in families:
        repeated = merged.keys() & operators.keys()
        if repeated:
            raise ValueError(f"operators defined twice: {', '.join(sorted(repeated))}")
        merged.update(operators)
    return MappingProxyType(merged)
