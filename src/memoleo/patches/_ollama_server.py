"""Who answers: which server, and as whom it is asked."""

from __future__ import annotations

import secrets
import weakref
from base64 import b64encode
from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Any
from urllib.parse import unquote, urlsplit

from memoleo._exchanges.fingerprint import fingerprint
from memoleo.keys._canonical import canonical, frame

__all__ = ["Server", "route_of", "server_at", "server_of", "transport_of"]

_HARMLESS = frozenset(
    {
        b"accept", b"accept-encoding", b"connection", b"content-length", b"content-type", b"host",
        b"traceparent", b"tracestate", b"user-agent", b"x-request-id",
    }
)  # fmt: skip
"""Headers that say nothing about who asks. All others count as credentials."""


class Server:
    """A server as one kind of caller sees it.

    Parameters
    ----------
    address
        its base URL
    caller
        a keyed fingerprint of the credentials; empty without any
    route
        what lies between caller and address, if that is no plain connection
    """

    __slots__ = ("address", "anywhere", "caller", "here")

    def __init__(self, address: str, caller: bytes, route: bytes = b"") -> None:
        self.address = address
        self.caller = caller
        via = frame(route) if route else b""
        self.here = sha256(b"".join((b"here", frame(address), frame(caller), via))).digest()
        self.anywhere = sha256(b"".join((b"anywhere", frame(caller), via))).digest()


Headers = Iterable[tuple["str | bytes", "str | bytes"]]


def server_at(address: str, headers: Headers = (), *, query: str = "") -> Server:
    """Return whom a request talks to that some HTTP library is about to send.

    It is the same as `server_of` returns for an official client with the same credentials.

    Parameters
    ----------
    address
        the URL up to the path of the API, user and password included if it has them
    headers
        all that are sent, also those that the library adds by itself
    query
        the URL's
    """
    plain, user = _taken_apart(address)
    signs = list(_headers(headers))
    if user is not None:
        signs = [*_without_authorization(signs), user]
    if query:
        signs.append((b"params", query.encode()))
    return Server(plain, _fingerprint(signs))


def _taken_apart(address: str) -> tuple[str, Sign | None]:
    """Return an address in one spelling, and the credentials in it."""
    parts = urlsplit(address)
    host = (parts.hostname or "").lower()
    host = f"[{host}]" if ":" in host else host
    port = parts.port
    if port is not None and port != _PORTS.get(parts.scheme.lower()):
        host = f"{host}:{port}"
    plain = f"{parts.scheme.lower()}://{host}{parts.path.rstrip('/')}"
    if not parts.username and not parts.password:
        return plain, None
    pair = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    return plain, (b"header", b"authorization", b"Basic " + b64encode(pair.encode()))


Sign = tuple[bytes, ...]
_PORTS = {"http": 80, "https": 443}


def _headers(headers: Headers) -> Iterator[Sign]:
    for name, value in headers:
        sign = _bytes(name).lower()
        if sign not in _HARMLESS:
            yield (b"header", sign, _bytes(value))


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")


def _without_authorization(signs: Iterable[Sign]) -> Iterator[Sign]:
    return (sign for sign in signs if sign[:2] != (b"header", b"authorization"))


def _fingerprint(signs: list[Sign]) -> bytes:
    return fingerprint(b"".join(map(frame, sign)) for sign in sorted(signs))


class _Seen:
    """What was found last for an `httpx` client."""

    __slots__ = (
        "address", "alive", "auth", "headers", "mounts", "params", "server", "transport",
    )  # fmt: skip

    def __init__(self, http: Any, server: Server, alive: Any) -> None:
        self.address = http.base_url
        self.auth = http.auth
        self.headers = http.headers.raw
        self.params = http.params
        self.transport = http._transport
        self.mounts = http._mounts
        self.server = server
        self.alive = alive


_known: dict[int, _Seen] = {}
"""By the identity of `httpx` clients that are alive."""


