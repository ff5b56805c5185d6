"""Where a cache lives, as a URL."""

from __future__ import annotations

from memoleo._units import parse_duration, parse_size
from memoleo.backends._protocol import Backend
from memoleo.errors import ConfigError

__all__ = ["open_backend", "shown_url"]

_SCHEMES = ("memory", "sqlite", "redis", "rediss", "upstash+https", "upstash+http")
_SHOWN = "memory://, sqlite:///, redis:// or upstash+https://"


def open_backend(url: str) -> Backend:
    """Return the backend that a URL names.

    ``memory://?max_entries=10000&max_bytes=256MiB`` is the memory of this process.
    ``sqlite:///cache.db?max_bytes=2GiB`` is a file relative to the working folder, and
    ``sqlite:////var/cache/a.db`` an absolute one; memory stands in front of it unless the URL
    says ``memory=0``, with ``memory=`` entries at most if it names a number.
    ``redis://host:6379/0?prefix=memoleo&timeout=250ms`` is a Redis or Valkey server, ``rediss://``
    one over TLS, and ``upstash+https://….upstash.io`` one of Upstash by its REST interface.

    Raises
    ------
    ConfigError
        the scheme or an option is unknown, or a value is bad
    """
    from urllib.parse import parse_qsl, unquote, urlsplit

    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ConfigError(f"{shown_url(url)!r} is no URL: {error}") from None
    if parts.scheme not in _SCHEMES:
        raise ConfigError(f"{shown_url(url)!r}: a cache URL begins with {_SHOWN}")
    if parts.fragment:
        raise ConfigError(f"{shown_url(url)!r}: write # as %23")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if parts.scheme == "memory":
        if parts.netloc or parts.path.strip("/"):
            raise ConfigError(f"{url!r}: memory:// takes options only, such as ?max_entries=1000")
        return _memory(url, options)
    if parts.scheme != "sqlite":
        return _remote(url, options)
    return _sqlite(url, parts.netloc, unquote(parts.path), options)


def shown_url(url: str) -> str:
    """Return a URL as it may be shown to people: without what stands before the @."""
    scheme, slashes, rest = url.partition("://")
    place, slash, path = rest.partition("/")
    return f"{scheme}{slashes}{place.rpartition('@')[2]}{slash}{path}"


def _remote(url: str, options: dict[str, str]) -> Backend:
    shown = shown_url(url)
    _check_options(shown, options, ("prefix", "timeout"))
    if "prefix" in options and not options["prefix"]:
        raise ConfigError(f"{shown!r}: prefix is empty")
    given: dict[str, str | float] = {**options}
    if "timeout" in options:
        try:
            given["timeout"] = parse_duration(options["timeout"], f"{shown!r}: timeout")
        except ConfigError:
            given["timeout"] = parse_duration(_number(options["timeout"]), f"{shown!r}: timeout")
    base = url.partition("?")[0]
    if base.startswith("upstash+"):
        from memoleo.backends.upstash import UpstashBackend

        return UpstashBackend(base.removeprefix("upstash+"), **given)  # type: ignore[arg-type]
    from memoleo.backends.redis import RedisBackend

    return RedisBackend(base, **given)  # type: ignore[arg-type]


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _memory(url: str, options: dict[str, str]) -> Backend:
    from memoleo.backends.memory import MemoryBackend

    return MemoryBackend(**_sizes(url, options, "max_entries", "max_bytes"))


def _sqlite(url: str, netloc: str, path: str, options: dict[str, str]) -> Backend:
    from pathlib import Path

    from memoleo.backends.sqlite import SQLiteBackend

    if netloc or len(path) < 2:
        raise ConfigError(
            f"{url!r}: write sqlite:///relative/path.db or sqlite:////absolute/path.db"
        )
    in_front = options.pop("memory", None)
    store = SQLiteBackend(
        Path(path[1:]).expanduser(), **_sizes(url, options, "max_entries", "max_bytes")
    )
    if in_front == "0":
        return store
    from memoleo.backends.memory import MemoryBackend
    from memoleo.backends.tiered import TieredBackend

    if in_front is None:
        return TieredBackend(MemoryBackend(), store)
    sizes = _sizes(url, {"memory": in_front}, "memory")
    return TieredBackend(MemoryBackend(max_entries=sizes["memory"]), store)


def _check_options(url: str, options: dict[str, str], known: tuple[str, ...]) -> None:
    for name in options:
        if name not in known:
            from difflib import get_close_matches

            near = get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"
            raise ConfigError(f"{url!r}: unknown option {name!r}{hint}")


def _sizes(url: str, options: dict[str, str], *known: str) -> dict[str, int]:
    _check_options(url, options, known)
    sizes = {}
    for name, value in options.items():
        sizes[name] = parse_size(value, f"{url!r}: {name}")
        if sizes[name] == 0:
            raise ConfigError(f"{url!r}: {name} must be at least 1")
    return sizes
