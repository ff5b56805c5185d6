"""``memoleo serve``."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable

import click

from memoleo._cache.cache import Cache
from memoleo.backends.memory import MemoryBackend
from memoleo.cli._common import cache_option, json_option, open_cache, print_json

__all__ = ["command"]

_LEAST_TOKEN = 16


@click.command(
    "serve",
    short_help="A dashboard, and /metrics for Prometheus.",
    epilog="Example: memoleo serve --open --cache sqlite:///leo-cache.db",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to bind.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8765,
    show_default=True,
    help="The port; 0 takes a free one.",
)
@click.option(
    "--token",
    envvar="MEMOLEO_SERVE_TOKEN",
    metavar="TOKEN",
    help="What requests must bring; better given by the environment as MEMOLEO_SERVE_TOKEN. "
    "One is made where the address can be reached from other machines.",
)
@click.option(
    "--allow-host",
    multiple=True,
    metavar="NAME",
    help="A further name under which the page may be asked for, as behind a proxy.",
)
@click.option("--show-values", is_flag=True, help="Show what is in the entries, and their tags.")
@click.option("--open", "open_page", is_flag=True, help="Open the page in the browser.")
@cache_option
@json_option
def command(
    host: str,
    port: int,
    token: str | None,
    allow_host: tuple[str, ...],
    show_values: bool,
    open_page: bool,
    url: str | None,
    as_json: bool,
) -> None:
    """Serve a dashboard, and /metrics for Prometheus, until Ctrl-C.

    Also /metrics.json and /health. Needs memoleo[serve].
    """
    try:
        from memoleo.serve._server import address_of, is_loopback, listen, run
    except ImportError as error:
        raise click.ClickException(str(error)) from None
    from memoleo.serve._asgi import ASGIApp
    from memoleo.serve._gate import LOOPBACK
    from memoleo.serve._site import Site
    from memoleo.serve._view import View

    if token is not None and len(token) < _LEAST_TOKEN:
        raise click.UsageError(f"A token needs at least {_LEAST_TOKEN} letters.")
    local = is_loopback(host)
    if token is None and not local:
        token = secrets.token_urlsafe(24)
    # Elsewhere the token keeps strangers out, whatever name they come by.
    hosts = {*LOOPBACK, host, *allow_host} if local else None
    view = View(_source(url), values=show_values)
    site = Site(view, token=token, hosts=hosts)
    try:
        listening = listen(host, port)
    except OSError as error:
        raise click.ClickException(
            f"{host}:{port} can't be bound: {error.strerror or error}. Choose another --port."
        ) from None
    try:
        with listening:
            page = address_of(listening) + (f"?token={token}" if token else "")
            if as_json:
                print_json({"url": page})
            else:
                click.echo(f"{page}\nCtrl-C stops it.")
            sys.stdout.flush()
            if open_page:
                click.launch(page)
            run(ASGIApp(site), listening)
    except KeyboardInterrupt:
        # The usual way to end it.
        return


def _source(url: str | None) -> Callable[[], Cache]:
    """Return what opens the cache: the default one may be created only later."""
    found: list[Cache] = []

    def source() -> Cache:
        if found:
            return found[0]
        cache = open_cache(url)
        if not isinstance(cache.backend, MemoryBackend):
            found.append(cache)
        return cache

    source()
    return source
