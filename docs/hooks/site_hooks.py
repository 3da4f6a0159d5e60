"""What mkdocs calls while it builds the site: lines ``{{ name argument }}`` become text made from the code itself.

A page keeps its own words and says where generated text goes; text that the code knows better (signatures, options,
messages, tables of operators) is never written twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import command_pages
import error_pages
import example_pages
import function_pages
import operator_pages
import python_pages
from mkdocs.exceptions import PluginError

GENERATORS: Mapping[str, Callable[..., str]] = MappingProxyType(
    {
        "commands": command_pages.commands,
        "examples": example_pages.examples,
        "mistakes": error_pages.mistakes,
        "error_classes": error_pages.error_classes,
        "onnx_operators": operator_pages.onnx_operators,
        "canonical_operators": operator_pages.canonical_operators,
        "module": python_pages.module_text,
        "class": python_pages.class_text,
        "members": python_pages.members_text,
        "summary": python_pages.summary_text,
        "fields": python_pages.fields_text,
        "functions": function_pages.functions,
        "numpy_functions": function_pages.numpy_functions,
        "function": python_pages.function_text,
    }
)

_DIRECTIVE = re.compile(r"^\{\{ (\w+)((?: [\w.:]+)*) \}\}$", re.MULTILINE)


_FOREIGN = re.compile(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=\"(https?://[^\"]+)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """mkdocs' hook: the page's Markdown with all directives expanded."""

    def expand(match: re.Match[str]) -> str:
        if match[1] not in GENERATORS:
            raise PluginError(f"{page.file.src_uri}: nothing is called {match[1]!r}; there are {', '.join(GENERATORS)}")
        return GENERATORS[match[1]](*match[2].split())

    return _DIRECTIVE.sub(expand, markdown)


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """mkdocs' hook: raises when a page needs something from the network."""
    foreign = _FOREIGN.search(output)
    if foreign:
        raise PluginError(f"{page.file.src_uri}: the page loads {foreign[1]} from the network")
    return output
