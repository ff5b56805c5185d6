"""The key of a request under a rule."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

from memoleo.http_rules._bodies import content_of, json_of, resolve
from memoleo.http_rules._headers import HARMLESS, is_credential
from memoleo.http_rules._messages import Request
from memoleo.http_rules._rule import Rule
from memoleo.http_rules._urls import place_of

__all__ = [
    "caller_of",
    "counted_headers",
    "counted_query",
    "key_of",
    "matches",
    "meant",
    "secrets_of",
]

_DOMAIN = b"memoleo:http:1"
_SHORTEST_SECRET = 8


def matches(rule: Rule, method: str, url: str) -> bool:
    """Whether a rule names calls of this method to this URL."""
    parsed = rule.parsed
    return method in parsed.methods and parsed.pattern.fullmatch(place_of(url).url) is not None


def meant(rule: Rule, request: Request) -> bool:
    """Whether a request, which a rule names, also says what the rule wants to see."""
    wanted = rule.parsed.when
    if not wanted:
        return True
    body = json_of(request.body)
    return any(found for each in wanted for found in resolve(body, each))


def key_of(
    rule: Rule, request: Request, fingerprint: Callable[[list[bytes]], bytes]
) -> bytes | None:
    """Return the 32 bytes that the answer to a request is stored under.

    Parameters
    ----------
    rule
        which names the call
    request
        the call
    fingerprint
        turns what tells who asks into something that doesn't tell it

    Returns
    -------
    bytes
        `None` if what counts can't be told: the call isn't cached then
    """
    if request.body is None:
        return None
    parsed = rule.parsed
    found = content_of(
        request.body, request.header("content-type"), parsed.pointers, parsed.ignored
    )
    if found is None:
        return None
    content, kind = found
    place = place_of(request.url)
    parts = [
        parsed.signature,
        request.method.encode(),
        place.origin.encode(),
        place.path.encode(),
        b"verified" if request.verified else b"unverified",
        kind.encode(),
        content,
        *[field.encode() for field in counted_query(rule, place.query)],
        b"headers",
        *[
            text.encode("utf-8", "surrogateescape")
            for header in counted_headers(rule, request)
            for text in header
        ],
        b"caller",
        fingerprint(caller_of(request, parsed.uncounted)) if rule.per_caller else b"",
    ]
    return sha256(_DOMAIN + b"".join(map(_frame, parts))).digest()


def _frame(part: bytes) -> bytes:
    return len(part).to_bytes(8, "big") + part


def counted_query(rule: Rule, query: str) -> list[str]:
    """Return the fields of a query that count, by name; those of one name keep their order."""
    if not query:
        return []
    fields = [field.partition("=") for field in query.split("&") if field]
    kept = [each for each in fields if each[0] not in rule.parsed.params]
    return ["".join(each) for each in sorted(kept, key=lambda each: each[0])]


def counted_headers(rule: Rule, request: Request) -> list[tuple[str, str]]:
    """Return the headers that count, by name in small letters."""
    counted, uncounted = rule.parsed.counted, rule.parsed.uncounted
    found: list[tuple[str, str]] = []
    for name, value in request.headers:
        lower = name.lower()
        if lower in uncounted or lower == "content-type":
            continue
        if (
            lower in counted
            if counted is not None
            else (lower not in HARMLESS and not is_credential(lower))
        ):
            found.append((lower, value.strip()))
    found.sort(key=lambda each: each[0])
    return found


def caller_of(request: Request, uncounted: frozenset[str] = frozenset()) -> list[bytes]:
    """Return what tells who asks; nothing for somebody without a name.

    Parameters
    ----------
    request
        the call
    uncounted
        names of headers that say nothing
    """
    signs: list[bytes] = []
    for name, value in request.headers:
        lower = name.lower()
        if is_credential(lower) and lower not in uncounted:
            signs += [lower.encode(), value.encode("utf-8", "surrogateescape")]
    user = place_of(request.url).user
    if user:
        signs += [b"user", user.encode()]
    if request.caller:
        signs += [b"caller", request.caller]
    return signs


def secrets_of(request: Request) -> list[bytes]:
    """Return the credentials of a request, as they would look in an answer that repeats them."""
    found: list[str] = []
    for name, value in request.headers:
        lower = name.lower()
        if lower == "cookie":
            found += [each.partition("=")[2].strip() for each in value.split(";")]
        elif is_credential(lower):
            scheme, _, rest = value.strip().partition(" ")
            found += [value.strip(), rest]
            if scheme.lower() == "basic":
                found.append(_password(rest))
    place = place_of(request.url)
    found.append(place.user.partition(":")[2])
    for field in place.query.split("&"):
        name, _, value = field.partition("=")
        if is_credential(name.lower()):
            found.append(value)
    return [
        each.encode("utf-8", "surrogateescape") for each in found if len(each) >= _SHORTEST_SECRET
    ]


def _password(pair: str) -> str:
    from base64 import b64decode

    try:
        return b64decode(pair).decode().partition(":")[2]
    except ValueError:
        return ""
