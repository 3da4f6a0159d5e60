"""The ``polycomp`` command. Each subcommand is a module of its own, imported only when it is used."""

from __future__ import annotations

import contextlib
import difflib
import errno
import importlib
import io
import os
import pathlib
import sys
import warnings
from collections.abc import Sequence

import click

from polycomp import __version__
from polycomp.errors import PolycompError

_COMMANDS = {
    "compile": "Compile an ONNX model to a module file.",
    "run": "Run a module file.",
    "bench": "Measure how fast a model runs.",
    "check": "Compare every node of a model with the ONNX reference.",
    "tune": "Search for faster schedules by measuring them.",
    "inspect": "Show what is inside a model or a module file.",
    "targets": "Show what this machine and this install can compile for.",
    "cache": "Show or clear the cache of compiled kernels.",
}
_FAILED, _USAGE, _INTERRUPTED = 1, 2, 130


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"polycomp.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], _COMMANDS, 1)
            meant = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(_COMMANDS)}"
            raise click.UsageError(f"there is no command {args[0]!r}{meant}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, message="polycomp %(version)s")
def cli() -> None:
    """Compile deep learning models to small, fast modules, and run them.

    \b
    polycomp compile model.onnx -o model.pcm
    polycomp run model.pcm
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    sys.exit(_run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            result = cli.main(arguments, prog_name="polycomp", standalone_mode=False)
        except click.exceptions.NoArgsIsHelpError as error:  # nothing was asked for: its message is the help
            click.echo(error.format_message(), err=True)
            return _USAGE
        except click.UsageError as error:
            hint = f" (try 'polycomp {error.ctx.info_name} --help')" if error.ctx and error.ctx.parent else ""
            return _say("error", error.format_message() + hint, _USAGE)
        except click.ClickException as error:
            return _say("error", error.format_message(), _FAILED)
        except PolycompError as error:
            return _say("error", error, _FAILED)
        except BrokenPipeError:  # the reader of our output has seen enough
            sys.stderr.close()
            return _FAILED
        except OSError as error:
            if error.filename is None:
                _discard_output()
            return _say("error", f"cannot write {error.filename or 'the output'}: {_why(error)}", _FAILED)
        except MemoryError:
            return _say("error", "this machine has not enough memory for that", _FAILED)
        except (KeyboardInterrupt, click.Abort):
            return _say("error", "interrupted", _INTERRUPTED)
    return result if isinstance(result, int) else 0


def _why(error: OSError) -> str:
    """The system's reason, and what to do about the most frequent one."""
    missing = pathlib.Path(error.filename or ".").parent
    if error.errno == errno.ENOENT and not missing.is_dir():
        return f"there is no folder {missing}"
    return error.strerror or str(error)


def _discard_output() -> None:
    """What is still buffered goes nowhere: the interpreter would try to write it again, and complain, at its end."""
    with contextlib.suppress(io.UnsupportedOperation), open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    _say("warning", message)


def _say(kind: str, message: object, status: int = 0) -> int:
    click.echo(f"polycomp: {kind}: {message}", err=True)
    return status
