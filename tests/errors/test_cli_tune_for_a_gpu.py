"""``tune`` for a GPU."""

from __future__ import annotations

import pytest
from mistakes import command


def test_cli_tune_for_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    status, words = command(capsys, "tune", "model.onnx", "--target", "cuda")
    assert status == 1
    message = (
        "polycomp: error: schedules are measured where they are searched, on CPUs, so there is no tuning for 'cuda' "
        "yet; 'polycomp compile --target cuda' uses the library's own schedules\n"
    )
    assert words == message
