"""The CPUs that a target may name are those that LLVM knows: it would ignore others."""

from __future__ import annotations

import pytest

import polycomp.target
from polycomp.codegen.llvm import machine
from polycomp.errors import TargetError
from polycomp.target import parse_target


@pytest.mark.parametrize("cpu", polycomp.target._AARCH64_CPUS)
def test_llvm_knows_the_cpu(cpu: str, capfd: pytest.CaptureFixture[str]) -> None:
    machine._target_machine(parse_target(f"aarch64-linux-gnu,cpu={cpu}"))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "text", ["aarch64-linux-gnu,cpu=cortex-a999", "aarch64-linux-gnu,features=neon", "x86_64,cpu=k6"]
)
def test_what_would_be_ignored_is_refused(text: str) -> None:
    with pytest.raises(TargetError, match="is unknown"):
        parse_target(text)
