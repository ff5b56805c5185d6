"""``memoleo demo``."""

from __future__ import annotations

import click

from memoleo.backends._urls import open_backend
from memoleo.cli._common import cache_option, console, json_option

__all__ = ["command"]


@click.command(
    "demo",
    short_help="See with a real model what a cache saves.",
    epilog="Example: memoleo demo --entries 20",
)
@click.option("--entries", type=click.IntRange(min=1), metavar="N", help="Use N diary entries.")
@click.option("--model", metavar="NAME", help="The model to ask.")
@cache_option
@json_option
def command(entries: int | None, model: str | None, url: str | None, as_json: bool) -> int:
    """Enrich diary entries with a language model, cold and then warm, and show the difference.

    The Ollama at OLLAMA_HOST answers if there is one, else a small model that is fetched once
    (about 98 MB).
    """
    if url is not None:
        open_backend(url)  # before a model is fetched
    from memoleo.demo._run import run_demo

    out = console(stderr=as_json)
    return run_demo(entries=entries, model=model, cache=url, as_json=as_json, console=out)
