"""Mixed precision: what of a model in float32 is kept in 16 bits, and what is not.

Products of matrices and convolutions take operands of 16 bits and sum in float32, as their definitions do. What lies
between them is stored in 16 bits and computed in float32; sums, exponentials and what counts stay in float32, as
Micikevicius et al. advise ("Mixed precision training", arXiv:1710.03740). The lists below follow those of PyTorch's
autocast (https://pytorch.org/docs/stable/amp.html, "Autocast Op Reference") and of onnxconverter-common's converter
(``DEFAULT_OP_BLOCK_LIST`` of its float16.py), but for the latter's Resize, Min and Max, whose definitions here compute
in float32 anyway. Operators for which 16 bits are neither a gain nor a danger are as their operands are, like those of
the "infer list" of TensorFlow's auto_mixed_precision.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from polycomp.dtypes import DType
from polycomp.graph import Graph, Node, OpKind
from polycomp.options import Options
from polycomp.passes.rewrite import Array, Editor, apply_rules

_WIDE = DType.FLOAT32


class Kept(enum.Enum):
    """How a value of float32 is kept. What reads several is as the first of them here, but for the rules of
    :class:`_Planner`."""

    LARGE = "large"  # in float32, because it may be beyond the range of 16 bits, as all that is made of it
    MASK = "mask"  # the same, because of a constant that is there to leave something out
    NARROW = "narrow"  # in 16 bits
    INTEGERS = "integers"  # in float32, because it counts something: positions have more digits than 16 bits
    FLOAT32 = "float32"  # in float32; a product may read it rounded
    OPEN = "open"  # in float32, because nothing narrow has come before


@dataclasses.dataclass(frozen=True)
class Reason:
    """Why a node stays in float32."""

    node: Node
    text: str


PRODUCTS = frozenset(["Conv", "ConvTranspose", "Gemm", "MatMul"])

SAME = frozenset(
    [
        # They move elements, or choose among them.
        "Concat",
        "DepthToSpace",
        "Expand",
        "Gather",
        "GatherElements",
        "GlobalMaxPool",
        "Identity",
        "Max",
        "MaxPool",
        "Min",
        "Pad",
        "ReduceMax",
        "ReduceMin",
        "Reshape",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Tile",
        "Transpose",
        "Trilu",
        "Where",
        # Their results are about as large as what they read, or bounded; means are summed in float32.
        "Abs",
        "Add",
        "AveragePool",
        "Ceil",
        "Celu",
        "Clip",
        "ClipTensor",
        "Div",
        "Elu",
        "Floor",
        "Gelu",
        "GlobalAveragePool",
        "HardSigmoid",
        "HardSwish",
        "LeakyRelu",
        "Mean",
        "Mish",
        "Mul",
        "Neg",
        "PRelu",
        "Relu",
        "Resize",
        "Round",
        "Selu",
        "Shrink",
        "Sigmoid",
        "Sign",
        "Softsign",
        "Sqrt",
        "Sub",
        "Sum",
        "Swish",
        "Tanh",
        "ThresholdedRelu",
        "Trunc",
    ]
)
"""Operators whose results are kept as their operands are."""

NORMALISING = frozenset(
    [
        "BatchNormalization",
        "GroupNormalization",
        "InstanceNormalization",
        "LRN",
        "LayerNormalization",
        "LpNormalization",
        "MeanVarianceNormalization",
        "RMSNormalization",
        "Softmax",
    ]
)
"""Operators whose sums, exponentials and statistics are float32 inside of their kernel, whatever they read and write:
their results are bounded, so that 16 bits at its borders are safe. Their parameters stay in float32."""

_RANGE = "its results may be beyond the range of float16"
_SUM = "it sums many elements"
_STEEP = "its results have more digits than 16 bits"
_COUNTS = "it computes with integers"

KEPT_OPERATORS: Mapping[str, tuple[Kept, str]] = MappingProxyType(
    {
        **dict.fromkeys(("Cosh", "Exp", "Exp2", "Expm1", "Pow", "Reciprocal", "Sinh", "Tan"), (Kept.LARGE, _RANGE)),
        **dict.fromkeys(
            ("CumSum", "LpPool", "ReduceL1", "ReduceL2", "ReduceProd", "ReduceSum", "ReduceSumSquare"),
            (Kept.LARGE, _SUM),
        ),
        **dict.fromkeys(("LogSoftmax", "ReduceLogSum", "ReduceLogSumExp", "ReduceMean"), (Kept.FLOAT32, _SUM)),
        **dict.fromkeys(
            (
                "Acos",
                "Acosh",
                "Asin",
                "Asinh",
                "Atan",
                "Atan2",
                "Atanh",
                "Cos",
                "Erf",
                "Log",
                "Log1p",
                "Log2",
                "Mod",
                "Sin",
                "Softplus",
            ),
            (Kept.FLOAT32, _STEEP),
        ),
        **dict.fromkeys(("Fill", "Range"), (Kept.INTEGERS, _COUNTS)),
        "DequantizeLinear": (Kept.FLOAT32, "its operand is quantised"),
    }
)
"""Operators whose results stay in float32, and why."""

_LARGEST_BFLOAT16 = (2 - 2.0**-7) * 2.0**127

_ADDING = frozenset(["Add", "ClipTensor", "Concat", "Max", "Min", "Pad", "Sub", "Sum", "Where"])
"""Operators for which numbers near zero are as good as zero, unless they are there to keep a sum from being zero."""

_PRECISE = MappingProxyType({DType.FLOAT16: 2.0**-10, DType.BFLOAT16: 2.0**-7})
"""The largest error of a constant array, as a share of its norm: twice that of an element that is rounded."""


def mixed_precision(graph: Graph, options: Options) -> Graph:
    """Keep data in ``options.precision`` where that is safe. The types of inputs and outputs do not change."""
    if options.narrow is None:
        return graph
    return apply_rules(_Narrowing(graph, options).run(), {"Cast": (_undo_widening,)})


def kept_in_float32(graph: Graph, options: Options) -> list[Reason]:
    """The nodes whose results :func:`mixed_precision` leaves in float32, in order; all where it changes nothing."""
    if options.narrow is None:
        return [Reason(n, "float32 was asked for") for n in graph.nodes if _has_float32(graph, n)]
    planner = _Planner(Editor(graph), options)
    planner.run()
    return [Reason(n, planner.reasons[n.name]) for n in graph.nodes if n.name in planner.reasons]


def _has_float32(graph: Graph, node: Node) -> bool:
    return any(graph.types[o].dtype is _WIDE for o in node.outputs)


def misfit(array: Array, dtype: DType, adds: bool = False) -> tuple[Kept, str] | None:
    """What a constant would lose in ``dtype``; None for no more than its elements' last digits.

    Of an array that is added to something (``adds``) tiny elements may vanish; a single number is there for a reason.
    """
    numbers = array if (finite := np.isfinite(array)).all() else array[finite]
    largest = float(np.max(np.abs(numbers), initial=0.0))
    with np.errstate(over="ignore"):
        rounded = numbers.astype(dtype.numpy).astype(array.dtype)
    if not np.isfinite(rounded).all():
        return Kept.LARGE, f"its constant {largest:.3g} is beyond the range of {dtype.value}"
    if largest == 0 or (adds and array.size > 1):
        return None
    scaled = numbers / largest
    error = np.linalg.norm((rounded / largest - scaled).reshape(-1)) / np.linalg.norm(scaled.reshape(-1))
    if error <= _PRECISE[dtype]:
        return None
    return Kept.FLOAT32, f"its constant {largest:.3g} is too small for {dtype.value}"


class _Planner:
    """Decides for each value of float32 how it is kept: ``kept`` by value, ``reasons`` by the names of the nodes that
    stay in float32; results of nodes named in ``saturated`` are no less than the lowest number of 16 bits."""

    def __init__(self, editor: Editor, options: Options) -> None:
        assert options.narrow is not None
        self.editor, self.narrow, self.names = editor, options.narrow, frozenset(options.keep_float32)
        self.kept: dict[str, Kept] = dict.fromkeys(filter(self._is_wide, editor.graph.inputs), Kept.OPEN)
        self.reasons: dict[str, str] = {}
        self.saturated: set[str] = set()
        self.largest = float(np.finfo(np.float16).max) if self.narrow is DType.FLOAT16 else _LARGEST_BFLOAT16

    def run(self) -> None:
        """Decide for all nodes, in order."""
        for node in self.editor.nodes():
            if any(map(self._is_wide, node.outputs)):
                kept, reason = self._decide(node)
                self.kept.update(dict.fromkeys(filter(self._is_wide, node.outputs), kept))
                if kept is not Kept.NARROW:
                    self.reasons[node.name] = reason

    def operands(self, node: Node) -> list[str]:
        """The operands in float32 that are computed."""
        return [i for i in node.inputs if i in self.kept]

    def constants(self, node: Node) -> list[str]:
        """The operands in float32 that are known."""
        return [i for i in node.inputs if i in self.editor.constants and self._is_wide(i)]

    def is_narrow(self, value: str) -> bool:
        return self.kept.get(value) is Kept.NARROW

    def _is_wide(self, value: str) -> bool:
        return bool(value) and self.editor.type(value).dtype is _WIDE

    def _decide(self, node: Node) -> tuple[Kept, str]:
        found = {self.kept[i] for i in self.operands(node)}
        if self.names & {node.name, node.op, *node.sources}:
            return Kept.FLOAT32, "it was asked to"
        if node.op == "Cast":
            return self._cast(node)
        if node.op in KEPT_OPERATORS or self._is_square(node):
            return self._listed(node, found)
        if len(node.outputs) > 1 or node.op not in PRODUCTS | SAME | NORMALISING:
            return Kept.FLOAT32, "it is not known to be safe in 16 bits"
        if node.op in PRODUCTS:
            return self._product(node, found)
        return self._normalising(found) if node.op in NORMALISING else self._same(node, found)

    def _cast(self, node: Node) -> tuple[Kept, str]:
        """A conversion of the model's to float32."""
        source = self.editor.type(node.inputs[0]).dtype
        if source is DType.BOOL:
            return Kept.OPEN, _COUNTS
        maker = self.editor.producer(node.inputs[0])
        summed = maker is not None and self.editor.kind(maker) is OpKind.CONTRACTION
        if source.is_integer and not summed:
            return Kept.INTEGERS, _COUNTS
        return Kept.FLOAT32, f"its operand is {source.value}"

    def _is_square(self, node: Node) -> bool:
        return node.op == "Mul" and node.inputs[0] == node.inputs[1]

    def _listed(self, node: Node, found: set[Kept]) -> tuple[Kept, str]:
        kept, reason = KEPT_OPERATORS["Pow" if self._is_square(node) else node.op]
        if node.op == "Fill":
            value = np.array(node.attributes["value"], np.float32)
            far = misfit(value, self.narrow, adds=True)
            return (Kept.OPEN, _COUNTS) if far is None else (Kept.MASK if far[0] is Kept.LARGE else far[0], far[1])
        if kept is Kept.LARGE and self.narrow is DType.BFLOAT16:  # its range is that of float32
            kept, reason = Kept.FLOAT32, _STEEP if reason == _RANGE else reason
        return (Kept.LARGE if found & {Kept.LARGE, Kept.MASK} else kept), reason

    def _product(self, node: Node, found: set[Kept]) -> tuple[Kept, str]:
        if found == {Kept.INTEGERS}:
            return Kept.INTEGERS, "it multiplies integers"
        return self._misfit(node) or (Kept.NARROW, "")

    def _normalising(self, found: set[Kept]) -> tuple[Kept, str]:
        if found == {Kept.OPEN}:
            return Kept.OPEN, _OPEN
        if found <= {Kept.OPEN, Kept.NARROW}:
            return Kept.NARROW, ""
        return Kept.FLOAT32, "it reads float32"

    def _same(self, node: Node, found: set[Kept]) -> tuple[Kept, str]:
        misfit = self._misfit(node)
        if misfit is not None and misfit[0] is Kept.LARGE and self._leaves_out(node, found):
            misfit = (Kept.MASK, misfit[1])
        kinds = found if misfit is None else found | {misfit[0]}
        if Kept.LARGE in kinds:
            return misfit or (Kept.LARGE, _FAR)
        if Kept.MASK in kinds:
            return self._masked(node, misfit)
        if Kept.NARROW in found or (not found and self.editor.kind(node) is not OpKind.ELEMENTWISE):
            return misfit or (Kept.NARROW, "")
        if found <= {Kept.OPEN}:
            return Kept.OPEN, _OPEN
        return (Kept.INTEGERS, _COUNTS) if Kept.INTEGERS in found else (Kept.FLOAT32, "it reads float32 alone")

    def _leaves_out(self, node: Node, found: set[Kept]) -> bool:
        """Whether a constant beyond the range is that of a mask: it is negative and takes the place of data or is added
        to it, or is chosen without any data."""
        constants = [self.editor.constants[i] for i in self.constants(node)]
        negative = node.op in _ADDING and all(np.max(c, initial=0.0) <= self.largest for c in constants)
        return negative or found <= {Kept.OPEN, Kept.INTEGERS, Kept.MASK}

    def _masked(self, node: Node, misfit: tuple[Kept, str] | None) -> tuple[Kept, str]:
        """What only softmaxes read may be cut: the lowest number of 16 bits is as good as that of float32, and rows of
        such numbers alone are the same."""
        (value,) = node.outputs
        users = self.editor.users(value)
        alone = bool(users) and not self.editor.is_output(value) and all(u.op == "Softmax" for u in users)
        if not alone or self.editor.kind(node) is not OpKind.ELEMENTWISE:
            return misfit or (Kept.MASK, _FAR)
        self.saturated.add(node.name)
        return Kept.NARROW, ""

    def _misfit(self, node: Node) -> tuple[Kept, str] | None:
        """What the first constant that does not fit would lose."""
        constants = [self.editor.constants[i] for i in _narrowed(node, self.constants(node))]
        return next((m for c in constants if (m := misfit(c, self.narrow, node.op in _ADDING))), None)


