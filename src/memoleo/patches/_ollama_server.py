"""Who answers: which server, and as whom it is asked."""

from __future__ import annotations

import hmac
import os
import secrets
import weakref
from hashlib import sha256
from typing import Any

from memoleo._events import logger
from memoleo.codecs._secret import secret_from_file
from memoleo.errors import CodecError
from memoleo.keys._canonical import canonical, frame

__all__ = ["Server", "server_of"]

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
    """

    __slots__ = ("address", "anywhere", "caller", "here")

    def __init__(self, address: str, caller: bytes) -> None:
        self.address = address
        self.caller = caller
        self.here = sha256(b"".join((b"here", frame(address), frame(caller)))).digest()
        self.anywhere = sha256(b"".join((b"anywhere", frame(caller)))).digest()


_known: dict[int, tuple[Any, ...]] = {}
"""What was found last for each `httpx` client that is alive, by its identity."""


def server_of(client: Any) -> Server | None:
    """Return whom a client of the ollama package talks to.

    `None` if that can't be told: somebody else's `httpx.Auth` without plain content, say.
    """
    http = client._client
    found = _known.get(id(http))
    # Headers and cookies can be changed at any time, the rest only be replaced.
    address, auth, headers = http.base_url, http.auth, http.headers.raw
    if (
        found is not None
        and found[5]() is http
        and found[0] is address
        and found[1] is auth
        and found[2] == headers
        and found[3] is http.params
        and auth is None
        and not _cookies(http.cookies.jar)
    ):
        server: Server = found[4]
        return server
    caller = _caller(http)
    if caller is None:
        return None
    plain = str(address.copy_with(userinfo=b"")).rstrip("/")
    server = Server(plain, caller)
    number = id(http)
    alive = weakref.ref(http, lambda _: _known.pop(number, None))
    _known[number] = (address, auth, headers, http.params, server, alive)
    return server


def _cookies(jar: Any) -> Any:
    """Return something true if there may be cookies; counting them costs more than all the rest."""
    return getattr(jar, "_cookies", jar)


def _caller(http: Any) -> bytes | None:
    signs: list[bytes] = []
    for name, value in http.headers.raw:
        if name.lower() not in _HARMLESS:
            signs += [b"header", name.lower(), value]
    if http.base_url.userinfo:
        signs += [b"userinfo", http.base_url.userinfo]
    if str(http.params):
        signs += [b"params", str(http.params).encode()]
    for cookie in http.cookies.jar:
        signs += [b"cookie", repr((cookie.domain, cookie.path, cookie.name, cookie.value)).encode()]
    if http.auth is not None:
        try:
            signs += [b"auth", _auth(http.auth)]
        except Exception:
            return None
    if not signs:
        return b""
    return hmac.digest(_secret(), b"".join(map(frame, signs)), "sha256")


def _auth(auth: Any) -> bytes:
    # It teaches `canonical` instances of Python classes, which most programs never need here.
    import memoleo.keys._instances  # noqa: F401

    # A digest challenge changes with every answer; who asks doesn't.
    names = ("_username", "_password")
    if type(auth).__name__ == "DigestAuth" and all(hasattr(auth, name) for name in names):
        return canonical([getattr(auth, name) for name in names])
    return canonical(auth)


_secrets: list[bytes] = []


def _secret() -> bytes:
    """Return the user's own secret: without it, nobody can try credentials against a key."""
    if not _secrets:
        try:
            import platformdirs

            folder = platformdirs.user_data_dir("memoleo", appauthor=False)
            _secrets.append(secret_from_file(os.path.join(folder, "fingerprint.secret")))
        except CodecError as error:
            logger.warning("answers to authorized calls are kept for this process only: %s", error)
            _secrets.append(secrets.token_bytes(32))
    return _secrets[0]
