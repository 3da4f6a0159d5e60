"""How many vectors a core multiplies and adds per cycle: by its kind, and only of vectors as wide as its registers."""

from __future__ import annotations

import dataclasses

import pytest

from polycomp.target import fma_units, host_target, parse_target


def cpu(vendor: str, family: int, model: int) -> dict[str, str]:
    return {"vendor_id": vendor, "cpu family": str(family), "model": str(model), "flags": "avx2"}


@pytest.mark.parametrize(
    ("kind", "units"),
    [
        (cpu("AuthenticAMD", 25, 17), 1),  # Zen 4
        (cpu("AuthenticAMD", 26, 2), 2),  # Zen 5
        (cpu("GenuineIntel", 6, 0x8C), 1),  # Tiger Lake
        (cpu("GenuineIntel", 6, 0x6A), 2),  # Ice Lake, a server
        (cpu("Unheard Of", 1, 1), 2),
        ({"vendor_id": "AuthenticAMD", "cpu family": "?", "model": "17"}, 2),
        ({"CPU implementer": "0x41"}, 2),
        ({}, 2),
    ],
)
def test_vectors_of_512_bits(kind: dict[str, str], units: int) -> None:
    assert fma_units(kind, 64) == units
    assert fma_units(kind, 32) == 2


def test_targets_without_such_vectors_have_two_on_any_machine() -> None:
    for text in ("x86_64-linux-gnu", "x86_64-linux-gnu,features=sse4.1", "aarch64-linux-gnu"):
        assert parse_target(text).fma_units == 2


def test_kernels_are_shared_and_modules_are_not() -> None:
    """Passes look at the number, schedules do not: a tuning log's kernels are those of both targets."""
    one, two = (dataclasses.replace(host_target(), fma_units=n) for n in (1, 2))
    assert one.key == two.key
    assert one.module_key != two.module_key
