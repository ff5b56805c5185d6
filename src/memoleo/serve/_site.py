"""What is answered to a request, whichever kind of server asks."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from importlib import resources
from math import isfinite
from typing import Any
from urllib.parse import parse_qs, quote

import msgspec

from memoleo._events import extras, logger
from memoleo.serve._gate import Gate
from memoleo.serve._series import PERIODS
from memoleo.serve._view import View

__all__ = ["Answer", "Request", "Site"]

_FILES = {
    "": ("index.html", "text/html; charset=utf-8"),
    "app.js": ("app.js", "text/javascript; charset=utf-8"),
    "page.css": ("page.css", "text/css; charset=utf-8"),
    "uPlot.js": ("uPlot.iife.min.js", "text/javascript; charset=utf-8"),
    "uPlot.css": ("uPlot.min.css", "text/css; charset=utf-8"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
}

_HEADERS = (
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
)
_JSON = "application/json"
_TEXT = "text/plain; charset=utf-8"


class Request(msgspec.Struct, frozen=True):
    """What of a request decides on the answer.

    Parameters
    ----------
    method
        "GET" or another
    root, path
        where the site is mounted, and what follows
    query
        what follows the question mark
    headers
        by their names in small letters
    """

    method: str
    root: str
    path: str
    query: str
    headers: Mapping[str, str]


class Answer(msgspec.Struct, frozen=True):
    """What goes back: the status, the headers, the body."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


class Site:
    """The page, its data, and the endpoints for machines. It never raises.

    Parameters
    ----------
    view
        reads the numbers
    token, hosts
        see `Gate`
    """

    def __init__(
        self, view: View, *, token: str | None = None, hosts: Collection[str] | None = None
    ) -> None:
        self.view = view
        self._gate = Gate(hosts, token)

    def answer(self, request: Request) -> Answer:
        """Return the answer to a request."""
        try:
            answer = self._answer(request)
        except Exception as error:
            logger.warning(
                "the dashboard can't answer %s: %r",
                request.path,
                error,
                extra=extras("not_answered", path=request.path, error=error),
            )
            answer = _json(500, {"error": f"{type(error).__name__}: {error}"})
        return answer

    def _answer(self, request: Request) -> Answer:
        if not self._gate.knows(request.headers):
            return _plain(421, "This name is not mine. Ask for the address that memoleo showed.")
        query = parse_qs(request.query)
        root = quote(request.root.rstrip("/"))
        traded = self._gate.trades(query.get("token", [""])[0])
        if traded and request.path in ("", "/"):
            # Out of the address, where it would be seen and kept.
            cookie = self._gate.cookie(root or "/")
            return _made(303, _TEXT, b"", Location=f"{root}/", Set_Cookie=cookie)
        if not traded and not self._gate.admits(request.headers):
            said = "A token is needed: open the address with ?token=… that memoleo showed."
            return _plain(401, said, WWW_Authenticate="Bearer")
        if request.method not in ("GET", "HEAD"):
            return _plain(405, "Only GET is answered here.", Allow="GET, HEAD")
        if not request.path:
            return _plain(308, "", Location=f"{root}/")
        return self._get(request.path[1:], query, request.headers)

    def _get(self, name: str, query: dict[str, list[str]], headers: Mapping[str, str]) -> Answer:
        if name in _FILES:
            file, kind = _FILES[name]
            place = resources.files("memoleo.serve") / "static" / file
            return _made(200, kind, place.read_bytes())
        if name == "data.json":
            period = query.get("period", ["hour"])[0]
            if period not in PERIODS:
                return _json(400, {"error": f"period is one of {', '.join(PERIODS)}"})
            return _json(200, self.view.page(period))
        if name == "metrics.json":
            return _json(200, self.view.both())
        if name == "metrics":
            return self._metrics(headers.get("accept", ""))
        if name == "health":
            health = self.view.health()
            return _json(200 if health["status"] == "ok" else 503, health)
        return _plain(404, "There is nothing here.")

    def _metrics(self, accept: str) -> Answer:
        try:
            from memoleo.serve._prometheus import exposition
        except ImportError as error:
            return _plain(501, str(error))
        body, kind = exposition(self.view, accept)
        return _made(200, kind, body)


def _json(status: int, data: Any) -> Answer:
    return _made(status, _JSON, json.dumps(_finite(data), ensure_ascii=False).encode())


def _finite(data: Any) -> Any:
    """JSON knows no infinity: what lasts for ever has `None` as its number."""
    if isinstance(data, dict):
        return {str(name): _finite(value) for name, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not isfinite(data) else data


def _plain(status: int, text: str, **headers: str) -> Answer:
    return _made(status, _TEXT, text.encode(), **headers)


def _made(status: int, kind: str, body: bytes, **headers: str) -> Answer:
    further = [(name.replace("_", "-"), value) for name, value in headers.items()]
    length = ("Content-Length", str(len(body)))
    return Answer(status, (("Content-Type", kind), length, *_HEADERS, *further), body)
