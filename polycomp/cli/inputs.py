"""Inputs for a run: from files, or random ones."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from polycomp.errors import InputError
from polycomp.runtime import TensorSpec

Array = np.ndarray[Any, Any]


def random_inputs(
    specs: Sequence[TensorSpec],
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    seed: int = 0,
    distinct: bool = False,
) -> dict[str, Array]:
    """An array for each input, the same for the same seed: floats are standard normal, integers and bools 0 or 1 (which
    suits masks, token numbers and class numbers alike).

    Sizes that are bound at run time come from ``shapes`` by input. Where it says nothing they are 1, or, when
    ``distinct``, 2 for the first that is open, 3 for the next, and so on.
    Raises InputError for a shape of the wrong rank or for an unknown input.
    """
    given = dict(shapes or {})
    unknown = sorted(set(given) - {spec.name for spec in specs})
    if unknown:
        raise InputError(f"there is no input {unknown[0]!r}; inputs: {', '.join(map(repr, specs))}")
    sizes = (_distinct_sizes(specs) if distinct else {}) | _symbol_sizes(specs, given)
    random = np.random.default_rng(seed)
    return {spec.name: _random(_shape(spec, given, sizes), spec.dtype, random) for spec in specs}


def read_array(path: pathlib.Path) -> Array:
    """The array in a ``.npy`` file. Raises InputError when it holds none."""
    try:
        array = np.load(path, allow_pickle=False)
    except OSError as error:
        raise InputError(f"cannot read {str(path)!r}: {error.strerror or error}") from None
    except (ValueError, EOFError):
        raise InputError(f"{str(path)!r} is not a .npy file of numbers; write one with numpy.save") from None
    if not isinstance(array, np.ndarray):
        raise InputError(f"{str(path)!r} holds several arrays; give one .npy file per input")
    return array


def _distinct_sizes(specs: Sequence[TensorSpec]) -> dict[str, int]:
    names = dict.fromkeys(dim for spec in specs for dim in spec.shape if isinstance(dim, str))
    return {name: 2 + place for place, name in enumerate(names)}


def _symbol_sizes(specs: Sequence[TensorSpec], given: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """The size of each symbol that some given shape decides."""
    sizes: dict[str, int] = {}
    for spec in specs:
        shape = given.get(spec.name)
        if shape is None:
            continue
        if len(shape) != len(spec.shape):
            raise InputError(f"input {spec!r} has {len(spec.shape)} dimensions, but the shape given has {len(shape)}")
        sizes |= {dim: size for dim, size in zip(spec.shape, shape, strict=True) if isinstance(dim, str)}
    return sizes


def _shape(spec: TensorSpec, given: Mapping[str, tuple[int, ...]], sizes: Mapping[str, int]) -> tuple[int, ...]:
    if spec.name in given:
        return given[spec.name]
    return tuple(sizes.get(d, 1) if isinstance(d, str) else d for d in spec.shape)


def _random(shape: tuple[int, ...], dtype: str, random: np.random.Generator) -> Array:
    if dtype.startswith("float"):
        return random.standard_normal(shape).astype(dtype)
    return random.integers(0, 2, shape).astype(dtype)
