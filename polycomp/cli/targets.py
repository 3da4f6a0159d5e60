"""``polycomp targets``."""

from __future__ import annotations

import importlib.util

import click

from polycomp.driver.words import bytes_text
from polycomp.errors import TargetError
from polycomp.target import Target, host_target, parse_target

_NEEDED = {"llvmlite": "code generation", "islpy": "scheduling", "onnx": "reading models"}
_OPTIONAL = {"onnxruntime": "polycomp bench --against onnxruntime", "plotly": "the pages of --html"}


@click.command()
def command() -> None:
    """Show what this machine and this install can compile for, and what is missing."""
    try:
        host = host_target()
    except TargetError as error:
        _row("cpu", f"not available: {error}")
    else:
        _row("cpu", f"this machine: {_describe(host)}")
        _row("", f"features {' '.join(host.features)}")
    _row("x86_64-linux-gnu", _describe(parse_target("x86_64-linux-gnu")))
    _row("", "add ,features=avx2+fma to choose the instructions")
    arm = parse_target("aarch64-linux-gnu")
    _row("aarch64-linux-gnu", f"{arm.arch}, {8 * arm.vector_bytes}-bit vectors; add ,cpu=cortex-a72 to choose the CPU")
    for name, purpose in _NEEDED.items():
        _row(name, _state(name, f"needed for {purpose}"))
    for name, purpose in _OPTIONAL.items():
        _row(name, _state(name, f"optional, for {purpose}"))


def _row(name: str, text: str) -> None:
    click.echo(f"{name:<20}{text}")


def _describe(target: Target) -> str:
    caches = "/".join(bytes_text(b) for b in (target.l1_bytes, target.l2_bytes, target.l3_bytes))
    return f"{target.arch}, {8 * target.vector_bytes}-bit vectors, {target.cores} cores, caches {caches}"


def _state(package: str, purpose: str) -> str:
    return "installed" if importlib.util.find_spec(package) else f"missing ({purpose})"
