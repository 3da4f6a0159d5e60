"""``polycomp targets``."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable

import click

from polycomp.codegen.cuda.nvrtc import nvrtc_version, supported_archs
from polycomp.driver.words import bytes_text
from polycomp.errors import TargetError
from polycomp.target import Target, cuda_target, host_target, parse_target

_NEEDED = {"llvmlite": "code generation", "islpy": "scheduling", "onnx": "reading models"}
_OPTIONAL = {
    "cupy": "running modules on a GPU",
    "onnxruntime": "polycomp bench --against onnxruntime",
    "plotly": "the pages of --html",
}


@click.command()
def command() -> None:
    """Show what this machine and this install can compile for, and what is missing."""
    _cpus()
    _gpus()
    for name, purpose in _NEEDED.items():
        _row(name, _state(name, f"needed for {purpose}"))
    for name, purpose in _OPTIONAL.items():
        _row(name, _state(name, f"optional, for {purpose}"))


def _cpus() -> None:
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


def _gpus() -> None:
    """What is compiled for, what compiles it, and what runs it: each may be there without the others."""
    _row("cuda", f"NVIDIA's GPUs: code for {' and '.join(cuda_target().features)}, and PTX for all later ones")
    _row("", "add ,arch=sm_80+sm_120 to choose the architectures")
    _row("  compiled by", _or_missing(_nvrtc))
    _row("  run on", _or_missing(_device))


def _nvrtc() -> str:
    version = ".".join(map(str, nvrtc_version()))
    return f"NVRTC {version}, which has {' '.join(supported_archs())}"


def _device() -> str:
    """The GPU that modules are run on. cupy, which knows, is imported only for this."""
    device = importlib.import_module("polycomp.runtime.cuda.cupydevice").open_device()
    with device.active():
        memory = device.memory()
    return f"{device.name}, {device.architecture}, {bytes_text(memory.free)} of {bytes_text(memory.total)} free"


def _or_missing(describe: Callable[[], str]) -> str:
    try:
        return describe()
    except TargetError as error:
        return f"missing: {error}"


def _row(name: str, text: str) -> None:
    click.echo(f"{name:<20}{text}")


def _describe(target: Target) -> str:
    caches = "/".join(bytes_text(b) for b in (target.l1_bytes, target.l2_bytes, target.l3_bytes))
    return f"{target.arch}, {8 * target.vector_bytes}-bit vectors, {target.cores} cores, caches {caches}"


def _state(package: str, purpose: str) -> str:
    return "installed" if importlib.util.find_spec(package) else f"missing ({purpose})"
