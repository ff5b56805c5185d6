"""Who may look: the names under which the page may be asked for, and the token."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection, Mapping
from http.cookies import CookieError, SimpleCookie

__all__ = ["LOOPBACK", "Gate", "host_name"]

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_COOKIE = "memoleo_token"


class Gate:
    """Decides on the headers of a request.

    A page on the loopback interface is in reach of every web site that the user visits: its owner
    lets the site's name point at 127.0.0.1, and the browser then takes both for the same site (DNS
    rebinding). The Host header still tells the site's name, so only known names pass.

    Parameters
    ----------
    hosts
        the names that the Host header may have; `None` for any
    token
        a secret that a request must bring: as ``Authorization: Bearer``, as ``?token=``, or in the
        cookie that this is traded for; `None` for none
    """

    def __init__(self, hosts: Collection[str] | None = None, token: str | None = None) -> None:
        self._hosts = None if hosts is None else {name.lower() for name in hosts}
        self._token = token

    def knows(self, headers: Mapping[str, str]) -> bool:
        """Whether the request was meant for us."""
        return self._hosts is None or host_name(headers.get("host", "")) in self._hosts

    def admits(self, headers: Mapping[str, str]) -> bool:
        """Whether the request brings the token, if one is wanted, in a header or in the cookie."""
        if self._token is None:
            return True
        scheme, _, credentials = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and _same(credentials.strip(), self._token):
            return True
        try:
            morsel = SimpleCookie(headers.get("cookie", "")).get(_COOKIE)
        except CookieError:
            return False
        return morsel is not None and _same(morsel.value, self._ticket())

    def trades(self, token: str) -> bool:
        """Whether the token of a URL is the right one."""
        return self._token is not None and _same(token, self._token)

    def cookie(self, path: str) -> str:
        """Return the cookie that stands for the token from now on."""
        return f"{_COOKIE}={self._ticket()}; Path={path}; HttpOnly; SameSite=Lax"

    def _ticket(self) -> str:
        return hashlib.sha256(f"memoleo cookie {self._token}".encode()).hexdigest()


def host_name(header: str) -> str:
    """Return the name in a Host header, without port and without the brackets of IPv6."""
    header = header.strip().lower()
    if header.startswith("["):
        return header[1:].partition("]")[0]
    name, colon, port = header.rpartition(":")
    return (name if colon and port.isdigit() else header).removesuffix(".")


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())
