"""Loaded modules: what users run."""

from __future__ import annotations

import ctypes
import dataclasses
import importlib
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from polycomp.dtypes import as_dtype
from polycomp.errors import ExecutionError, InputError, ModuleFileError
from polycomp.runtime import dims
from polycomp.runtime.binding import Shape, bind
from polycomp.runtime.direct import ArgumentPlan, declined
from polycomp.runtime.frame import Frame, Frames, RunPlan
from polycomp.runtime.image import ModuleImage, ModuleParts, assemble
from polycomp.runtime.library import Library, shared_pool
from polycomp.runtime.manifest import Manifest, TensorSpec
from polycomp.runtime.memory import address_of
from polycomp.runtime.modulefile import Path, read_module_file, write_module_file
from polycomp.runtime.prepared import LoadedCode, Prepared, PreparedRun
from polycomp.target import available_cores, check_threads, host_features

_MACHINE_NAMES = {"AMD64": "x86_64", "arm64": "aarch64"}
_KEPT_BINDINGS = 256
_BRIEF_BYTES = 5 << 16
"""One thread moves 4 << 16 bytes in 3 microseconds; with another to wake and to wait for it takes 5 (measured)."""
_ADDRESSABLE = 1 << 47
"""Bytes; beyond them sizes would overflow in the native code long before memory is found missing."""

CUDA_ARCH = "cuda"
"""The manifest's ``arch`` of modules for GPUs."""

Outputs = dict[str, np.ndarray[Any, Any]]


@dataclasses.dataclass(frozen=True)
class StepProfile:
    """One step of one run. ``flops`` and ``bytes`` are its least work; ``sources`` the model's nodes it computed."""

    symbol: str
    sources: tuple[str, ...]
    nanoseconds: int
    flops: int
    bytes: int


