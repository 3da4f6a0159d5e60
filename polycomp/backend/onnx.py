"""The ONNX backend interface (``onnx.backend.base``).

import polycomp.backend.onnx as backend
outputs = backend.prepare(model).run(inputs)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.defs
from onnx import helper, numpy_helper
from onnx.backend.base import Backend, BackendRep, namedtupledict

from polycomp.api import Module, compile
from polycomp.errors import InputError, PolycompError, TargetError
from polycomp.importers.onnx import import_onnx

Array = np.ndarray[Any, Any]
Inputs = Mapping[str, Array] | Sequence[Array] | Array

_TARGETS = {"CPU": "cpu"}


class PolycompBackendRep(BackendRep):
    """A compiled model that :meth:`run` runs."""

    def __init__(self, module: Module) -> None:
        self.module = module

    def run(self, inputs: Inputs, **kwargs: Any) -> tuple[Array, ...]:
        """The outputs in the model's order, also by name. ``inputs`` are in the model's order, or named in a mapping.

        Raises :class:`~polycomp.errors.InputError` naming all that is wrong with the inputs.
        """
        names = [spec.name for spec in self.module.outputs]
        outputs = self.module.run(_named(inputs, [spec.name for spec in self.module.inputs]))
        return namedtupledict("Outputs", names)(*(outputs[name] for name in names))


class PolycompBackend(Backend):
    """polycomp as an ONNX backend, for the device "CPU"."""

    @classmethod
    def supports_device(cls, device: str) -> bool:
        return device.split(":")[0] in _TARGETS

    @classmethod
    def is_compatible(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """Whether all of the model's operators and types are supported."""
        if not cls.supports_device(device):
            return False
        try:
            import_onnx(model)
        except PolycompError:
            return False
        return True

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> PolycompBackendRep:
        """Compile ``model``; ``kwargs`` are those of :func:`polycomp.compile`.

        Raises TargetError for another device, and what :func:`polycomp.compile` raises.
        """
        if not cls.supports_device(device):
            raise TargetError(f"polycomp has no device {device!r}; it has {', '.join(_TARGETS)}")
        return PolycompBackendRep(compile(model, target=_TARGETS[device.split(":")[0]], **kwargs))

    @classmethod
    def run_node(
        cls,
        node: onnx.NodeProto,
        inputs: Inputs,
        device: str = "CPU",
        outputs_info: Sequence[tuple[np.dtype[Any], tuple[int, ...]]] | None = None,
        **kwargs: Any,
    ) -> tuple[Array, ...]:
        """Compile ``node`` for these ``inputs`` and run it; without ``opset_version`` it is of the newest opset."""
        opset = int(kwargs.pop("opset_version", onnx.defs.onnx_opset_version()))
        feeds = _named(inputs, [name for name in node.input if name])
        model, given = _model_of(node, feeds, opset)
        return cls.prepare(model, device, **kwargs).run(given)


def _named(inputs: Inputs, names: Sequence[str]) -> dict[str, Array]:
    """``inputs`` by name; numbers become arrays."""
    if isinstance(inputs, Mapping):
        return {name: np.asarray(value) for name, value in inputs.items()}
    values = [inputs] if isinstance(inputs, np.ndarray) else list(inputs)
    if len(values) != len(names):
        raise InputError(f"{len(values)} inputs were given, but there are {len(names)}: {', '.join(names) or 'none'}")
    return {name: np.asarray(value) for name, value in zip(names, values, strict=True)}


def _model_of(node: onnx.NodeProto, feeds: Mapping[str, Array], opset: int) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """A model of ``node`` alone, and those of ``feeds`` that it takes. Tensors of at most one dimension become
    constants: they may be shapes, axes or pads."""
    given = {name: array for name, array in feeds.items() if array.ndim > 1}
    graph = helper.make_graph(
        [node],
        "node",
        [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for n, a in given.items()],
        [onnx.ValueInfoProto(name=name) for name in node.output if name],
        [numpy_helper.from_array(a, n) for n, a in feeds.items() if n not in given],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)]), given


is_compatible = PolycompBackend.is_compatible
prepare = PolycompBackend.prepare
run_model = PolycompBackend.run_model
run_node = PolycompBackend.run_node
supports_device = PolycompBackend.supports_device
