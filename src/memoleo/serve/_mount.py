"""What a program of one's own serves: the whole site, or the numbers alone."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from memoleo._cache.cache import Cache
from memoleo._cache.default import get_cache
from memoleo.serve._asgi import ASGIApp
from memoleo.serve._site import Site
from memoleo.serve._view import View
from memoleo.serve._wsgi import WSGIApp

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

__all__ = ["asgi_app", "collector", "metrics_json", "metrics_text", "wsgi_app"]


def asgi_app(
    cache: Cache | None = None,
    *,
    token: str | None = None,
    hosts: Collection[str] | None = None,
    show_values: bool = False,
) -> ASGIApp:
    """Return the dashboard as an ASGI application, to be mounted in yours.

    It has the page at ``/``, and ``/metrics``, ``/metrics.json`` and ``/health``. Who may see it is
    decided by what you put in front of it, and by `token` and `hosts`::

        app.mount("/memoleo", memoleo.serve.asgi_app())

    Parameters
    ----------
    cache
        what to look at; `None` for the default cache, whichever that is when somebody looks
    token
        a secret that requests must bring, as ``Authorization: Bearer`` or once as ``?token=``
    hosts
        the names under which the site may be asked for. Give them where only the interface that
        it is bound to keeps others out, such as ``{"localhost", "127.0.0.1"}``: other web sites
        can point their names there
    show_values
        whether to show what is in the entries, and their tags
    """
    return ASGIApp(Site(View(_source(cache), values=show_values), token=token, hosts=hosts))


def wsgi_app(
    cache: Cache | None = None,
    *,
    token: str | None = None,
    hosts: Collection[str] | None = None,
    show_values: bool = False,
) -> WSGIApp:
    """Return the dashboard as a WSGI application; see `asgi_app`."""
    return WSGIApp(Site(View(_source(cache), values=show_values), token=token, hosts=hosts))


def metrics_text(cache: Cache | None = None) -> str:
    """Return the numbers in the text format of Prometheus (version 0.0.4).

    Its content type is ``text/plain``, so that a route of yours is two lines::

        @app.get("/metrics", response_class=PlainTextResponse)
        def metrics(): return memoleo.serve.metrics_text()

    Raises
    ------
    ImportError
        prometheus-client is missing
    """
    from memoleo.serve._prometheus import exposition

    body, _ = exposition(View(_source(cache)), "")
    return body.decode()


def metrics_json(cache: Cache | None = None) -> dict[str, Any]:
    """Return ``{"performance": …, "cache": …}`` as plain data.

    The first has the shape of `memoleo.Metrics.get_stats`, the second that of
    `memoleo.Cache.get_stats`.
    """
    return View(_source(cache)).both()


def collector(cache: Cache | None = None) -> Collector:
    """Return what a registry of ``prometheus_client`` takes: ``REGISTRY.register(collector())``.

    Raises
    ------
    ImportError
        prometheus-client is missing
    """
    from memoleo.serve._prometheus import MemoleoCollector

    return MemoleoCollector(View(_source(cache)))


def _source(cache: Cache | None) -> Callable[[], Cache]:
    return get_cache if cache is None else lambda: cache
