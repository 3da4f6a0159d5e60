"""Element-wise operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from polycomp.errors import ModelError
from polycomp.importers.onnx.builder import Value
from polycomp.importers.onnx.known import is_symbolic
from polycomp.importers.onnx.site import Handler, Site
from polycomp.importers.onnx.tensors import dtype_of

_SAME = (
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Cos", "Cosh", "Erf", "Exp", "Floor", "Log",
    "Neg", "Not", "BitwiseNot", "Reciprocal", "Relu", "Round", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus",
    "Softsign", "Sqrt", "Tan", "Tanh", "HardSwish", "Mish", "IsNaN", "Add", "Sub", "Mul", "Div", "Pow", "PRelu",
    "And", "Or", "Xor", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Equal", "Less", "LessOrEqual", "Greater",
    "GreaterOrEqual", "Max", "Min", "Sum", "Mean", "Where",
)  # fmt: skip

_SELU_ALPHA, _SELU_GAMMA = 1.6732631921768188, 1.0507010221481323
_DEFAULTS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "LeakyRelu": {"alpha": 0.01},
        "Elu": {"alpha": 1.0},
        "Selu": {"alpha": _SELU_ALPHA, "gamma": _SELU_GAMMA},
        "Celu": {"alpha": 1.0},
        "ThresholdedRelu": {"alpha": 1.0},
        "HardSigmoid": {"alpha": 0.2, "beta": 0.5},
        "Shrink": {"lambd": 0.5, "bias": 0.0},
        "Swish": {"alpha": 1.0},
    }
)
"""Operators with float attributes, which are canonical attributes of the same names."""


def _same(site: Site) -> Sequence[Value]:
    return [site.emit(site.op, *site.inputs)]


def _with_numbers(site: Site) -> Sequence[Value]:
    numbers = {name: site.number(name, default) for name, default in _DEFAULTS[site.op].items()}
    return [site.emit(site.op, site.input(), **numbers)]


def _power(site: Site) -> Sequence[Value]:
    base, exponent = site.input(0), site.input(1)
    if exponent.dtype is base.dtype:
        return [site.emit("Pow", base, exponent)]
    if exponent.known is not None and not is_symbolic(exponent.known):
        return [site.emit("Pow", base, site.known(exponent.known.astype(base.dtype.numpy), base.dtype))]
    if base.dtype.is_integer and exponent.dtype.is_float:  # ONNX: compute in the wider type, then back
        return [site.cast(site.emit("Pow", site.cast(base, exponent.dtype), exponent), base.dtype)]
    return [site.emit("Pow", base, site.cast(exponent, base.dtype))]


def _clip(site: Site) -> Sequence[Value]:
    """Opset 11 turned the limits from attributes into inputs."""
    x = site.input()
    if site.opset < 11:
        limits = {n: site.number(n) if site.given(n) else None for n in ("min", "max")}
        return [site.emit("Clip", x, **limits)]
    low, high = site.optional(1), site.optional(2)
    if _is_number(low) and _is_number(high):
        return [site.emit("Clip", x, min=_number(site, low), max=_number(site, high))]
    return [site.emit("ClipTensor", x, low, high)]


def _is_number(value: Value | None) -> bool:
    return value is None or (value.known is not None and not is_symbolic(value.known))


def _number(site: Site, value: Value | None) -> float | int | None:
    if value is None or value.known is None:
        return None
    if value.known.size != 1:
        raise ModelError(f"{site.where} has a limit that is not a scalar")
    number: float | int = value.known.reshape(-1)[0].item()
    return number


def _cast(site: Site) -> Sequence[Value]:
    return [site.cast(site.input(), dtype_of(site.integer("to"), site.where))]


def _cast_like(site: Site) -> Sequence[Value]:
    return [site.cast(site.input(), site.input(1).dtype)]


def _identity(site: Site) -> Sequence[Value]:
    return [site.input()]


def _dropout(site: Site) -> Sequence[Value]:
    """The identity, as in inference. The mask output, where a model asks for it, keeps every element."""
    training = site.array(2) if site.opset >= 12 else None
    if training is not None and training.any():
        raise site.unsupported("it is in training mode; export the model for inference")
    x = site.input()
    if len(site.proto.output) < 2:
        return [x]
    mask = site.emit("Equal", x, x) if site.opset >= 10 else site.emit("Div", x, x)
    return [x, mask]


def _mod(site: Site) -> Sequence[Value]:
    return [site.emit("Mod", site.input(0), site.input(1), fmod=site.integer("fmod", 0))]


def _bit_shift(site: Site) -> Sequence[Value]:
    direction = site.choice("direction", "", ("LEFT", "RIGHT"))
    return [site.emit("BitShift", site.input(0), site.input(1), direction=direction)]


def _is_inf(site: Site) -> Sequence[Value]:
    both = {n: site.integer(n, 1) for n in ("detect_negative", "detect_positive")}
    return [site.emit("IsInf", site.input(), **both)]


def _gelu(site: Site) -> Sequence[Value]:
    return [site.emit("Gelu", site.input(), approximate=site.choice("approximate", "none", ("none", "tanh")))]


HANDLERS: Mapping[str, Handler] = MappingProxyType(
    {
        **dict.fromkeys(_SAME, _same),
        **dict.fromkeys(_DEFAULTS, _with_numbers),
        "Pow": _power,
        "Clip": _clip,
        "Cast": _cast,
        "CastLike": _cast_like,
        "Identity": _identity,
        "Dropout": _dropout,
        "Mod": _mod,
        "BitShift": _bit_shift,
        "IsInf": _is_inf,
        "Gelu": _gelu,
    }
)
