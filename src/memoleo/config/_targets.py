"""Which classes and functions of a program are cached: what targets say."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any

import msgspec

from memoleo._units import Duration, parse_duration
from memoleo.errors import ConfigError

__all__ = ["UNSET", "Target", "targets_of"]

UNSET: Any = msgspec.UNSET

_PART = r"[\w*?\[\]!-]+"
_PATH = re.compile(rf"(?P<module>{_PART}(?:\.{_PART})*):(?P<name>{_PART}(?:\.{_PART})*)")
_DOTTED = re.compile(rf"{_PART}(?:\.{_PART})+")


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Functions or methods that are cached where they stand.

    Parameters
    ----------
    path
        such as ``package.module:Class.method`` or ``package.module:function``; ``*``, ``?`` and
        ``[…]`` stand for parts of names
    type, ttl, version, ignore, normalize, cache_if, tags, stale_while_revalidate, stale_if_error
        as for `memoleo.content_cached`; functions may be given as ``"package.module:name"``
    variants, state
        as well
    timed
        the name of an operation to record latencies under
    cached
        false to record latencies only

    Raises
    ------
    ConfigError
        something in it is wrong
    """

    path: str
    type: str = "default"
    ttl: Duration | None = None
    version: Any = None
    ignore: Iterable[str] = ()
    normalize: Any = None
    cache_if: Callable[[Any], bool] | str | None = None
    tags: Iterable[str] = ()
    stale_while_revalidate: Duration | None = None
    stale_if_error: Duration | None = None
    variants: int = 1
    state: Any = UNSET
    timed: str | None = None
    cached: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.path, str) or not (
            _PATH.fullmatch(self.path) or _DOTTED.fullmatch(self.path)
        ):
            raise ConfigError(
                f"path={self.path!r}: expected text such as 'package.module:Class.method'"
            )
        if not isinstance(self.type, str) or not self.type:
            raise ConfigError(f"type={self.type!r} is not the name of a category")
        for name in ("ttl", "stale_while_revalidate", "stale_if_error"):
            if getattr(self, name) is not None:
                parse_duration(getattr(self, name), name)
        if self.timed is not None and (not isinstance(self.timed, str) or not self.timed):
            raise ConfigError(f"timed={self.timed!r}: expected the name of an operation")
        if not isinstance(self.cached, bool):
            raise ConfigError(f"cached={self.cached!r}: expected true or false")
        if not self.cached and self.timed is None:
            raise ConfigError("cached=false: then say what is timed, or leave the target out")

    @property
    def splits(self) -> tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]:
        """The ways to read the path: names of a module, and names inside it."""
        module, colon, name = self.path.partition(":")
        if colon:
            return ((tuple(module.split(".")), tuple(name.split("."))),)
        parts = tuple(module.split("."))
        return tuple((parts[:at], parts[at:]) for at in range(len(parts) - 1, 0, -1))

    def options(self) -> dict[str, Any]:
        """Return the keywords of `content_cached`."""
        found = {name: getattr(self, name) for name in _OPTIONS}
        if isinstance(self.cache_if, str):
            found["cache_if"] = _late(self.cache_if)
        if isinstance(found["ignore"], str):
            found["ignore"] = (found["ignore"],)
        if isinstance(found["tags"], str):
            found["tags"] = (found["tags"],)
        if self.state is UNSET:
            del found["state"]
        return found


_OPTIONS = (
    "type", "ttl", "version", "ignore", "normalize", "cache_if", "tags", "stale_while_revalidate",
    "stale_if_error", "variants", "state",
)  # fmt: skip
_FIELDS = Target.__struct_fields__


def _late(path: str) -> Callable[[Any], bool]:
    def check(result: Any) -> bool:
        from functools import reduce
        from importlib import import_module

        module, _, name = path.partition(":")
        found: Any = reduce(getattr, name.split("."), import_module(module))
        return bool(found(result))

    return check


def targets_of(given: Any) -> tuple[Target, ...]:
    """Return targets from what `enable` or the settings give.

    Parameters
    ----------
    given
        a list of paths, of dictionaries with a `path`, of functions and methods themselves; or a
        dictionary from paths to options

    Raises
    ------
    ConfigError
        one of them is wrong; the message says which
    """
    if isinstance(given, Mapping):
        given = [{"path": path, **options} for path, options in given.items()]
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise ConfigError(f"targets={given!r}: expected a list")
    found = []
    for number, each in enumerate(given):
        try:
            found.append(_target(each))
        except (ConfigError, TypeError) as error:
            raise ConfigError(f"targets[{number}].{error}") from None
    return tuple(found)


def _target(given: Any) -> Target:
    if isinstance(given, Target):
        return given
    if isinstance(given, Mapping):
        return target_from(given)
    if isinstance(given, str):
        return Target(path=given)
    module, name = getattr(given, "__module__", None), getattr(given, "__qualname__", "")
    if not isinstance(module, str) or not name or "<" in name:
        raise ConfigError(f"path: {given!r} has no path: give 'package.module:Class.method'")
    return Target(path=f"{module}:{name}")


def target_from(table: Mapping[str, Any]) -> Target:
    """Return the target that a dictionary describes.

    Raises
    ------
    ConfigError
        a key is unknown or missing, or a value is wrong
    """
    for name in table:
        if name not in _FIELDS:
            match = get_close_matches(str(name), _FIELDS, n=1)
            meant = f" Did you mean {match[0]}?" if match else f" Known: {', '.join(_FIELDS)}."
            raise ConfigError(f"{name}: a target has no such key.{meant}")
    if "path" not in table:
        raise ConfigError("path: a target needs one")
    return Target(**table)
