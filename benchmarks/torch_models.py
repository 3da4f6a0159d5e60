"""The models' networks in plain torch, to compare with: the same layers and shapes as the ONNX files, other weights.

Nothing but torch is needed. Modules take the inputs of the ONNX models in order. Where torch has a quicker way to say
the same, it is taken: fused attention, causal attention instead of a mask that is computed, padding inside of
convolutions. Normalisations stay where the ONNX files have them, and are part of the convolutions where those are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

CLASSES = 1000


# Image networks: an image [N, 3, 224, 224] to probabilities [N, 1000], or logits


class Fire(nn.Module):
    """Iandola et al., arXiv:1602.07360."""

    def __init__(self, channels: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.small = nn.Conv2d(squeezed, expanded, 1)
        self.large = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.squeeze(x))
        return torch.cat([torch.relu(self.small(x)), torch.relu(self.large(x))], 1)


def squeezenet() -> nn.Module:
    """SqueezeNet 1.1."""
    sizes = ((64, 16, 64), (128, 16, 64), None, (128, 32, 128), (256, 32, 128), None,
        (256, 48, 192), (384, 48, 192), (384, 64, 256), (512, 64, 256))  # fmt: skip
    fires = [nn.MaxPool2d(3, 2) if size is None else Fire(*size) for size in sizes]
    first = [nn.Conv2d(3, 64, 3, 2), nn.ReLU(), nn.MaxPool2d(3, 2)]
    last = [nn.Conv2d(512, CLASSES, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Softmax(1)]
    return nn.Sequential(*first, *fires, *last)


def vgg19() -> nn.Module:
    """Simonyan and Zisserman, arXiv:1409.1556, configuration E."""
    layers: list[nn.Module] = []
    channels = 3
    for width, depth in ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)):
        for _ in range(depth):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2, 2))
    layers += [nn.Flatten(), nn.Linear(512 * 7 * 7, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(4096, CLASSES), nn.Softmax(1))


def _normalised(channels: int, width: int, kernel: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(channels, width, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width))


class Bottleneck(nn.Module):
    """He et al., arXiv:1512.03385, with the stride in the 3x3 convolution."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.reduce = _normalised(channels, width, 1)
        self.convolve = _normalised(width, width, 3, stride)
        self.expand = _normalised(width, 4 * width, 1)
        self.shortcut = _normalised(channels, 4 * width, 1, stride) if channels != 4 * width else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.convolve(torch.relu(self.reduce(x))))
        return torch.relu(self.expand(y) + self.shortcut(x))


def resnet50() -> nn.Module:
    """ResNet-50."""
    layers: list[nn.Module] = [*_normalised(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for width, depth in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for number in range(depth):
            layers.append(Bottleneck(channels, width, 2 if number == 0 and width > 64 else 1))
            channels = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES), nn.Softmax(1))


class InvertedResidual(nn.Module):
    """Sandler et al., arXiv:1801.04381, with the normalisations inside of the convolutions."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        wide = 6 * channels
        self.expand = nn.Conv2d(channels, wide, 1)
        self.convolve = nn.Conv2d(wide, wide, 3, stride, 1, groups=wide)
        self.reduce = nn.Conv2d(wide, width, 1)
        self.adds = stride == 1 and channels == width

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu6(self.convolve(functional.relu6(self.expand(x))))
        y = self.reduce(y)
        return x + y if self.adds else y


def mobilenet_v2() -> nn.Module:
    """MobileNetV2 of width 1."""
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU6(), nn.Conv2d(32, 32, 3, 1, 1, groups=32), nn.ReLU6()]
    layers.append(nn.Conv2d(32, 16, 1))
    channels = 16
    for width, depth, stride in ((24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1)):
        for number in range(depth):
            layers.append(InvertedResidual(channels, width, 1 if number else stride))
            channels = width
    last = [nn.Conv2d(channels, 1280, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, *last, nn.Linear(1280, CLASSES))


# Transformers


class Attention(nn.Module):
    """Vaswani et al., arXiv:1706.03762, of x [N, S, width]; ``joined`` is one product for queries, keys and values."""

    def __init__(self, width: int, heads: int, joined: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.inputs = nn.ModuleList(
            [nn.Linear(width, 3 * width)] if joined else [nn.Linear(width, width) for _ in "qkv"]
        )
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        """``mask`` [N, 1, 1, S] says what may be looked at."""
        made = [layer(x) for layer in self.inputs]
        parts = made if len(made) == 3 else made[0].chunk(3, -1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        return self.output(y.transpose(1, 2).flatten(2))


def _feed_forward(width: int, approximate: str = "none") -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate), nn.Linear(4 * width, width))


class EncoderLayer(nn.Module):
    """A layer that normalises behind its halves."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.attention_norm = nn.LayerNorm(width, 1e-12)
        self.feed_forward = _feed_forward(width)
        self.output_norm = nn.LayerNorm(width, 1e-12)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.attention_norm(x + self.attention(x, mask))
        return self.output_norm(x + self.feed_forward(x))


