"""Choosing, among the code that a module has, what a GPU runs best, and loading it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from polycomp.errors import ModuleFileError
from polycomp.runtime.cuda.device import Code, Device
from polycomp.runtime.cuda.plan import PTX, CodeSpec, DevicePlan
from polycomp.runtime.image import ModuleImage

Functions = Mapping[tuple[str, str], Any]
"""Kernels that can be launched, by the symbol of their step and their own name."""

_PTX_TARGET = re.compile(rb"^\s*\.target\s+(sm_\d+[af]?)", re.MULTILINE)
_PTX_HEAD = 4096
"""Bytes. The directive stands at the beginning, behind comments."""


class Architecture(NamedTuple):
    """``sm_103f`` is (10, 3, "f"). Code for a plain one runs on all later ones of the same major number, "f" on those
    of the family, "a" on exactly this one (NVIDIA, *CUDA C++ Programming Guide*, feature sets)."""

    major: int
    minor: int
    suffix: str

    def runs_on(self, device: Architecture) -> bool:
        """Whether machine code for this one does."""
        if self.suffix == "a":
            return (self.major, self.minor) == (device.major, device.minor)
        return self.major == device.major and self.minor <= device.minor

    def compiles_for(self, device: Architecture) -> bool:
        """Whether PTX for this one does."""
        return self.runs_on(device) if self.suffix else self[:2] <= device[:2]


def architecture(text: str) -> Architecture:
    """Of a text such as ``"sm_90a"``."""
    digits = text.removeprefix("sm_").rstrip("af")
    return Architecture(int(digits[:-1]), int(digits[-1]), text[len("sm_") + len(digits) :])


def plan_on(device: Device, image: ModuleImage, plan: DevicePlan) -> DevicePlan:
    """The plan with the best code that the module has for the device, of each kernel one piece, and its launches.

    Raises :class:`ModuleFileError` when there is none.
    """
    symbols = dict.fromkeys(s.symbol for s in plan.steps if s.launches)
    chosen = {symbol: _choose([c for c in plan.code if c.symbol == symbol], image, device) for symbol in symbols}
    steps = tuple(
        dataclasses.replace(s, launches=s.on(chosen[s.symbol].arch), special={}) if s.launches else s
        for s in plan.steps
    )
    return DevicePlan(tuple(chosen.values()), steps)


def load_functions(image: ModuleImage, plan: DevicePlan, device: Device) -> Functions:
    """Load the code of a plan that :func:`plan_on` has made for the device.

    Raises :class:`ModuleFileError` when it is not accepted. Called within ``device.active()``.
    """
    loaded: dict[tuple[int, int], Code] = {}
    functions = {}
    specs = {spec.symbol: spec for spec in plan.code}
    for symbol, launches in {s.symbol: s.launches for s in plan.steps if s.launches}.items():
        spec = specs[symbol]
        place = (spec.offset, spec.bytes)
        if place not in loaded:
            loaded[place] = device.load_code(_content(image, spec))
        for launch in launches:
            functions[symbol, launch.function] = loaded[place].function(launch.function, launch.shared_bytes)
    return functions


def _content(image: ModuleImage, spec: CodeSpec) -> bytes:
    return bytes(image.shared_object[spec.offset : spec.offset + spec.bytes])


def _choose(specs: Iterable[CodeSpec], image: ModuleImage, device: Device) -> CodeSpec:
    """Machine code for the latest architecture that runs, with the most special features; else PTX."""
    here = architecture(device.architecture)
    cubins = {architecture(s.arch): s for s in specs if s.arch != PTX}
    fitting = [a for a in cubins if a.runs_on(here)]
    if fitting:
        return cubins[max(fitting, key=lambda a: (a.minor, "fa".find(a.suffix or "-")))]
    texts = {_ptx_target(_content(image, s)): s for s in specs if s.arch == PTX}
    compiling = [a for a in texts if a.compiles_for(here)]
    if compiling:
        return texts[max(compiling)]
    raise ModuleFileError(_no_code(image.label, [*cubins], [*texts], device))


def _ptx_target(ptx: bytes) -> Architecture:
    found = _PTX_TARGET.search(ptx[:_PTX_HEAD])
    return architecture(found[1].decode()) if found else Architecture(0, 0, "")


def _no_code(label: str, cubins: Iterable[Architecture], texts: Iterable[Architecture], device: Device) -> str:
    there = [_name(a) for a in sorted(cubins)]
    there += [f"PTX for {_name(a)}{'' if a.suffix else ' and later'}" for a in sorted(texts)]
    return (
        f"{label} has code for {', '.join(there)}, but the GPU {device.name!r} is {device.architecture}; compile the "
        f"model again for it, with --target cuda,arch={device.architecture}"
    )


def _name(a: Architecture) -> str:
    return f"sm_{a.major}{a.minor}{a.suffix}"
