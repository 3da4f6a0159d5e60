"""What ``make demo`` shows: SqueezeNet from an ONNX file to answers, with the commands that a user would type."""

from __future__ import annotations

import importlib.util
import pathlib
import shlex
import subprocess
import sys

import onnx
from light_models import light_model

_FOLDER = pathlib.Path("build/demo")


def main() -> int:
    _FOLDER.mkdir(parents=True, exist_ok=True)
    onnx.save(light_model("squeezenet"), _FOLDER / "squeezenet.onnx")
    print(f"SqueezeNet (the onnx package's graph, random weights of a fixed seed) is in {_FOLDER}/squeezenet.onnx\n")
    against = ["--against", "onnxruntime"] if importlib.util.find_spec("onnxruntime") else []
    return (
        _polycomp("compile", f"{_FOLDER}/squeezenet.onnx", "-o", f"{_FOLDER}/squeezenet.pcm")
        or _polycomp("run", f"{_FOLDER}/squeezenet.pcm", "--top", "5")
        or _polycomp("bench", f"{_FOLDER}/squeezenet.onnx", *against)
    )


def _polycomp(*arguments: str) -> int:
    print(f"$ polycomp {shlex.join(arguments)}", flush=True)
    status = subprocess.run([sys.executable, "-m", "polycomp", *arguments], check=False).returncode
    print(flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
