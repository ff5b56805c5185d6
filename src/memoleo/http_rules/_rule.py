"""What a rule says, from code and from a table of the settings."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import cached_property
from typing import Any, cast

import msgspec

from memoleo._units import Duration, parse_duration
from memoleo.errors import ConfigError
from memoleo.http_rules._bodies import Pointer, parse_pointer
from memoleo.http_rules._messages import Answer
from memoleo.http_rules._urls import compile_pattern

__all__ = ["Parsed", "Rule", "rule_of"]

_STATUSES = frozenset({200, 201, 203, 204, 205})
# 202 promises an answer, and 206 is a part of one.
_STALE_WITH_BREAKER = 30 * 86400.0


class Rule(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """Which calls are cached, and what counts about them.

    Only what a rule names is ever cached; a rule needs a method and a URL.

    Parameters
    ----------
    method
        "GET", "POST", …, or several
    url
        a pattern such as ``"https://api.example.com/v1/*"``: ``*`` is anything, no scheme is
        both, no query is any query; ``re:…`` is a regular expression for the whole URL
    when
        JSON pointers into the body of the request, of which one has to lead to something that is
        not empty; without any, whatever the body says. A call that a rule isn't meant for in this
        way is left to the rules after it
    type
        the category of the answers
    ttl
        how long an answer is fresh; `None` takes the type's from the settings
    body
        JSON pointers to what of the body counts, such as ``("/inputs", "/parameters")``; `None`
        for all of it
    ignore_body
        JSON pointers to what of the body doesn't count
    headers
        names of the headers that count; `None` for all but the harmless ones (``User-Agent``,
        ``Accept-Encoding`` and the like) and the credentials
    ignore_headers, ignore_params
        names of headers, and of fields of the query, that don't count
    per_caller
        whether the answer depends on who asks. Then a keyed fingerprint of the credentials
        (``Authorization``, cookies, keys, …) counts; else they don't
    statuses
        of answers that are stored; left out, those of success
    require
        JSON pointers into the answer, and what has to be there: a value, or a list of values
    check
        ``f(answer) -> bool``, or ``"package.module:function"``: whether an answer is stored. It
        is asked last: an answer that is no success, not the JSON that it says it is, or an
        object with an `error` is never stored
    tags
        names for clearing in groups
    stale_while_revalidate, stale_if_error
        as for `memoleo.content_cached` (RFC 5861). A status of 500, 502, 503 or 504 is an error
    breaker
        whether calls to a host that keeps failing are held back for a while; answers that are
        stale are served then, and without one the call fails at once
    obey_cache_control
        whether ``Cache-Control``, ``Expires`` and ``Vary`` of the answer are obeyed: they can
        shorten the time that it is fresh, and forbid to store it
    revalidate
        whether the server is asked if an answer that is stale has changed (``ETag``,
        ``Last-Modified``), instead of for a new one
    api
        "ollama" or "huggingface": requests and answers are read as that service means them;
        presets say so

    Raises
    ------
    ConfigError
        something in it is wrong
    """

    method: str | Iterable[str]
    url: str
    when: Iterable[str] = ()
    type: str = "http"
    ttl: Duration | None = None
    body: Iterable[str] | None = None
    ignore_body: Iterable[str] = ()
    headers: Iterable[str] | None = None
    ignore_headers: Iterable[str] = ()
    ignore_params: Iterable[str] = ()
    per_caller: bool = True
    statuses: Iterable[int] | None = None
    require: Mapping[str, Any] = {}
    check: Callable[[Answer], bool] | str | None = None
    tags: Iterable[str] = ()
    stale_while_revalidate: Duration = 0
    stale_if_error: Duration | None = None
    breaker: bool = False
    obey_cache_control: bool = False
    revalidate: bool = False
    api: str | None = None

    def __post_init__(self) -> None:
        for name in ("per_caller", "breaker", "obey_cache_control", "revalidate"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name}={getattr(self, name)!r}: expected true or false")
        if not isinstance(self.type, str) or not self.type:
            raise ConfigError(f"type={self.type!r} is not the name of a category")
        # Everything that can be wrong is found out now.
        _ = self.parsed

    @cached_property
    def parsed(self) -> Parsed:
        """The rule in the form that calls need."""
        return Parsed(self)


class Parsed:
    """A rule, taken apart; see `Rule` for what the attributes mean."""

    __slots__ = (
        "check", "counted", "excuse_for", "ignored", "methods", "params", "pattern", "pointers",
        "required", "revalidate_for", "signature", "statuses", "tags", "ttl", "uncounted",
        "when",
    )  # fmt: skip

    def __init__(self, rule: Rule) -> None:
        methods = _names("method", rule.method)
        if not methods or not all(re.fullmatch(r"[A-Za-z]+", each) for each in methods):
            raise ConfigError(f'method={rule.method!r}: give "GET", "POST", …, or several')
        if not isinstance(rule.url, str) or not rule.url:
            raise ConfigError(f"url={rule.url!r}: give a pattern such as 'https://host/path/*'")
        self.methods = frozenset(each.upper() for each in methods)
        self.pattern = compile_pattern(rule.url)
        self.when = _pointers("when", rule.when)
        self.ttl = None if rule.ttl is None else parse_duration(rule.ttl)
        self.pointers = None if rule.body is None else _pointers("body", rule.body)
        self.ignored = _pointers("ignore_body", rule.ignore_body)
        self.counted = None if rule.headers is None else _lower("headers", rule.headers)
        self.uncounted = _lower("ignore_headers", rule.ignore_headers)
        self.params = frozenset(_names("ignore_params", rule.ignore_params))
        self.statuses = _statuses(rule.statuses)
        self.required = _required(rule.require)
        self.check = _check(rule.check)
        self.tags = _names("tags", rule.tags)
        self.revalidate_for = parse_duration(rule.stale_while_revalidate, "stale_while_revalidate")
        excuse = rule.stale_if_error
        if excuse is None:
            excuse = _STALE_WITH_BREAKER if rule.breaker else 0
        self.excuse_for = parse_duration(excuse, "stale_if_error")
        named = rule.check
        if callable(named):
            named = getattr(named, "__qualname__", type(named).__qualname__)
        judged = (rule.type, sorted(self.statuses), self.required, named, rule.api)
        self.signature = repr(judged).encode()


def _names(what: str, value: Any) -> tuple[str, ...]:
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, Iterable) or isinstance(names, (bytes, Mapping)):
        raise ConfigError(f"{what}={value!r}: expected a list of names")
    names = tuple(names)
    if not all(isinstance(name, str) and name for name in names):
        raise ConfigError(f"{what}={value!r}: expected a list of names")
    return names


def _lower(what: str, value: Any) -> frozenset[str]:
    return frozenset(name.lower() for name in _names(what, value))


def _pointers(what: str, value: Any) -> tuple[Pointer, ...]:
    try:
        return tuple(parse_pointer(each) for each in _names(what, value))
    except ConfigError as error:
        raise ConfigError(f"{what}: {error}") from None


def _statuses(value: Any) -> frozenset[int]:
    if value is None:
        return _STATUSES
    found = tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else ()
    if not found or not all(type(each) is int and 200 <= each < 600 for each in found):
        raise ConfigError(f"statuses={value!r}: expected a list of numbers such as [200, 404]")
    return frozenset(found)


def _required(value: Any) -> tuple[tuple[Pointer, list[Any]], ...]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"require={value!r}: expected JSON pointers and values")
    return tuple(
        (parse_pointer(pointer), list(found) if isinstance(found, (list, tuple)) else [found])
        for pointer, found in value.items()
    )


def _check(value: Any) -> Callable[[Answer], bool] | None:
    if value is None:
        return None
    if callable(value):
        found: Any = value
        return cast("Callable[[Answer], bool]", found)
    if not isinstance(value, str) or not re.fullmatch(r"[\w.]+:[\w.]+", value):
        raise ConfigError(f"check={value!r}: give f(answer), or text such as 'package.module:name'")

    def late(answer: Answer) -> bool:
        # Imported when it is needed: settings are read before the program has set its paths.
        from functools import reduce
        from importlib import import_module

        module, _, name = value.partition(":")
        found: Any = reduce(getattr, name.split("."), import_module(module))
        return bool(found(answer))

    return late


_FIELDS = Rule.__struct_fields__


def rule_of(table: Mapping[str, Any]) -> Rule:
    """Return the rule that a dictionary, or a table of the settings, describes.

    Raises
    ------
    ConfigError
        a key is unknown, one that is needed is missing, or a value is wrong
    """
    for name in table:
        if name not in _FIELDS:
            match = get_close_matches(str(name), _FIELDS, n=1)
            meant = f" Did you mean {match[0]}?" if match else f" Known: {', '.join(_FIELDS)}."
            raise ConfigError(f"{name}: a rule has no such key.{meant}")
    for name in ("method", "url"):
        if name not in table:
            raise ConfigError(f"{name}: a rule needs one: no call is cached by the other alone")
    return Rule(**table)