_FAR = "it reads what may be beyond the range of 16 bits"
_OPEN = "no product or convolution comes before it"


def _narrowed(node: Node, values: Sequence[str]) -> list[str]:
    """Those of the operands ``values`` that are in 16 bits in a narrow node: parameters and biases are not."""
    most = {"Conv": 2, "ConvTranspose": 2, **dict.fromkeys(NORMALISING, 1)}.get(node.op, len(node.inputs))
    return [v for v in values if v in node.inputs[:most]]


class _Narrowing:
    """``twins`` has the name in 16 bits of each value that is kept so, and of constants and others that are read so."""

    def __init__(self, graph: Graph, options: Options) -> None:
        assert options.narrow is not None
        self.editor, self.narrow = Editor(graph), options.narrow
        self.plan = _Planner(self.editor, options)
        self.plan.run()
        self.twins: dict[str, str] = {}
        self.removed: dict[str, Node] = {}

    def run(self) -> Graph:
        for node in self.editor.nodes():
            if len(node.outputs) == 1 and self.plan.is_narrow(node.outputs[0]):
                self._rewrite(node)
            elif not any(o in self.plan.kept for o in node.outputs):
                self._read_narrow(node)
        for value, node in self.removed.items():
            if self.editor.users(value) or self.editor.is_output(value):
                self.editor.emit("Cast", (self.twins[value],), {"to": _WIDE}, node, (value,))
        return self.editor.finish()

    def _rewrite(self, node: Node) -> None:
        """Put a node of 16 bits in the place of ``node``. What is computed element by element, of wide operands too, is
        computed as it was and converted: no pass of its own goes over those operands."""
        (value,) = node.outputs
        wide = any(not self.plan.is_narrow(i) for i in self.plan.operands(node))
        self.editor.remove(node)
        self.removed[value] = node
        if (wide and self.editor.kind(node) is OpKind.ELEMENTWISE) or node.name in self.plan.saturated:
            made = self.editor.emit(node.op, node.inputs, node.attributes, node)
            if node.name in self.plan.saturated:
                made = self.editor.emit("Clip", (made,), {"min": -self.plan.largest}, node)
            self.twins[value] = self.editor.emit("Cast", (made,), {"to": self.narrow}, node)
            return
        operands = set(_narrowed(node, [*self.plan.operands(node), *self.plan.constants(node)]))
        inputs = [self._twin(i, node) if i in operands else i for i in node.inputs]
        self.twins[value] = self.editor.emit(node.op, inputs, node.attributes, node)

    def _read_narrow(self, node: Node) -> None:
        """Let a node whose results are no floats read what is narrow as it is, when that is all that it reads."""
        floats = self.plan.operands(node)
        if floats and all(map(self.plan.is_narrow, floats)) and not self.plan.constants(node):
            self.editor.update(node, inputs=tuple(self._twin(i, node) if i in floats else i for i in node.inputs))

    def _twin(self, value: str, at: Node) -> str:
        """``value`` in 16 bits, converted where there is no such value yet."""
        if value not in self.twins:
            array = self.editor.constant(value)
            if array is None:
                self.twins[value] = self.editor.emit("Cast", (value,), {"to": self.narrow}, at)
            else:
                self.twins[value] = self.editor.add_constant(array.astype(self.narrow.numpy), value)
        return self.twins[value]


def _undo_widening(editor: Editor, node: Node) -> bool:
    """A number of 16 bits that was widened and is made narrow again is itself."""
    wide = editor.producer(node.inputs[0], "Cast")
    if wide is None or editor.is_output(node.outputs[0]):
        return False
    first, between, last = (editor.type(v).dtype for v in (wide.inputs[0], node.inputs[0], node.outputs[0]))
    if not first.is_half or first is not last or between is not _WIDE:
        return False
    editor.replace(node, wide.inputs[0])
    return True
