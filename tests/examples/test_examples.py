"""Every example runs at a small size; each checks its own results against numpy."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"

SMALL = {
    "matmul": ["--size", "96", "--rounds", "1"],
    "softmax": ["--rows", "8", "--columns", "100", "--rounds", "1"],
    "blur": ["--size", "70", "--rounds", "1"],
    "stencil": ["--size", "20000", "--steps", "4", "--rounds", "1"],
    "winograd": ["--size", "8", "--channels", "16", "--filters", "32", "--rounds", "1"],
    "attention": ["--heads", "1", "--length", "384", "--width", "32", "--rounds", "1"],
    "any_size": ["--inner", "24", "--columns", "40", "--rounds", "1"],
}


@pytest.mark.parametrize("name", SMALL)
def test_example(name: str) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), *SMALL[name]], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_every_example_is_tried() -> None:
    assert {p.stem for p in EXAMPLES.glob("*.py")} - {"timing"} == set(SMALL)
