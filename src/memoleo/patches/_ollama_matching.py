"""Which calls a profile or a policy is meant for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any

import msgspec

from memoleo.errors import ConfigError
from memoleo.patches._ollama_request import VERBS, full_name

__all__ = ["Match", "make_match"]

_PATHS = {path.rpartition("/")[2]: path for path in VERBS}


class Match(msgspec.Struct, frozen=True):
    """Conditions on a call, all of which must hold; one that is `None` or empty always does.

    Parameters
    ----------
    paths
        the paths of its verb
    type
        the category that its answer is stored under
    model
        a pattern of the model's name, with or without its tag (`fnmatch`)
    when
        a predicate of the request's body
    or_images
        whether a call with images is meant too, whatever its type
    """

    paths: tuple[str, ...] = ()
    type: str | None = None
    model: str | None = None
    when: Callable[[Mapping[str, Any]], Any] | None = None
    or_images: bool = False

    @property
    def says_anything(self) -> bool:
        """Whether it is more than a choice of verbs."""
        return self.type is not None or self.model is not None or self.when is not None

    @property
    def looks_inside(self) -> bool:
        """Whether the answer depends on more than verb, type and model."""
        return self.when is not None or self.or_images

    def holds(self, path: str, type: str, body: dict[str, Any]) -> bool:
        """Whether a call is meant."""
        if self.paths and path not in self.paths:
            return False
        if self.model is not None and not _named(self.model, body.get("model")):
            return False
        if self.type is not None and self.type != type and not (self.or_images and _images(body)):
            return False
        return self.when is None or bool(self.when(MappingProxyType(body)))


def _named(pattern: str, model: Any) -> bool:
    if not isinstance(model, str):
        return False
    full = full_name(model)
    names = (full, full.removesuffix(":latest"))
    return any(fnmatchcase(name, pattern) for name in names)


def _images(body: dict[str, Any]) -> bool:
    messages = body.get("messages")
    holders = [body, *(messages if isinstance(messages, (list, tuple)) else ())]
    return any(isinstance(each, dict) and each.get("images") for each in holders)


def make_match(given: dict[str, Any], where: str, *, typed: bool = True) -> Match:
    """Take the conditions out of a user's settings, and check them.

    Parameters
    ----------
    given
        the settings; what is taken is removed
    where
        begins an error message
    typed
        whether `type` is a condition

    Raises
    ------
    ConfigError
        one of them is wrong
    """
    verbs = given.pop("verb", ())
    verbs = (verbs,) if isinstance(verbs, str) else verbs
    if not isinstance(verbs, (list, tuple)) or not all(verb in _PATHS for verb in verbs):
        raise ConfigError(f"{where}: verb={verbs!r}: expected {', '.join(_PATHS)}, or some of them")
    texts = {name: given.pop(name, None) for name in ("type", "model") if name != "type" or typed}
    for name, value in texts.items():
        if value is not None and (not isinstance(value, str) or not value):
            raise ConfigError(f"{where}: {name}={value!r}: expected text")
    when = given.pop("when", None)
    if when is not None and not callable(when):
        raise ConfigError(f"{where}: when={when!r}: expected f(body) -> bool")
    return Match(tuple(_PATHS[verb] for verb in verbs), texts.get("type"), texts["model"], when)
