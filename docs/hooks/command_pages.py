"""Reference of the ``polycomp`` command, from the commands themselves."""

from __future__ import annotations

import inspect
import re

import click

from polycomp.cli import cli, tune_report


def commands() -> str:
    """All commands: usage, help, and a table of options."""
    context = click.Context(cli, info_name="polycomp")
    parts = []
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        parts.append(_command(command, click.Context(command, info_name=name, parent=context)))
        if name == "tune":
            inner = click.Context(tune_report.command, info_name="tune report", parent=context)
            parts.append(_command(tune_report.command, inner))
    return "\n\n".join(parts)


def _command(command: click.Command, context: click.Context) -> str:
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    text = inspect.cleandoc(command.help or "").replace("\b\n", "")
    options = [p for p in command.get_params(context) if isinstance(p, click.Option) and p.name != "help"]
    table = "\n".join(["| option | what it does |", "|---|---|", *(_row(o, context) for o in options)])
    return f"## polycomp {context.info_name}\n\n```text\n{usage}\n```\n\n{text}\n\n{table}"


def _row(option: click.Option, context: click.Context) -> str:
    record = option.get_help_record(context)
    assert record is not None
    name, meaning = record[0].replace("INTEGER RANGE", "N"), re.sub(r"  \[x[<>]=?\d+\]", "", record[1])
    return f"| `{_cell(name)}` | {_cell(meaning)} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")
