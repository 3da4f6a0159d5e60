"""Lets the tests of this folder import its helpers, and those of the importer's tests."""

from __future__ import annotations

import pathlib
import sys

for folder in (pathlib.Path(__file__).parent, pathlib.Path(__file__).parent.parent / "importers"):
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
