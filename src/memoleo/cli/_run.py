"""``memoleo run``."""

from __future__ import annotations

import sys
import tempfile

import click

from memoleo._platform.processes import become, end_like, supervise
from memoleo.cli._common import cache_option, console, json_option, print_json
from memoleo.config import _settings
from memoleo.launch._command import Command, prepare
from memoleo.launch._observed import read_sightings, sum_up
from memoleo.launch._summary import as_data, as_table, sentence

__all__ = ["command"]


class _Run(click.Command):
    """Its own options come first; from the program on, everything belongs to the program."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own: list[str] = []
        rest = list(args)
        with_value = {
            name
            for param in self.params
            if isinstance(param, click.Option) and not param.is_flag
            for name in param.opts
        }
        while rest and rest[0].startswith("-") and rest[0] not in ("-", "--"):
            if rest[0].startswith("-m"):
                break
            own.append(rest.pop(0))
            if own[-1] in with_value and rest:
                own.append(rest.pop(0))
        super().parse_args(ctx, own)
        ctx.params["program"] = tuple(rest[1:] if rest[:1] == ["--"] else rest)
        return []

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return ["[OPTIONS]", "{SCRIPT | -m MODULE}", "[ARGS]..."]


@click.command(
    "run",
    cls=_Run,
    short_help="Run a Python program with caching on in it.",
    epilog="Example: memoleo run --observe worker.py --once",
)
@click.option("--config", metavar="FILE", help="The settings file to use.")
@click.option("--observe", is_flag=True, help="Serve nothing; say at the end what would be saved.")
@cache_option
@json_option
def command(
    program: tuple[str, ...],
    config: str | None,
    observe: bool,
    url: str | None,
    as_json: bool,
) -> None:
    """Run a Python program, as python would, with caching on in it and in its children.

    Everything that the settings name is cached, without an edit in the program. Options stand
    before the script; what follows it is the program's.
    """
    if not program or program == ("-m",):
        raise click.UsageError("Name a script, or -m and a module.")
    if as_json and not observe:
        raise click.UsageError("--json is for what --observe says at the end.")
    if not observe:
        prepared = prepare(program, config=config, cache=url)
        _say_what_is_pinned(prepared)
        become(prepared.arguments, prepared.environment)
    with tempfile.TemporaryDirectory(prefix="memoleo-observed-") as folder:
        prepared = prepare(program, config=config, cache=url, observed=folder)
        _say_what_is_pinned(prepared)
        status = supervise(prepared.arguments, prepared.environment)
        savings = sum_up(read_sightings(folder), _ttl_for)
    if as_json:
        print_json(as_data(savings), err=True)
    else:
        out = console(stderr=True)
        if savings:
            out.print(as_table(savings))
        out.print(sentence(savings))
    end_like(status)


def _say_what_is_pinned(prepared: Command) -> None:
    if prepared.pinned:
        click.echo(
            "memoleo run: PYTHONHASHSEED=0, since it was not set: what a set is ordered by stays "
            "the same from run to run.",
            err=True,
        )
    sys.stdout.flush()
    sys.stderr.flush()


def _ttl_for(type: str) -> float:
    settings = _settings.current()
    own = settings.ttl_for(type)
    return settings.default_ttl if own is None else own
