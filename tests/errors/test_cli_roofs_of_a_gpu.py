"""A page of roofs for a GPU."""

from __future__ import annotations

import pytest
from mistakes import command


def test_cli_roofs_of_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    status, words = command(capsys, "bench", "model.onnx", "--target", "cuda", "--html", "roofline.html")
    assert status == 2
    message = (
        "polycomp: error: --html shows kernels under the roofs of this machine's CPU, not of a GPU; leave it out (try "
        "'polycomp bench --help')\n"
    )
    assert words == message
