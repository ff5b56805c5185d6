"""The group of commands, and what a user sees when one fails."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper

import click

from memoleo._events import logger
from memoleo._version import version
from memoleo.errors import ConfigError, MemoleoError

__all__ = ["commands", "status_of"]

FAILED = 1
WRONG_USE = 2
INTERRUPTED = 130

_COMMANDS = {
    "demo": "memoleo.cli._demo",
    "run": "memoleo.cli._run",
    "stats": "memoleo.cli._stats",
    "metrics": "memoleo.cli._metrics",
    "top": "memoleo.cli._top",
    "warm": "memoleo.cli._warm",
    "entries": "memoleo.cli._entries",
    "explain": "memoleo.cli._explain",
    "verify": "memoleo.cli._verify",
    "clear": "memoleo.cli._clear",
    "export": "memoleo.cli._export",
    "load": "memoleo.cli._load",
    "config": "memoleo.cli._config",
    "doctor": "memoleo.cli._doctor",
    "serve": "memoleo.cli._serve",
    "init": "memoleo.cli._init",
}


class _Commands(click.Group):
    """Commands whose modules are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(_COMMANDS[cmd_name]).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in _COMMANDS and not name.startswith("-"):
            from difflib import get_close_matches

            match = get_close_matches(name, _COMMANDS, n=1)
            hint = f" Did you mean {match[0]}?" if match else ""
            raise click.UsageError(f"There is no command {name!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)


def _print_version(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(f"memoleo {version()}")
        ctx.exit()


@click.command(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: memoleo stats\n\n"
    "Exit status: 0 done, 1 failed or found problems, 2 wrong use or settings, 130 interrupted.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    callback=_print_version,
    expose_value=False,
    help="Show the version and exit.",
)
def commands() -> None:
    """Look at and look after what memoleo has cached."""


class _ToStderr(logging.Handler):
    """Says what a program would find in its log, such as that a damaged file was put aside."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            click.echo(f"Warning: {record.getMessage()}", err=True)
        except Exception:
            self.handleError(record)


_warnings = _ToStderr(logging.WARNING)


def status_of(args: Sequence[str] | None) -> int:
    """Run a command, say what went wrong if anything does, and return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    logger.addHandler(_warnings)
    try:
        status = commands.main(args, prog_name="memoleo", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        # The interpreter would complain when it flushes the closed pipe at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except ConfigError as error:
        click.echo(f"Error: {error}", err=True)
        return WRONG_USE
    except (MemoleoError, OSError) as error:
        click.echo(f"Error: {error}", err=True)
        return FAILED
    except Exception as error:
        if type(error).__module__ != "sqlite3":
            raise
        click.echo(f"Error: the store can't be used: {error}", err=True)
        return FAILED
    finally:
        logger.removeHandler(_warnings)
