"""Options of the test suite, and what its tests tell when it has run."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all-conformance", action="store_true", help="run all conformance cases, not a sample")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests recorded as the property ``told``; reports bring it from wherever a test ran."""
    reports = [r for kind in ("passed", "failed") for r in terminalreporter.getreports(kind)]
    for text in [value for report in reports for name, value in report.user_properties if name == "told"]:
        terminalreporter.write_line(str(text))
