"""Calls of `requests` as they are written, and as they are sent."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from copy import copy
from functools import lru_cache
from typing import Any

import msgspec
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from xxhash import xxh3_128_digest

from memoleo._exchanges.exchanges import Exchange
from memoleo.http_rules._messages import Answer
from memoleo.patches._http_stack import Stack
from memoleo.patches._requests_responses import request_of, response_of

__all__ = ["Spelled", "fits", "hooked"]

_MOST = 1024
_LARGEST = 32 * 1024
_SEED = secrets.randbits(64)
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode
_PLAIN = frozenset(
    {
        "allow_redirects", "auth", "cert", "cookies", "data", "files", "headers", "hooks", "json",
        "params", "proxies", "stream", "timeout", "verify",
    }
)  # fmt: skip
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class _Known:
    """A call that was sent before: what it came to once it was prepared."""

    __slots__ = ("among", "exchange", "prepared")

    def __init__(self, exchange: Exchange, prepared: Any, among: Any) -> None:
        self.among = among
        self.exchange = exchange
        self.prepared = prepared


class Spelled:
    """Remembers what calls come to, so that a hit doesn't have to prepare a request.

    Parameters
    ----------
    session
        the class `requests.Session`
    """

    def __init__(self, session: Any) -> None:
        self._prepare = session.prepare_request
        self._session = session
        self._known: dict[bytes, _Known] = {}
        self._named: set[tuple[str, str]] = set()
        self._awaited: ContextVar[list[Any] | None] = ContextVar("memoleo_spelled", default=None)

    def mark(self, session: Any, method: Any, url: Any, kwargs: dict[str, Any]) -> bytes | None:
        """Return bytes that are equal for calls that are written alike; `None` if in doubt.

        Everything counts that goes into a request: the arguments, what the session adds, and the
        passwords that a file on the machine may hold.
        """
        if (method, url) not in self._named:
            return None
        given = kwargs.get
        kind = type(session)
        if (
            kind.send is not self._session.send
            or kind.prepare_request is not self._prepare
            or given("files")
            or given("cookies")
            or given("hooks")
            or given("cert")
            or session.cert
            or session.hooks.get("response")
            or getattr(session.cookies, "_cookies", True)
            or not kwargs.keys() <= _PLAIN
            or not vars(session).keys().isdisjoint(("send", "prepare_request", "get_adapter"))
        ):
            return None
        auth, own = given("auth"), session.auth
        for each in (auth, own):
            if each is not None and type(each) is not tuple:
                return None
        parts = [
            method,
            url,
            given("params"),
            given("data"),
            given("json"),
            given("headers"),
            list(auth) if auth else None,
            list(own) if own else None,
            [list(each) for each in session.headers.items()],
            session.params,
            given("verify", session.verify) is not False,
            bool(given("allow_redirects", True)),
            _passwords() if session.trust_env and not auth and not own else None,
        ]
        try:
            block = _encode(parts)
            # Only plain data reads back equal; all else may be another call than it looks.
            if _decode(block) != parts:
                return None
        except (msgspec.MsgspecError, OverflowError, TypeError, ValueError, RecursionError):
            return None
        return xxh3_128_digest(block, _SEED)

    def find(self, session: Any, stack: Stack, mark: bytes, kwargs: dict[str, Any]) -> Any:
        """Return a response if a fresh answer is at hand, else `None`."""
        known = self._known.get(mark)
        if known is None or known.among is not stack.all:
            return None
        answer = known.exchange.again()
        if answer is None or not fits(answer, kwargs):
            return None
        prepared = known.prepared.copy()
        adapter = session.get_adapter(prepared.url)
        if not isinstance(adapter, HTTPAdapter):
            return None
        stream = kwargs.get("stream")
        if stream is None:
            stream = session.stream
        return response_of(answer, prepared, adapter, stream=bool(stream))

    @contextmanager
    def awaiting(self, mark: bytes | None, method: Any, url: Any) -> Iterator[None]:
        """Remember what the first request that this block sends comes to."""
        token = self._awaited.set([mark, method, url])
        try:
            yield
        finally:
            self._awaited.reset(token)

    def exchange(
        self, session: Any, stack: Stack, prepared: Any, kwargs: dict[str, Any]
    ) -> Exchange | None:
        """Return a prepared request as a call that is to be answered, if it is one."""
        awaited = self._awaited.get()
        mark = None
        if not stack.names(prepared.method, prepared.url):
            return None
        if awaited:
            mark, method, url = awaited
            awaited.clear()
            if type(url) is str and type(method) is str and len(self._named) < _MOST:
                self._named.add((method, url))
        if not isinstance(session.get_adapter(prepared.url), HTTPAdapter):
            return None
        caller = _caller(prepared, kwargs.get("cert", session.cert))
        if caller is None:
            return None
        verify = kwargs.get("verify", session.verify)
        exchange = stack.exchange(request_of(prepared, {"verify": verify}, caller))
        if exchange is not None and mark is not None and _small(prepared.body):
            if len(self._known) >= _MOST:
                self._known.clear()
            # A copy: what the call comes to, its response or error, is not to be held on to.
            self._known[mark] = _Known(copy(exchange), prepared.copy(), stack.all)
        return exchange


def _small(body: Any) -> bool:
    return body is None or (isinstance(body, (str, bytes)) and len(body) <= _LARGEST)


def _passwords() -> list[Any]:
    """Return the state of the files that `requests` takes passwords from (``.netrc``)."""
    named = os.environ.get("NETRC")
    found: list[Any] = [named]
    for path in [named] if named else _netrc_files(os.environ.get("HOME")):
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            found.append(None)
        else:
            found.append([status.st_ino, status.st_size, status.st_mtime_ns])
    return found


@lru_cache(maxsize=8)
def _netrc_files(home: str | None) -> tuple[str, ...]:
    return tuple(os.path.expanduser(f"~/{name}") for name in (".netrc", "_netrc"))


def _caller(prepared: Any, cert: Any) -> bytes | None:
    """Return who asks, as far as no header says it; `None` if that can't be told."""
    signs = [repr(cert).encode()] if cert else []
    for hook in prepared.hooks.get("response", ()):
        owner = getattr(hook, "__self__", None)
        if not isinstance(owner, AuthBase):
            continue
        # It answers to the challenge of a server, which comes later.
        name, password = getattr(owner, "username", None), getattr(owner, "password", None)
        if type(owner).__module__ != "requests.auth" or name is None:
            return None
        signs.append(repr((name, password)).encode())
    return b"\0".join(signs)


def hooked(prepared: Any, seen: list[Any] | None, extra: Mapping[str, str]) -> Any:
    """Return what is sent for a request: itself, or a copy where something is to be added.

    Parameters
    ----------
    prepared
        the request
    seen
        gets the responses and their bodies before the caller's own hooks do, which may change
        them; `None` if they are not to be read yet
    extra
        headers to add
    """
    hooks = prepared.hooks.get("response")
    if not extra and (not hooks or seen is None):
        return prepared
    sent = prepared.copy()
    sent.headers.update(extra)
    if hooks and seen is not None:

        def see(response: Any, **_: Any) -> None:
            seen.append((response, response.content))

        own: list[Callable[..., Any]] = [hooks] if callable(hooks) else list(hooks)
        sent.hooks = {**prepared.hooks, "response": [see, *own]}
    return sent


def fits(answer: Answer, kwargs: dict[str, Any]) -> bool:
    """Whether an answer is one to a caller who does, or doesn't, follow redirects."""
    follows = kwargs.get("allow_redirects", True)
    return not answer.history if not follows else answer.status not in _REDIRECTS
