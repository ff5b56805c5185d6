"""``memoleo explain``."""

from __future__ import annotations

import json
from typing import Any

import click

from memoleo._cache.default import configure
from memoleo._explaining.explain import Explanation
from memoleo._plain import plain
from memoleo.cli._common import cache_option, json_option, open_cache, print_json
from memoleo.cli._functions import find_function
from memoleo.errors import KeyingError

__all__ = ["command"]


@click.command(
    "explain",
    short_help="Why a call is a hit or a miss.",
    epilog="""Example: memoleo explain app.scoring:score --args '["a text", 3]'""",
)
@click.argument("what", metavar="KEY|MODULE:FUNCTION")
@click.option("--args", "arguments", metavar="JSON", default="[]",
              help="The call: a list of arguments, or an object of keywords.")  # fmt: skip
@cache_option
@json_option
def command(what: str, arguments: str, url: str | None, as_json: bool) -> None:
    """Say why a call is a hit or a miss, and in what the nearest stored calls differ.

    A call is given by its key, or as a cached function and its arguments. Nothing is computed.
    """
    if ":" in what:
        found = _of_call(what, arguments, url)
    else:
        if arguments != "[]":
            raise click.UsageError("--args goes with a function, not with a key.")
        with open_cache(url) as cache:
            found = cache.explain(_whole_key(cache, what))
    if as_json:
        print_json(found.to_dict())
    else:
        click.echo(plain(str(found)))


def _whole_key(cache: Any, start: str) -> str:
    """Return the key that begins so, as tables show it; any other text is a key of one's own."""
    if start.startswith("m1-") and 8 <= len(start) < 67:
        keys = [entry.key for entry in cache.entries(key=start)]
        if len(keys) == 1:
            return str(keys[0])
        raise click.ClickException(
            f"{len(keys)} entries have a key that begins with {start}."
            if keys
            else f"There is no entry whose key begins with {start}; give the whole key."
        )
    return start


def _of_call(place: str, arguments: str, url: str | None) -> Explanation:
    try:
        given = json.loads(arguments)
    except ValueError as error:
        raise click.BadParameter(f"it is not JSON: {error}", param_hint="--args") from None
    if not isinstance(given, (list, dict)):
        raise click.BadParameter("give a list, or an object of keywords", param_hint="--args")
    if url is not None:
        configure(url)
    called: Any = find_function(place)
    if not hasattr(called, "explain"):
        raise click.ClickException(f"{place} is not cached: decorate it with content_cached.")
    try:
        found = called.explain(**given) if isinstance(given, dict) else called.explain(*given)
    except KeyingError:
        raise
    except TypeError as error:
        raise click.UsageError(f"the arguments don't fit {place}: {error}") from None
    explanation: Explanation = found
    return explanation
