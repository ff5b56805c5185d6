"""The settings of a Keyer: read and checked once, when a decorator is applied."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from memoleo._functions.compiled import UNSET, VAR_KEYWORD, Parameter
from memoleo.errors import ConfigError
from memoleo.keys._canonical import Unkeyable, canonical
from memoleo.keys._normalize import normal_text

__all__ = ["Settings", "content_of_version", "read_settings"]

Change = Callable[[Any], Any]


class Settings(NamedTuple):
    """Which part of a call is keyed, and as what.

    Parameters
    ----------
    ignore
        names that are left out
    normalizers
        what changes an argument before it is keyed, by name of parameter
    state
        for methods: UNSET, None, attribute names, or a callable
    """

    ignore: frozenset[str]
    normalizers: dict[str, Change]
    state: Any

    def content(self) -> list[Any]:
        """Return what of the settings decides which calls are the same."""
        normalizers = {
            name: "text" if change is normal_text else _content_or_none(change)
            for name, change in self.normalizers.items()
        }
        state = self.state
        if state is UNSET:
            state = "content"
        elif callable(state):
            state = [_content_or_none(state)]
        return [sorted(self.ignore), normalizers, state]


def read_settings(
    parameters: tuple[Parameter, ...] | None, name: str, ignore: Any, normalize: Any, state: Any
) -> Settings:
    """Check the settings against a signature.

    Parameters
    ----------
    parameters
        the signature, or None if it isn't known
    name
        the function's name, for messages
    ignore, normalize, state
        as the user gave them

    Raises
    ------
    ConfigError
        a name is no parameter, or a setting has a wrong type
    """
    ignored = _known("ignore", ignore, parameters, name)
    normalizers: dict[str, Change] = {}
    if isinstance(normalize, Mapping):
        _known("normalize", normalize, parameters, name)
        normalizers = {one: _normalizer(change) for one, change in normalize.items()}
    elif normalize is not None:
        change = _normalizer(normalize)
        normalizers = {one.name: change for one in parameters or ()}
    return Settings(ignored, normalizers, _state(state))


def content_of_version(version: Any) -> bytes:
    """Return the canonical bytes of `version`.

    Raises
    ------
    ConfigError
        it has no content
    """
    try:
        return canonical(version)
    except Unkeyable as error:
        raise ConfigError(
            f"version= must have content: version{error.path} is {error.type_name}, "
            f"and {error.reason}."
        ) from None


def _known(
    setting: str, names: Any, parameters: tuple[Parameter, ...] | None, func: str
) -> frozenset[str]:
    found = (names,) if isinstance(names, str) else names
    found = tuple(found) if isinstance(found, Iterable) else (found,)
    if not all(isinstance(name, str) for name in found):
        raise ConfigError(f"{setting}= takes parameter names, not {names!r}.")
    if parameters is None or any(one.kind == VAR_KEYWORD for one in parameters):
        return frozenset(found)
    known = [one.name for one in parameters]
    for name in found:
        if name not in known:
            raise ConfigError(_unknown(setting, name, known, func))
    return frozenset(found)


def _normalizer(change: Any) -> Change:
    if isinstance(change, str) and change == "text":
        return normal_text
    if not callable(change):
        raise ConfigError(
            f'normalize= takes "text", a callable, or {{parameter: either}}, not {change!r}.'
        )
    return change  # type: ignore[no-any-return]


def _state(state: Any) -> Any:
    if state is UNSET or state is None or callable(state):
        return state
    names = (state,) if isinstance(state, str) else state
    names = tuple(names) if isinstance(names, Iterable) else (names,)
    if not all(map(_is_attribute, names)):
        raise ConfigError(f"state= takes attribute names, a callable or None, not {state!r}.")
    return names


def _is_attribute(name: Any) -> bool:
    return isinstance(name, str) and all(part.isidentifier() for part in name.split("."))


def _content_or_none(value: Any) -> bytes | None:
    try:
        return canonical(value)
    except Unkeyable:
        return None


def _unknown(setting: str, name: str, known: list[str], func: str) -> str:
    # Only a mistake needs it.
    from difflib import get_close_matches

    close = get_close_matches(name, known, 1)
    hint = f" Did you mean {close[0]!r}?" if close else f" It has: {', '.join(known) or 'none'}."
    return f"{setting}= names {name!r}, which is not a parameter of {func}.{hint}"
