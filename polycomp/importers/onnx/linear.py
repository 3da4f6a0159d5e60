"""Matrix products."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from polycomp.importers.onnx.builder import Value
from polycomp.importers.onnx.site import Handler, Site


def _matmul(site: Site) -> Sequence[Value]:
    return [site.emit("MatMul", site.input(0), site.input(1))]


def _gemm(site: Site) -> Sequence[Value]:
    numbers = {n: site.number(n, 1.0) for n in ("alpha", "beta")}
    flags = {n: bool(site.integer(n, 0)) for n in ("transA", "transB")}
    return [site.emit("Gemm", site.input(0), site.input(1), site.optional(2), **numbers, **flags)]


HANDLERS: Mapping[str, Handler] = MappingProxyType({"MatMul": _matmul, "Gemm": _gemm})
