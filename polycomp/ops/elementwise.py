"""Elementwise operators of several inputs."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from polycomp.graph.ir import Operator

OPERATORS: Mapping[str, Operator] = MappingProxyType({})
