"""The test cases of the onnx package, with the inputs that decide shapes made constants."""

from __future__ import annotations

import dataclasses
import importlib
import pathlib
import pkgutil
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import onnx.backend.test.case.node as node_cases
from onnx import numpy_helper, version_converter

Array = np.ndarray[Any, Any]

_REDUCTIONS = ("Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "LogSum", "LogSumExp", "SumSquare")
DECIDING: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        **{f"Reduce{r}": (1,) for r in _REDUCTIONS},
        **dict.fromkeys(("Reshape", "Squeeze", "Unsqueeze", "Expand", "Tile", "Split", "CumSum", "Trilu"), (1,)),
        **dict.fromkeys(("OneHot", "Upsample"), (1,)),
        **dict.fromkeys(("ConstantOfShape", "BlackmanWindow", "HannWindow", "HammingWindow"), (0,)),
        "Dropout": (1, 2),
        "Pad": (1, 3),
        "Range": (0, 1, 2),
        "Resize": (1, 2, 3),
        "Slice": (1, 2, 3, 4),
    }
)
"""Inputs that decide shapes or axes: a compiler needs them before the model runs, so they become constants."""

_DATA = pathlib.Path(onnx.__file__).parent / "backend/test/data"
_OLDEST_OPSET, _MODERN_OPSET = 7, 13


@dataclasses.dataclass(frozen=True)
class Case:
    """One test case: ``values`` are None for what numpy cannot hold (sequences, optionals)."""

    name: str
    model: onnx.ModelProto
    inputs: Sequence[Array | None]
    outputs: Sequence[Array | None]
    rtol: float = 1e-3
    atol: float = 1e-7

    @property
    def operators(self) -> frozenset[str]:
        return frozenset(n.op_type if not n.domain else f"{n.domain}.{n.op_type}" for n in self.model.graph.node)

    def frozen(self) -> tuple[onnx.ModelProto, dict[str, Array]]:
        """The model with deciding inputs as constants, and the values of the inputs that are left."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        constants = {t.name for t in model.graph.initializer}
        inputs = [i for i in model.graph.input if i.name not in constants]
        values = {i.name: v for i, v in zip(inputs, self.inputs, strict=False) if v is not None}
        deciding = _deciding(model.graph) & set(values)
        model.graph.initializer.extend(numpy_helper.from_array(values[name], name) for name in sorted(deciding))
        del model.graph.input[:]
        model.graph.input.extend(i for i in inputs if i.name not in deciding)
        return model, {n: v for n, v in values.items() if n not in deciding}


def _deciding(graph: onnx.GraphProto) -> set[str]:
    return {
        node.input[position]
        for node in graph.node
        for position in DECIDING.get(node.op_type, ())
        if position < len(node.input)
    }


def node_families() -> list[str]:
    """The modules that node cases come in, an operator each for the most part."""
    return [name for _, name, is_package in pkgutil.iter_modules(node_cases.__path__) if not is_package]


def node_family(family: str) -> list[Case]:
    """The cases of one module. They are computed when it is imported, so that a module known already is loaded anew;
    onnx's own list has each case once, as others expect it who import all modules."""
    name = f"{node_cases.__name__}.{family}"
    made = node_cases._NodeTestCases
    before = len(made)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        known = name in sys.modules
        module = importlib.import_module(name)
        if known:
            node_cases._existing_names.clear()  # a name is refused the second time
            importlib.reload(module)
    found = made[before:]
    if known:
        del made[before:]
    return [_case(c) for c in found]


def stored_cases(kind: str) -> Iterator[Case]:
    """The cases of a kind that lie as files in the onnx package."""
    for folder in sorted((_DATA / kind).iterdir()):
        model = onnx.load(folder / "model.onnx")
        sets = folder / "test_data_set_0"
        inputs, outputs = ([_read(p) for p in _numbered(sets, stem)] for stem in ("input", "output"))
        yield Case(folder.name, _modern(model), inputs, outputs)


def _modern(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model, converted when its opset is older than those that are supported."""
    if next((o.version for o in model.opset_import if not o.domain), _MODERN_OPSET) >= _OLDEST_OPSET:
        return model
    model.ir_version = max(model.ir_version, 4)
    return version_converter.convert_version(model, _MODERN_OPSET)


def _numbered(folder: pathlib.Path, stem: str) -> list[pathlib.Path]:
    return sorted(folder.glob(f"{stem}_*.pb"), key=lambda p: int(p.stem.split("_")[1]))


def _read(path: pathlib.Path) -> Array | None:
    tensor = onnx.TensorProto()
    tensor.ParseFromString(path.read_bytes())
    return numpy_helper.to_array(tensor) if tensor.data_type else None


def _case(case: Any) -> Case:
    inputs, outputs = case.data_sets[0]
    arrays = [_array(v) for v in inputs], [_array(v) for v in outputs]
    return Case(case.name, _modern(case.model), *arrays, case.rtol, case.atol)


def _array(value: Any) -> Array | None:
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return np.asarray(value) if isinstance(value, np.ndarray | np.generic | int | float) else None
