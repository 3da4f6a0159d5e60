"""The choice of layout: convolutions and what lies between them on channel-blocked (NCHWc) tensors.

NCHWc keeps one vector register's worth of channels innermost (Liu et al., "Optimizing CNN Model Inference on CPUs",
USENIX ATC 2019). Convolutions choose it; element-wise operators, pools and concatenations follow; conversions are
put at the borders, once per value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from polycomp.dtypes import DType, as_dtype
from polycomp.expr import Expr
from polycomp.graph import Graph, Node, OpKind
from polycomp.ops.blocked import fills_blocks
from polycomp.ops.integer import WORD
from polycomp.options import Options
from polycomp.passes.filtering import Layer, filtering_tile, filtering_tiles
from polycomp.passes.integers import correction, turned_over, turned_over_number, turns_over
from polycomp.passes.rewrite import Array, Editor
from polycomp.passes.sites import Sites

_FEW_CHANNELS = 4
"""Up to here (the image) a convolution reads its input plain: blocks would be mostly padding."""

_GPU_BLOCK = 8

_DIRECT = "direct"

_FLOATS = (DType.FLOAT32, DType.FLOAT16, DType.BFLOAT16)
_TYPES = (*_FLOATS, DType.INT32, DType.INT8, DType.UINT8)
"""Element types of blocked tensors."""


def block_size(options: Options) -> int:
    """Channels in a block: the float32 lanes of one vector register; on a GPU, those of 16 bits that a thread loads."""
    return _GPU_BLOCK if options.target.is_gpu else options.target.lanes(4)


def choose_layout(graph: Graph, options: Options) -> Graph:
    """Rewrite float32 and float16 2-D convolutions and their neighbours to blocked operators."""
    return _Blocking(graph, options).run()


class _Blocking:
    """``blocked`` has the blocked twin of each plain value that has one; ``lazily`` those without a plain form yet."""

    def __init__(self, graph: Graph, options: Options) -> None:
        self.editor = Editor(graph)
        self.target = options.target
        self.sites = Sites(options)
        self.block = block_size(options)
        self.blocked: dict[str, str] = {}
        self.lazily: dict[str, Node] = {}

    def run(self) -> Graph:
        for node in self.editor.nodes():
            twin = self._rewrite(node)
            if twin is not None:
                self._adopt(node, twin)
        for value, node in self.lazily.items():
            if self.editor.users(value) or self.editor.is_output(value):
                self._to_plain(value, node)
        return self.sites.note(self.editor.finish())

    def _rewrite(self, node: Node) -> str | None:
        """The blocked twin of the node's output; None leaves the node plain."""
        kind = self.editor.type(node.outputs[0])
        if kind.dtype not in _TYPES or kind.rank != 4 or not isinstance(kind.shape[1], int):
            return None
        handler = _HANDLERS.get(node.op)
        if handler is not None:
            return handler(self, node)
        if self.editor.kind(node) is OpKind.ELEMENTWISE and len(node.outputs) == 1:
            return _elementwise(self, node)
        return None

    def _adopt(self, node: Node, twin: str) -> None:
        self.editor.remove(node)
        self.blocked[node.outputs[0]] = twin
        self.lazily[node.outputs[0]] = node

    def emit(self, op: str, inputs: tuple[str, ...], at: Node, **changes: object) -> str:
        """Emit ``op`` with the attributes of ``at``, some changed."""
        return self.editor.emit(op, inputs, {**at.attributes, **changes}, at)

    def channels(self, value: str) -> int:
        channels = self.editor.shape(value)[1]
        assert isinstance(channels, int)
        return channels

    def to_blocked(self, value: str, at: Node) -> str:
        """The blocked twin of ``value``, converted where there is none yet."""
        twin = self.blocked.get(value)
        if twin is None:
            twin = self._convert(value, at)
            self.blocked[value] = twin
        return twin

    def _convert(self, value: str, at: Node) -> str:
        batch, channels, *spatial = self.editor.shape(value)
        if isinstance(channels, int) and channels % self.block == 0 and all(d == 1 for d in spatial):
            shape = (batch, channels // self.block, *spatial, self.block)
            return self.editor.emit("Reshape", (value,), {"shape": shape}, at)
        return self.editor.emit("ToBlocked", (value,), {"block": self.block}, at)

    def _to_plain(self, value: str, at: Node) -> None:
        twin, (batch, channels, *spatial) = self.blocked[value], self.editor.shape(value)
        if isinstance(channels, int) and channels % self.block == 0 and all(d == 1 for d in spatial):
            shape = (batch, channels, *spatial)
            self.editor.emit("Reshape", (twin,), {"shape": shape}, at, (value,))
        else:
            self.editor.emit("FromBlocked", (twin,), {"block": self.block, "channels": channels}, at, (value,))


def _convolution(blocking: _Blocking, node: Node) -> str | None:
    editor, block = blocking.editor, blocking.block
    x, weights = node.inputs[0], editor.constant(node.inputs[1])
    bias = node.inputs[2] if len(node.inputs) > 2 else ""
    shape = editor.shape(x)
    spatial_known = not any(isinstance(d, Expr) for d in shape[1:])
    if weights is None or (bias and bias not in editor.constants) or not spatial_known:
        return None
    channels, outputs, group = blocking.channels(x), weights.shape[0], node.attributes["group"]
    depthwise = group > 1 and group == channels == outputs
    if (group != 1 and not depthwise) or 2 * outputs < block:
        return None
    plain = channels <= _FEW_CHANNELS and x not in blocking.blocked and not depthwise
    source = x if plain else blocking.to_blocked(x, node)
    lines = editor.emit("PackChannels", (bias,), {"block": block}, node) if bias else ""
    common = {"block": block, "out_channels": outputs, "kernel_shape": tuple(weights.shape[2:])}
    tile = _filtering_tile(blocking, node, weights.shape)
    if tile is not None:
        packed = editor.emit("PackWinogradWeights", (node.inputs[1],), {"block": block, "tile": tile}, node)
        return blocking.emit("ConvWinograd", (source, packed, lines), node, tile=tile, **common)
    input_block = 0 if plain else block
    packing = {"block": block, "depthwise": depthwise}
    if not depthwise and fills_blocks(channels, input_block):
        packing["input_block"] = input_block
    packed = editor.emit("PackConvWeights", (node.inputs[1],), packing, node)
    more = {"input_block": input_block, "in_channels": channels}
    return blocking.emit("ConvBlocked", (source, packed, lines), node, **more, **common)


def _integer_convolution(blocking: _Blocking, node: Node) -> str | None:
    """On operands of the signs that the machine multiplies (``integers``), in words of channels: four for a CPU's
    instruction, on a GPU all that a block has, which its threads load at once."""
    editor, block = blocking.editor, blocking.block
    x, weights = node.inputs[0], editor.constant(node.inputs[1])
    if weights is None or len(node.inputs) > 2 or any(isinstance(d, Expr) for d in editor.shape(x)[1:]):
        return None
    channels, outputs, group = blocking.channels(x), weights.shape[0], node.attributes["group"]
    if 2 * outputs < block or group not in (1, channels) or (group != 1 and group != outputs):
        return None
    common = {"block": block, "out_channels": outputs, "kernel_shape": tuple(weights.shape[2:])}
    if group != 1:
        packed = editor.emit("PackConvWeights", (node.inputs[1],), {"block": block, "depthwise": True}, node)
        more = {"input_block": block, "in_channels": channels}
        return blocking.emit("ConvBlocked", (blocking.to_blocked(x, node), packed), node, **more, **common)
    input_block = WORD if channels <= WORD and x not in blocking.blocked else block
    source = blocking.to_blocked(x, node) if input_block == block else _words(blocking, x, node)
    fill, lines, kind = int(node.attributes.get("fill", 0)), "", editor.type(x).dtype
    if turns_over(kind, editor.type(node.inputs[1]).dtype, blocking.target):
        source, fill = turned_over(editor, source, node), turned_over_number(fill, kind)
        row = editor.add_constant(correction(weights, (1, 2, 3), kind), f"{node.name}.correction")
        lines = editor.emit("PackChannels", (row,), {"block": block}, node)
    words = {"input_block": input_block, "word": input_block if blocking.target.is_gpu else WORD}
    packed = editor.emit("PackConvInterleaved", (node.inputs[1],), {"block": block, **words}, node)
    changes = {"fill": fill, **words, **common}
    return blocking.emit("ConvIntegerBlocked", (source, packed, lines), node, **changes)


def _words(blocking: _Blocking, x: str, at: Node) -> str:
    """A few channels as the parts of one word."""
    return blocking.editor.emit("ToBlocked", (x,), {"block": WORD}, at)


def _filtering_tile(blocking: _Blocking, node: Node, weights: tuple[int, ...]) -> int | None:
    """The tiles by which to filter a convolution (``passes/filtering``); None leaves it direct. Tuning may choose."""
    if blocking.target.is_gpu:
        return None
    outputs, channels, *kernel = weights
    steps = {*node.attributes["strides"], *node.attributes["dilations"], node.attributes["group"]}
    if (
        blocking.editor.type(node.outputs[0]).dtype is not DType.FLOAT32
        or steps != {1}
        or kernel != kernel[:1] * 2
        or channels % blocking.block
    ):
        return None
    batch, _, height, width = blocking.editor.shape(node.outputs[0])
    layer = Layer(channels, outputs, kernel[0], int(height), int(width))  # type: ignore[arg-type]
    ways = {_DIRECT: None, **{f"F({t}x{t})": t for t in filtering_tiles(layer)}}
    own = filtering_tile(layer, blocking.target)
    problem = f"Conv of {batch}x{channels}x{height}x{width} to {outputs} by {kernel[0]}x{kernel[0]}"
    chosen = blocking.sites.decide(problem, "algorithm", next(w for w in ways if ways[w] == own), list(ways), node)
    return ways[chosen]


def _pool(blocking: _Blocking, node: Node) -> str | None:
    twin = blocking.blocked.get(node.inputs[0])
    return None if twin is None else blocking.emit(f"{node.op}Blocked", (twin,), node, block=blocking.block)


def _response(blocking: _Blocking, node: Node) -> str | None:
    """Local response normalisation, when a window spans no more than two blocks."""
    twin, block = blocking.blocked.get(node.inputs[0]), blocking.block
    if twin is None or node.attributes["size"] > block:
        return None
    return blocking.emit("LRNBlocked", (twin,), node, block=block, channels=blocking.channels(node.inputs[0]))


def _concatenation(blocking: _Blocking, node: Node) -> str | None:
    """Of channels, when every part fills whole blocks and one is blocked already; of other dimensions likewise."""
    axis = node.attributes["axis"]
    whole = all(blocking.channels(i) % blocking.block == 0 for i in node.inputs if axis == 1)
    if not whole or not any(i in blocking.blocked for i in node.inputs):
        return None
    parts = tuple(blocking.to_blocked(i, node) for i in node.inputs)
    return blocking.emit("Concat", parts, node)


def _spatial_pad(blocking: _Blocking, node: Node) -> str | None:
    twin, pads = blocking.blocked.get(node.inputs[0]), node.attributes["pads"]
    if twin is None or pads[1] or pads[5]:
        return None
    return blocking.emit("Pad", (twin, *node.inputs[1:]), node, pads=(*pads[:4], 0, *pads[4:], 0))


def _channel_slice(blocking: _Blocking, node: Node) -> str | None:
    """A slice that takes whole blocks of channels."""
    twin, block = blocking.blocked.get(node.inputs[0]), blocking.block
    starts, steps, sizes = (node.attributes[n] for n in ("starts", "steps", "sizes"))
    cut = (starts[1], sizes[1])
    if twin is None or any(s != 1 for s in steps) or any(isinstance(c, Expr) or c % block for c in cut):
        return None
    new = {"starts": (starts[0], cut[0] // block, *starts[2:], 0), "steps": (1,) * 5}
    return blocking.emit("Slice", (twin,), node, **new, sizes=(sizes[0], cut[1] // block, *sizes[2:], block))


def _resize(blocking: _Blocking, node: Node) -> str | None:
    twin, sizes, scales = blocking.blocked.get(node.inputs[0]), node.attributes["sizes"], node.attributes["scales"]
    channels = blocking.channels(node.inputs[0])
    if twin is None or sizes[1] != channels:
        return None
    inner = blocking.editor.shape(twin)
    new = {"sizes": (sizes[0], inner[1], *sizes[2:], blocking.block), "scales": (*scales, 1.0)}
    return blocking.emit("Resize", (twin,), node, **new)


def _elementwise(blocking: _Blocking, node: Node) -> str | None:
    """Follow when an operand is blocked and every other can be."""
    if not any(i in blocking.blocked for i in node.inputs):
        return None
    channels = blocking.channels(node.outputs[0])
    operands = [_operand(blocking, i, node, channels) for i in node.inputs]
    found = [o for o in operands if o is not None]
    return blocking.emit(node.op, tuple(found), node) if len(found) == len(operands) else None


def _operand(blocking: _Blocking, value: str, node: Node, channels: int) -> str | None:
    """``value`` so that it broadcasts against blocked tensors of ``channels``; None when it does not."""
    editor = blocking.editor
    if not value:
        return ""
    array = editor.constant(value)
    if array is not None:
        return _constant_operand(blocking, array, node, channels)
    kind = editor.type(value)
    if kind.dtype not in _TYPES or kind.rank != 4 or kind.shape[1] != channels:
        return None
    return blocking.to_blocked(value, node)


def _constant_operand(blocking: _Blocking, array: Array, node: Node, channels: int) -> str | None:
    if array.size == 1:
        return blocking.editor.add_constant(array.reshape(()), f"{node.name}.scalar")
    full = array.reshape((1,) * (4 - array.ndim) + array.shape) if array.ndim <= 4 else None
    if full is None or as_dtype(full.dtype) not in _TYPES:
        return None
    if full.shape[1] == 1:
        return blocking.editor.add_constant(full[..., np.newaxis], f"{node.name}.operand")
    if full.shape[1] != channels:
        return None
    blocks = -(-channels // blocking.block)
    padded = np.zeros((full.shape[0], blocks * blocking.block, *full.shape[2:]), full.dtype)
    padded[:, :channels] = full
    split = padded.reshape(full.shape[0], blocks, blocking.block, *full.shape[2:])
    return blocking.editor.add_constant(np.ascontiguousarray(np.moveaxis(split, 2, -1)), f"{node.name}.operand")


_HANDLERS: Mapping[str, Callable[[_Blocking, Node], str | None]] = MappingProxyType(
    {
        "Conv": _convolution,
        "ConvInteger": _integer_convolution,
        **dict.fromkeys(("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool"), _pool),
        "LRN": _response,
        "Concat": _concatenation,
        "Pad": _spatial_pad,
        "Slice": _channel_slice,
        "Resize": _resize,
    }
)