def server_of(client: Any) -> Server | None:
    """Return whom a client of the ollama package talks to.

    `None` if that can't be told: somebody else's `httpx.Auth` without plain content, say.
    """
    http = client._client
    found = _known.get(id(http))
    # Headers, cookies and hooks can be changed at any time, the rest only be replaced.
    if (
        found is not None
        and found.alive() is http
        and found.address is http.base_url
        and http.auth is None
        and found.auth is None
        and found.headers == http.headers.raw
        and found.params is http.params
        and found.transport is http._transport
        and found.mounts is http._mounts
        and not http.event_hooks["request"]
        and not _cookies(http.cookies.jar)
    ):
        return found.server
    signs, route = _signs(http), route_of(http, http.base_url)
    if signs is None or route is None:
        return None
    plain, _ = _taken_apart(str(http.base_url))
    server = Server(plain, _fingerprint(signs), route)
    number = id(http)
    alive = weakref.ref(http, lambda _: _known.pop(number, None))
    _known[number] = _Seen(http, server, alive)
    return server


def _cookies(jar: Any) -> Any:
    """Return something true if there may be cookies; counting them costs more than all the rest."""
    return getattr(jar, "_cookies", jar)


def _signs(http: Any) -> list[Sign] | None:
    """Return all that tells who asks."""
    signs = list(_headers(http.headers.raw))
    if http.auth is not None:
        try:
            sign = _auth(http.auth)
            # Basic authentication replaces that header; what others do with it isn't known.
            signs = [*(_without_authorization(signs) if sign[0] == b"header" else signs), sign]
        except Exception:
            return None
    elif http.base_url.userinfo:
        userinfo = http.base_url.userinfo.decode()
        _, user = _taken_apart(f"http://{userinfo}@host")
        signs = [*_without_authorization(signs), *([] if user is None else [user])]
    if str(http.params):
        signs.append((b"params", str(http.params).encode()))
    for cookie in http.cookies.jar:
        content = repr((cookie.domain, cookie.path, cookie.name, cookie.value))
        signs.append((b"cookie", content.encode()))
    return signs


def route_of(http: Any, url: Any) -> bytes | None:
    """Return what lies between an `httpx` client and a URL; empty for nothing.

    A proxy or a socket may lead to another server of the same name. A transport of somebody's own
    answers as it likes, and hooks change requests on their way: such a client is the only one to
    get its answers.
    """
    if http.event_hooks["request"]:
        return _mark(http)
    transport = transport_of(http, url)
    if type(transport).__name__ not in _TRANSPORTS or type(transport).__module__ not in _HTTPX:
        return _mark(transport)
    pool = transport._pool
    via = [getattr(pool, name, None) for name in _LEADS]
    if not any(via):
        return b""
    url = via[1]
    place = url if url is None else (url.scheme, url.host, url.port, url.target)
    return _fingerprint([(b"route", repr((via[0], place, via[2], via[3])).encode())])


def transport_of(http: Any, url: Any) -> Any:
    """Return what an `httpx` client sends a request with, also behind one of our transports."""
    transport = http._transport_for_url(url)
    plain = getattr(transport, "__memoleo_plain__", None)
    return transport if plain is None else plain()


_LEADS = ("_uds", "_proxy_url", "_proxy_headers", "_proxy_auth")
_TRANSPORTS = frozenset({"HTTPTransport", "AsyncHTTPTransport"})
_HTTPX = frozenset({"httpx", "httpx._transports.default"})
_marks: dict[int, tuple[Any, bytes]] = {}


def _mark(thing: Any) -> bytes | None:
    """Return bytes that stand for an object while it is alive, and for no other one ever."""
    number = id(thing)
    found = _marks.get(number)
    if found is not None and found[0]() is thing:
        return found[1]
    try:
        alive = weakref.ref(thing, lambda _: _marks.pop(number, None))
    except TypeError:
        return None
    _marks[number] = (alive, secrets.token_bytes(16))
    return _marks[number][1]


def _auth(auth: Any) -> Sign:
    basic = getattr(auth, "_auth_header", None)
    if type(auth).__name__ == "BasicAuth" and isinstance(basic, str):
        return (b"header", b"authorization", basic.encode())
    return (b"auth", _content(auth))


def _content(auth: Any) -> bytes:
    # It teaches `canonical` instances of Python classes, which most programs never need here.
    import memoleo.keys._instances  # noqa: F401

    # A digest challenge changes with every answer; who asks doesn't.
    names = ("_username", "_password")
    if type(auth).__name__ == "DigestAuth" and all(hasattr(auth, name) for name in names):
        return canonical([getattr(auth, name) for name in names])
    return canonical(auth)
