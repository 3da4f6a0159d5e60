"""Damaged model files end in a PolycompError or in a graph, never in another exception."""

from __future__ import annotations

import pathlib
import random
from collections.abc import Iterator
from typing import Any

import onnx
import pytest
from google.protobuf.message import Message

from polycomp.errors import PolycompError
from polycomp.graph import Graph
from polycomp.importers.onnx import import_onnx
from polycomp.options import Options

DATA = pathlib.Path(onnx.__file__).parent / "backend/test/data"
SMALL = sorted(p for p in DATA.rglob("model.onnx") if p.stat().st_size < 3000)
LIGHT = [DATA / "light" / f"light_{n}.onnx" for n in ("squeezenet", "zfnet512", "inception_v1")]
MUTATIONS = 2400


def _mutated(data: bytes, random_: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(random_.choice((1, 1, 2, 4, 16))):
        position = random_.randrange(len(changed))
        what = random_.randrange(5)
        if what == 0:
            changed[position] = random_.randrange(256)
        elif what == 1:
            changed[position] ^= 1 << random_.randrange(8)
        elif what == 2:
            del changed[position : position + random_.randrange(1, 9)]
        elif what == 3:
            changed[position:position] = random_.randbytes(random_.randrange(1, 9))
        else:
            other = random_.randrange(len(changed))
            changed[position : position + 4] = changed[other : other + 4]
        if not changed:
            return b""
    return bytes(changed)


def _readable(path: pathlib.Path) -> bytes:
    """The model, of an opset that is imported: the old models differ in nothing that matters here."""
    model = onnx.load(path)
    if model.opset_import[0].version < 7:
        model.opset_import[0].version = 9
    return model.SerializeToString()


def _leaves(message: Message) -> Iterator[tuple[Message, Any, int]]:
    """Every scalar in a message: its owner, field and position (-1 where the field is not repeated)."""
    for field, value in message.ListFields():
        repeated = field.is_repeated
        for position, item in enumerate(value) if repeated else [(-1, value)]:
            if field.type == field.TYPE_MESSAGE:
                yield from _leaves(item)
            else:
                yield message, field, position


NUMBERS = (-(2**63), -(2**31), -2, -1, 0, 1, 2, 3, 5, 7, 64, 2**31, 2**40, 2**62, 2**63 - 1)


def _with_other_fields(data: bytes, random_: random.Random) -> bytes:
    """The model with a few numbers and names of its fields changed or taken out."""
    model = onnx.ModelProto.FromString(data)
    for _ in range(random_.choice((1, 1, 2, 3))):
        leaves = list(_leaves(model))
        owner, field, position = random_.choice(leaves)
        value = _other_value(field, leaves, random_)
        if position < 0:
            owner.ClearField(field.name) if value is None else setattr(owner, field.name, value)
        elif value is None:
            del getattr(owner, field.name)[position]
        else:
            getattr(owner, field.name)[position] = value
    return model.SerializeToString()


def _other_value(field: Any, leaves: list[tuple[Message, Any, int]], random_: random.Random) -> Any:
    """A value for ``field``, most often one from elsewhere in the model; None to take it out."""
    if random_.random() < 0.2:
        return None
    if field.type in (field.TYPE_STRING, field.TYPE_BYTES):
        owner, other, position = random_.choice([x for x in leaves if x[1].type == field.type])
        return getattr(owner, other.name) if position < 0 else getattr(owner, other.name)[position]
    if field.type == field.TYPE_ENUM:
        return random_.choice([v.number for v in field.enum_type.values])
    number = random_.choice(NUMBERS)
    small = {field.TYPE_INT32: 2**31 - 1, field.TYPE_UINT64: 2**64 - 1}.get(field.type, 2**63 - 1)
    if field.type in (field.TYPE_FLOAT, field.TYPE_DOUBLE):
        return random_.choice((0.0, -1.0, float("nan"), float("inf"), 1e-30, 3.5))
    return max(0 if field.type == field.TYPE_UINT64 else -small - 1, min(number, small))


def _cases() -> Iterator[bytes]:
    random_ = random.Random(7)
    models = [_readable(p) for p in [*random_.sample(SMALL, 80), *LIGHT]]
    for number in range(MUTATIONS):
        data = models[number % len(models)]
        if number % 10 == 9:
            yield data[: random_.randrange(len(data))]
        else:
            yield (_mutated if number % 2 else _with_other_fields)(data, random_)


def test_damaged_files_never_crash() -> None:
    options = Options()
    imported = 0
    for number, data in enumerate(_cases()):
        try:
            graph = import_onnx(data, options)
        except PolycompError as error:
            assert str(error), f"case {number} has no message"
            continue
        except Exception as error:  # noqa: BLE001  (whatever it is, it is the failure that is looked for)
            pytest.fail(f"case {number} raised {type(error).__name__}: {error}")
        assert isinstance(graph, Graph)
        imported += 1
    assert 0 < imported < MUTATIONS
