"""Requests and answers, as no HTTP library has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

__all__ = ["Answer", "Headers", "Request"]

Headers = Sequence[tuple[str, str]]


class Request(msgspec.Struct, frozen=True):
    """A request as it goes over the wire.

    Parameters
    ----------
    method
        in capitals
    url
        absolute
    headers
        names and values, in their order
    body
        all of it; `None` if it can't be read without using it up
    caller
        what tells who asks and stands in no header, as bytes
    verified
        whether the server's certificate is checked
    """

    method: str
    url: str
    headers: Headers = ()
    body: bytes | None = b""
    caller: bytes = b""
    verified: bool = True

    def header(self, name: str) -> str:
        """Return the value of a header, or an empty text."""
        return header(self.headers, name)


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """An answer as it is stored and made again.

    Parameters
    ----------
    status, reason
        of the status line
    version
        of the protocol: 10, 11, 20
    headers
        names and values, in their order; without cookies
    body
        all of it, decoded as ``Content-Encoding`` says
    elapsed
        seconds until it began to arrive
    url
        where it came from, if redirects led elsewhere; else empty
    method
        of the request that it answers, if redirects changed that; else empty
    history
        the redirects that led to it, oldest first
    fresh_until
        when it stops being fresh by its own account, in seconds since the epoch
    """

    status: int
    reason: str = ""
    version: int = 11
    headers: list[tuple[str, str]] = []
    body: bytes = b""
    elapsed: float = 0.0
    url: str = ""
    method: str = ""
    history: list[Answer] = []
    fresh_until: float | None = None

    def header(self, name: str) -> str:
        """Return the value of a header, or an empty text."""
        return header(self.headers, name)

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """Return the body as data.

        Raises
        ------
        ValueError
            it is not JSON
        """
        return msgspec.json.decode(self.body)

    def lines(self) -> list[Any]:
        """Return the data in the lines of the body (NDJSON).

        Raises
        ------
        ValueError
            one of them is not JSON
        """
        return [msgspec.json.decode(line) for line in self.body.splitlines() if line.strip()]


def header(headers: Headers, name: str) -> str:
    """Return the value of a header, several joined (RFC 9110, section 5.3), or an empty text."""
    return ", ".join(value for key, value in headers if key.lower() == name)