class Module:
    """A compiled model, loaded. Its methods may be called from several threads at once.

    ``manifest`` describes the module, ``threads`` is how many threads a run uses.
    """

    def __init__(self, image: ModuleImage, threads: int = 0) -> None:
        """Use :func:`load` instead."""
        _check_machine(image)
        check_threads(threads)
        self.manifest: Manifest = image.manifest
        self.threads = threads or _default_threads(image.manifest.threads)
        self._image = image
        self._library = Library(image.shared_object, image.label)
        entry = self._library.function("polycomp_run", ctypes.c_int)
        self._code = LoadedCode(image.manifest, self._library, entry, shared_pool(), image)
        self._pool = self._code.pools.get(self.threads, self._library) if self.threads > 1 else None
        self._expected = tuple((s.name, as_dtype(s.dtype).numpy) for s in self.inputs)
        self._output_names = tuple(s.name for s in self.outputs)
        self._prepared: dict[tuple[Shape, ...], PreparedRun] = {}
        self._frames, self._lone_frames = self._make_frames(self.threads), self._make_frames(1)
        self._direct: Callable[..., Any] = declined
        self._latest: PreparedRun | None = None  # of the run before
        self._direct_for: PreparedRun | None = None  # what `_direct` does

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self.manifest.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self.manifest.outputs

    def __repr__(self) -> str:
        return f"<Module {self.manifest.name!r} {list(self.inputs)} -> {list(self.outputs)}>"

    def run(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> Outputs:
        """Compute the outputs, by name, as new arrays.

        Inputs that are not C-contiguous or not aligned to their elements are copied first. Raises :class:`InputError`
        naming all that is wrong with the inputs, and :class:`ExecutionError` when the run itself fails.
        """
        results = self._run_again(inputs)
        if results is NotImplemented:
            arrays, prepared = self._check(inputs)
            results = prepared(arrays)
            self._expect_again(prepared, [array.shape for array in arrays])
        return dict(zip(self._output_names, results, strict=True))

    def _run_again(self, inputs: Mapping[str, Any]) -> Any:
        """The outputs if ``inputs`` are like those of the two runs before, else NotImplemented."""
        if self._direct is declined or type(inputs) is not dict or len(inputs) != len(self._expected):
            return NotImplemented
        return self._direct(*[inputs.get(name) for name, _ in self._expected])

    def _expect_again(self, prepared: PreparedRun, shapes: Sequence[Shape]) -> None:
        """Make ready for more runs like this one when there were two in a row."""
        if prepared is self._latest and prepared is not self._direct_for:
            arguments = [
                ArgumentPlan(d, s, i) for i, ((_, d), s) in enumerate(zip(self._expected, shapes, strict=True))
            ]
            self._direct, self._direct_for = prepared.direct(arguments, as_tuple=True), prepared
        self._latest = prepared

    def prepare(self, shapes: Sequence[Shape]) -> Prepared:
        """A run for inputs of these shapes, in the order of :attr:`inputs`, that spends no time on checks.

        Raises :class:`InputError` naming all shapes that do not fit.
        """
        specs = zip(self._expected, shapes, strict=True)
        examples = {name: np.broadcast_to(np.empty((), dtype), shape) for (name, dtype), shape in specs}
        return self._prepare(tuple(map(tuple, shapes)), examples)

    def _is_brief(self, plan: RunPlan) -> bool:
        """Whether the run is one step that is over before other threads have woken up and had their share."""
        if len(self.manifest.steps) != 1:
            return False
        (step,), sizes = self.manifest.steps, self._sizes(plan.binding.sizes)
        moved = dims.evaluate(step.bytes, sizes)
        return moved <= _BRIEF_BYTES and dims.evaluate(step.flops, sizes) <= moved

    def run_profiled(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> tuple[Outputs, list[StepProfile]]:
        """Like :meth:`run`, and how long every step took."""
        arrays, prepared = self._check(inputs)
        times = np.zeros(len(self.manifest.steps) + 1, np.int64)
        outputs = dict(zip(self._output_names, prepared(arrays, address_of(times)), strict=True))
        return outputs, self._profile(prepared.sizes, np.diff(times))

    def save(self, path: Path) -> None:
        """Write the module to a file for :func:`load`. Raises :class:`ModuleFileError` when that fails."""
        write_module_file(path, self._image.parts)

    def shared_object(self) -> bytes:
        """The module's code as an ELF shared object."""
        return bytes(self._image.shared_object)

    def _check(self, inputs: Mapping[str, Any]) -> tuple[list[np.ndarray[Any, Any]], PreparedRun]:
        """The inputs in order, and the run for their shapes."""
        if not hasattr(inputs, "get"):
            raise InputError(f"inputs are a dict of arrays by name, not a {type(inputs).__name__}")
        arrays: list[Any] = [inputs.get(name) for name, _ in self._expected]
        fine = len(inputs) == len(arrays)
        for array, (_, dtype) in zip(arrays, self._expected, strict=True):
            fine = fine and isinstance(array, np.ndarray) and array.dtype == dtype
        if not fine:
            bind(self.manifest, inputs)
        shapes = tuple([array.shape for array in arrays])
        return arrays, self._prepared.get(shapes) or self._prepare(shapes, inputs)

    def _prepare(self, shapes: tuple[Shape, ...], inputs: Mapping[str, Any]) -> PreparedRun:
        plan = self._make_plan(inputs)
        prepared = PreparedRun(self._code, plan, self._lone_frames if self._is_brief(plan) else self._frames)
        if len(self._prepared) >= _KEPT_BINDINGS:
            self._prepared = {}
        self._prepared[shapes] = prepared
        return prepared

    def _make_plan(self, inputs: Mapping[str, Any]) -> RunPlan:
        binding = bind(self.manifest, inputs)
        needed = dims.evaluate(self.manifest.arena_bytes, self._sizes(binding.sizes)) + binding.output_bytes
        if needed > _ADDRESSABLE:
            raise ExecutionError(
                f"a run of {self.manifest.name!r} with these sizes would need {needed} bytes of memory"
            )
        sizes = (ctypes.c_int64 * len(binding.sizes))(*binding.sizes)
        arena = self._library.function("polycomp_arena_bytes", ctypes.c_int64)(sizes)
        workspace = self._library.function("polycomp_workspace_bytes", ctypes.c_int64)
        return RunPlan(binding, arena, workspace(sizes, ctypes.c_int64(self.threads)))

    def _sizes(self, values: tuple[int, ...]) -> dict[str, int]:
        return {s.name: size for s, size in zip(self.manifest.symbols, values, strict=True)}

    def _make_frames(self, threads: int) -> Frames:
        item_bytes = tuple(dtype.itemsize for _, dtype in self._expected)
        n_outputs, n_sizes, weights = len(self.outputs), len(self.manifest.symbols), address_of(self._image.weights)
        return Frames(lambda: Frame(item_bytes, n_outputs, n_sizes, threads, weights), threads)

    def _profile(self, sizes: tuple[int, ...], nanoseconds: Iterable[int]) -> list[StepProfile]:
        values = self._sizes(sizes)
        return [
            StepProfile(s.symbol, s.sources, int(ns), dims.evaluate(s.flops, values), dims.evaluate(s.bytes, values))
            for s, ns in zip(self.manifest.steps, nanoseconds, strict=True)
        ]


def load(source: Path | bytes | bytearray | memoryview, threads: int = 0) -> Module:
    """Load a module from a ``.pcm`` file, or from such a file's bytes.

    ``threads`` 0 means as many as the module was compiled for, but no more than this process has cores. The file is
    mapped, so replace it by writing a new one (as :meth:`Module.save` does), not in place. Raises
    :class:`ModuleFileError` when the file is damaged or for another machine, and :class:`TargetError` when the module
    is for GPUs and there is none that can be used.
    """
    return load_image(read_module_file(source), threads)


def load_parts(parts: ModuleParts, threads: int = 0) -> Module:
    """Load what the compiler has just built."""
    return load_image(assemble(parts), threads)


def load_image(image: ModuleImage, threads: int = 0) -> Module:
    """Load a module that is in memory or in a mapped file: on the current GPU when it is for GPUs."""
    if image.manifest.arch != CUDA_ARCH:
        return Module(image, threads)
    check_threads(threads)
    # What modules for a CPU do without is not imported for them.
    module: Module = importlib.import_module("polycomp.runtime.cuda.module").CudaModule(image)
    return module


def _default_threads(compiled_for: int) -> int:
    cores = available_cores()
    return min(compiled_for, cores) if compiled_for > 0 else cores


def _check_machine(image: ModuleImage) -> None:
    machine = _MACHINE_NAMES.get(platform.machine(), platform.machine())
    if image.manifest.arch != machine:
        raise ModuleFileError(f"{image.label} was compiled for {image.manifest.arch}, but this machine is {machine}")
    missing = sorted(set(image.manifest.features) - host_features())
    if missing:
        raise ModuleFileError(
            f"{image.label} needs CPU features that this machine does not have: {', '.join(missing)}; "
            f"compile the model for this machine"
        )
