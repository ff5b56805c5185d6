"""What the headers of a request say: nothing, who asks, or what is asked."""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["HARMLESS", "PRIVATE", "is_credential"]

HARMLESS = frozenset(
    {
        "accept-encoding", "connection", "content-length", "date", "expect", "host", "keep-alive",
        "te", "traceparent", "tracestate", "trailer", "transfer-encoding", "upgrade",
        "user-agent", "x-request-id",
    }
)  # fmt: skip
"""Headers that say neither what is asked nor who asks. All others count."""

PRIVATE = frozenset(
    {
        "authentication-info", "proxy-authenticate", "proxy-authentication-info", "set-cookie",
        "set-cookie2", "www-authenticate",
    }
)  # fmt: skip
"""Headers of an answer that are meant for one caller at one time; they are never stored."""

_CREDENTIAL = re.compile(
    r"auth|token|api-?_?key|cookie|secret|session|signature|passw|credential|x-amz-|"
    r"(?:^|-)key$|x-csrf"
)


@lru_cache(maxsize=512)
def is_credential(name: str) -> bool:
    """Whether a header or a field of a query, by its name in small letters, tells who asks."""
    return _CREDENTIAL.search(name) is not None
