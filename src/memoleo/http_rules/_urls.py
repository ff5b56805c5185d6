"""Patterns of URLs, and URLs as they are compared."""

from __future__ import annotations

import re
from functools import lru_cache

from memoleo.errors import ConfigError

__all__ = ["Place", "compile_pattern", "place_of"]

_PORTS = {"http": "80", "https": "443"}


class Place:
    """A URL in its parts.

    Attributes
    ----------
    url
        in normal form: lower-case scheme and host, no default port, no user, no fragment
    origin
        scheme, host and port
    path
        from the first slash
    query
        without the question mark
    user
        the user and password that the URL had, for the fingerprint of the caller
    """

    __slots__ = ("origin", "path", "query", "url", "user")

    def __init__(self, url: str) -> None:
        scheme, _, rest = url.partition("://")
        rest = rest.partition("#")[0]
        cut = min((at for at in (rest.find("/"), rest.find("?")) if at >= 0), default=len(rest))
        host, tail = rest[:cut], rest[cut:]
        self.user, _, host = host.rpartition("@")
        host = host.lower()
        scheme = scheme.lower()
        name, colon, port = host.rpartition(":")
        if colon and port == _PORTS.get(scheme):
            host = name
        path, _, self.query = tail.partition("?")
        self.origin = f"{scheme}://{host}"
        self.path = path or "/"
        self.url = self.origin + self.path + (f"?{self.query}" if self.query else "")


place_of = lru_cache(maxsize=1024)(Place)


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Return what matches the URLs that a pattern means.

    ``*`` stands for anything within the host, and for anything from there on. A pattern without
    a scheme means both, one without a query any query, and ``re:…`` is a regular expression that
    has to match from beginning to end.

    Raises
    ------
    ConfigError
        it is no pattern, or it would match everything
    """
    if pattern.startswith("re:"):
        try:
            return re.compile(rf"(?s:{pattern[3:]})")
        except re.error as error:
            raise ConfigError(f"url={pattern!r} is no regular expression: {error}") from None
    scheme, separator, rest = pattern.partition("://")
    if not separator:
        scheme, rest = "http(?:s)?", pattern
    elif re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        scheme = scheme.lower()
    else:
        raise ConfigError(f"url={pattern!r}: {scheme!r} is no scheme; leave it out for any")
    host, slash, path = rest.partition("/")
    if not host:
        raise ConfigError(f"url={pattern!r}: name the host, or * for any: '*{pattern}'")
    if not (host + path).replace("*", "").replace(".", ""):
        raise ConfigError(f"url={pattern!r} would match every call: name a host or a path")
    if "@" in host or "?" in host:
        raise ConfigError(f"url={pattern!r}: the host can have neither '@' nor '?'")
    name, colon, port = host.rpartition(":")
    if colon and port == _PORTS.get(scheme):
        host = name
    before, question, query = (slash + path).partition("?")
    text = scheme + "://" + _wild(host.lower(), "[^/?]*") + (_wild(before, "[^?]*") or "/")
    return re.compile(text + (r"\?" + _wild(query, ".*") if question else r"(?:\?.*)?"), re.DOTALL)


def _wild(text: str, anything: str) -> str:
    return anything.join(map(re.escape, text.split("*")))
