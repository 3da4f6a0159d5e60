"""Lets the tests of this folder import its helpers, those of the conformance tests, and what fills light models."""

from __future__ import annotations

import pathlib
import sys

_TESTS = pathlib.Path(__file__).parent.parent

for folder in (_TESTS / "cuda", _TESTS / "conformance", _TESTS.parent / "benchmarks"):
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