class Bert(nn.Module):
    """Devlin et al., arXiv:1810.04805: tokens [N, S] and a mask of them to [N, S, width]."""

    def __init__(self, layers: int, width: int, heads: int) -> None:
        super().__init__()
        self.words = nn.Embedding(30522, width)
        self.positions = nn.Embedding(512, width)
        self.types = nn.Embedding(2, width)
        self.norm = nn.LayerNorm(width, 1e-12)
        self.layers = nn.ModuleList([EncoderLayer(width, heads) for _ in range(layers)])

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        x = self.words(tokens) + self.types.weight[0] + self.positions.weight[: tokens.shape[1]]
        x = self.norm(x)
        seen = mask.bool()[:, None, None, :]
        for layer in self.layers:
            x = layer(x, seen)
        return x


class Block(nn.Module):
    """A layer that normalises ahead of its halves."""

    def __init__(self, width: int, heads: int, epsilon: float, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        self.attention_norm = nn.LayerNorm(width, epsilon)
        self.attention = Attention(width, heads, joined=causal)
        self.forward_norm = nn.LayerNorm(width, epsilon)
        self.feed_forward = _feed_forward(width, "tanh" if causal else "none")

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x), causal=self.causal)
        return x + self.feed_forward(self.forward_norm(x))


class VisionTransformer(nn.Module):
    """Dosovitskiy et al., arXiv:2010.11929: an image [N, 3, 224, 224] to [N, 197, width]."""

    def __init__(self, layers: int, width: int, heads: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 16, 16)
        self.first = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, 14 * 14 + 1, width))
        self.layers = nn.Sequential(*[Block(width, heads, 1e-12, causal=False) for _ in range(layers)])
        self.norm = nn.LayerNorm(width, 1e-12)

    def forward(self, image: Tensor) -> Tensor:
        x = self.patches(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(len(x), -1, -1), x], 1) + self.positions
        return self.norm(self.layers(x))


class Gpt2(nn.Module):
    """Radford et al., 2019: tokens [N, S] to logits [N, S, 50257]. The mask is not looked at: all tokens count."""

    def __init__(self, layers: int, width: int, heads: int) -> None:
        super().__init__()
        self.words = nn.Embedding(50257, width)
        self.positions = nn.Embedding(1024, width)
        self.layers = nn.Sequential(*[Block(width, heads, 1e-5, causal=True) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 50257, bias=False)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        x = self.words(tokens) + self.positions.weight[: tokens.shape[1]]
        return self.head(self.norm(self.layers(x)))


MODELS: Mapping[str, Callable[[], nn.Module]] = {
    "squeezenet": squeezenet,
    "resnet50": resnet50,
    "vgg19": vgg19,
    "mobilenet_v2": mobilenet_v2,
    "minilm_l6_s128": lambda: Bert(6, 384, 12),
    "bert_base_s128": lambda: Bert(12, 768, 12),
    "vit_b16": lambda: VisionTransformer(12, 768, 12),
    "gpt2_s64": lambda: Gpt2(12, 768, 12),
}
"""How each network is made, by the name of its ONNX file."""


def weight_count(module: nn.Module) -> int:
    """Numbers that a network has learned, the statistics of normalisations included."""
    tensors = [*module.parameters(), *(b for b in module.buffers() if b.is_floating_point())]
    return sum(t.numel() for t in tensors)


def as_tensors(arrays: Sequence[Any], dtype: torch.dtype, device: str) -> list[Tensor]:
    """Numpy arrays on a device, those of floats in ``dtype``."""
    tensors = [torch.from_numpy(a).to(device) for a in arrays]
    return [t.to(dtype) if t.is_floating_point() else t for t in tensors]
