"""Reference of the ``polycomp`` command, from the commands themselves."""

from __future__ import annotations

import inspect

import click

from polycomp.cli import cli


def commands() -> str:
    """All commands: usage, help, and a table of options."""
    context = click.Context(cli, info_name="polycomp")
    parts = []
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        parts.append(_command(command, click.Context(command, info_name=name, parent=context)))
    return "\n\n".join(parts)


def _command(command: click.Command, context: click.Context) -> str:
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    text = inspect.cleandoc(command.help or "").replace("\b\n", "")
    rows = [_row(p, context) for p in command.get_params(context) if isinstance(p, click.Option)]
    table = "\n".join(["| option | what it does |", "|---|---|", *rows])
    return f"## polycomp {context.info_name}\n\n```text\n{usage}\n```\n\n{text}\n\n{table}"


def _row(option: click.Option, context: click.Context) -> str:
    record = option.get_help_record(context)
    assert record is not None
    return f"| `{_cell(record[0])}` | {_cell(record[1])} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")
