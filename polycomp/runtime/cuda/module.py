"""Modules for GPUs, loaded: what users run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from polycomp.dtypes import as_dtype
from polycomp.errors import InputError, OutOfMemoryError
from polycomp.runtime.binding import OutputPlan, Shape, bind
from polycomp.runtime.cuda.arrays import DeviceArray, Input, given_arrays
from polycomp.runtime.cuda.cupydevice import open_device
from polycomp.runtime.cuda.device import Buffer, Device
from polycomp.runtime.cuda.images import load_functions, plan_on
from polycomp.runtime.cuda.layout import RunLayout, lay_out
from polycomp.runtime.cuda.plan import check_plan
from polycomp.runtime.cuda.session import Resident, Session, shortage
from polycomp.runtime.direct import ArgumentPlan, declined
from polycomp.runtime.image import ModuleImage
from polycomp.runtime.module import Module, StepProfile

_KEPT_LAYOUTS = 256

DeviceOutputs = dict[str, Any]
"""By name: numpy arrays, or, when an input was on the GPU, cupy arrays."""


class CudaModule(Module):
    """A module for GPUs, loaded on one. Its methods may be called from several threads at once.

    Inputs are numpy arrays, or arrays on the GPU of any library that has ``__cuda_array_interface__`` or DLPack; when
    one of them is on the GPU, so are the outputs. ``device`` is the GPU.
    """

    def __init__(self, image: ModuleImage, device: Device | None = None) -> None:
        """Use :func:`polycomp.load` instead. ``device`` None is cupy's current one.

        Raises :class:`TargetError` when there is no GPU that can be used, :class:`ModuleFileError` when it cannot run
        the code, and :class:`OutOfMemoryError` when the weights do not fit.
        """
        # Not the base's, which is for what a CPU needs.
        plan = check_plan(image.manifest, len(image.shared_object), image.label)
        self.manifest = image.manifest
        self.threads = 1
        self.device: Device = device if device is not None else open_device()
        self._image = image
        self._expected = tuple((s.name, as_dtype(s.dtype).numpy) for s in self.inputs)
        self._output_names = tuple(s.name for s in self.outputs)
        self._layouts: dict[tuple[Shape, ...], RunLayout] = {}
        with self.device.active():
            plan = plan_on(self.device, image, plan)
            functions = load_functions(image, plan, self.device)
            self._resident = Resident(self.manifest, plan, self.device, functions, _upload_weights(image, self.device))
        self._free: list[Session] = []

    def __repr__(self) -> str:
        return (
            f"<CudaModule {self.manifest.name!r} {list(self.inputs)} -> {list(self.outputs)} on {self.device.name!r}>"
        )

    def run(self, inputs: Mapping[str, Any]) -> DeviceOutputs:
        """Compute the outputs, by name, as new arrays; they are ready when this returns.

        Raises :class:`InputError` naming all that is wrong with the inputs, and :class:`ExecutionError` when the run
        itself fails.
        """
        with self._session() as session:
            return self._run_in(session, inputs)

    def run_profiled(self, inputs: Mapping[str, Any]) -> tuple[DeviceOutputs, list[StepProfile]]:
        """Like :meth:`run`, and how long the GPU worked on every step."""
        with self._session() as session:
            return self._run_profiled_in(session, inputs)

    def session(self) -> CudaSession:
        """Runs of this module that share its weights and code and nothing else: they overlap with those of other
        sessions, where :meth:`run` takes any session that is free."""
        return CudaSession(self, self._new_session())

    def prepare(self, shapes: Sequence[Shape]) -> CudaPreparedRun:
        """A run for inputs of these shapes, in the order of :attr:`inputs`, that spends no time on checks.

        Raises :class:`InputError` naming all shapes that do not fit.
        """
        specs = zip(self._expected, shapes, strict=True)
        examples = [np.broadcast_to(np.empty((), dtype), shape) for (_, dtype), shape in specs]
        return CudaPreparedRun(self, self._layout(examples))

    def _run_in(self, session: Session, inputs: Mapping[str, Any]) -> DeviceOutputs:
        layout, arrays = self._check_given(inputs)
        return self._named(session.run(layout, arrays))

    def _run_profiled_in(self, session: Session, inputs: Mapping[str, Any]) -> tuple[DeviceOutputs, list[StepProfile]]:
        layout, arrays = self._check_given(inputs)
        outputs, nanoseconds = session.run_profiled(layout, arrays)
        return self._named(outputs), self._profile(layout.binding.sizes, nanoseconds)

    def _named(self, outputs: Sequence[Any]) -> DeviceOutputs:
        return dict(zip(self._output_names, outputs, strict=True))

    # Sessions

    @contextmanager
    def _session(self) -> Iterator[Session]:
        """One that no other run uses; popping and appending are atomic."""
        try:
            session = self._free.pop()
        except IndexError:
            session = self._new_session()
        try:
            yield session
        finally:
            self._free.append(session)

    def _new_session(self) -> Session:
        with self.device.active():
            return Session(self._resident)

    # Inputs

    def _check_given(self, inputs: Mapping[str, Any]) -> tuple[RunLayout, list[Input]]:
        """The inputs in order, and the layout of the run for their shapes."""
        if not hasattr(inputs, "get"):
            raise InputError(f"inputs are a dict of arrays by name, not a {type(inputs).__name__}")
        arrays = self._given([inputs.get(name) for name, _ in self._expected])
        fine = len(inputs) == len(arrays)
        for array, (_, dtype) in zip(arrays, self._expected, strict=True):
            fine = fine and isinstance(array, np.ndarray | DeviceArray) and array.dtype == dtype
        if not fine:
            known = {name: array for (name, _), array in zip(self._expected, arrays, strict=True) if name in inputs}
            bind(self.manifest, _examples({**inputs, **known}))
        return self._layout(arrays), arrays

    def _given(self, values: list[Any]) -> list[Any]:
        """The values in the order of the inputs, those on a GPU as :class:`DeviceArray`."""
        if all(isinstance(value, np.ndarray) for value in values):
            return values
        names = (name for name, _ in self._expected)
        with self.device.active():
            return given_arrays(self.device, self.manifest.name, zip(names, values, strict=True))

    def _layout(self, arrays: Sequence[Input]) -> RunLayout:
        shapes = tuple([array.shape for array in arrays])
        found = self._layouts.get(shapes)
        if found is None:
            if len(self._layouts) >= _KEPT_LAYOUTS:
                self._layouts = {}
            found = self._layouts[shapes] = self._new_layout(arrays)
        return found

    def _new_layout(self, arrays: Sequence[Input]) -> RunLayout:
        resident = self._resident
        named = {s.name: array for s, array in zip(self.inputs, arrays, strict=True)}
        binding = bind(self.manifest, _examples(named))
        given = tuple(OutputPlan(a.shape, a.dtype, a.nbytes) for a in arrays)
        return lay_out(self.manifest, resident.plan, resident.functions, binding, given)


class CudaSession:
    """Made by :meth:`CudaModule.session`: runs of ``module`` in memory and on a stream of their own."""

    def __init__(self, module: CudaModule, session: Session) -> None:
        self.module = module
        self._session = session

    def run(self, inputs: Mapping[str, Any]) -> DeviceOutputs:
        """See :meth:`CudaModule.run`."""
        return self.module._run_in(self._session, inputs)

    def run_profiled(self, inputs: Mapping[str, Any]) -> tuple[DeviceOutputs, list[StepProfile]]:
        """See :meth:`CudaModule.run_profiled`."""
        return self.module._run_profiled_in(self._session, inputs)


class CudaPreparedRun:
    """See :class:`polycomp.runtime.prepared.Prepared`."""

    threads = 1

    def __init__(self, module: CudaModule, layout: RunLayout) -> None:
        """Use :meth:`CudaModule.prepare` instead."""
        self._module = module
        self._layout = layout

    @property
    def sizes(self) -> tuple[int, ...]:
        """The values of the module's symbols."""
        return self._layout.binding.sizes

    def direct(self, arguments: Sequence[ArgumentPlan], as_tuple: bool) -> Callable[..., Any]:
        """There is none: no native code of the module runs on the host."""
        return declined

    def __call__(self, arrays: Sequence[Any]) -> list[Any]:
        """Raises :class:`InputError` for an array on another GPU, and :class:`ExecutionError` when the run fails."""
        given = self._module._given(list(arrays))
        with self._module._session() as session:
            return session.run(self._layout, given)


def _examples(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs with arrays of numpy's in the place of those on a GPU."""
    return {name: a.example if isinstance(a, DeviceArray) else a for name, a in inputs.items()}


def _upload_weights(image: ModuleImage, device: Device) -> Buffer | None:
    size = image.manifest.weight_bytes
    if not size:
        return None
    try:
        buffer = device.allocate(size)
    except OutOfMemoryError as error:
        told = shortage(device, f"the weights of {image.manifest.name!r} need", size, "load it on a larger one")
        raise OutOfMemoryError(told) from error
    stream = device.new_stream()
    stream.upload(buffer.address, image.weights[:size])
    stream.synchronize()
    return buffer
