"""What of a call is keyed, as the source of an expression over its parameters."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, NamedTuple

from memoleo._functions.compiled import UNSET, VAR_KEYWORD, VAR_POSITIONAL, Parameter
from memoleo.errors import KeyingError
from memoleo.keys._canonical import class_name, is_keyable
from memoleo.keys._instances import is_bare, self_content
from memoleo.keys._normalize import normal_text
from memoleo.keys._settings import Settings

__all__ = ["STATE_WAYS_OUT", "Layout", "layout_of", "layout_of_method"]

STATE_WAYS_OUT = (
    'name what belongs in the key with state=("attribute", …) or state=f, leave the instance '
    "out with state=None, or register an adapter for the type with memoleo.keys.register()"
)


class Layout(NamedTuple):
    """What is keyed of a call.

    Parameters
    ----------
    labels
        the name of each value, for errors
    values
        the source of each value
    names
        objects that the sources refer to, with a ``$``
    """

    labels: list[str]
    values: list[str]
    names: dict[str, Any]

    def add(self, label: str, value: str, **names: Any) -> None:
        """Add one value."""
        self.labels.append(label)
        self.values.append(value)
        self.names.update(names)


class _LeftOut:
    """The type of `_LEFT_OUT`."""

    __slots__ = ()

    def __memoleo_key__(self) -> str:
        return "left out"


# Stands for a default such as `object()`: it has no content, but it is known by being it.
_LEFT_OUT = _LeftOut()


def layout_of(parameters: tuple[Parameter, ...], settings: Settings) -> Layout:
    """Return what is keyed of a call with these parameters."""
    layout = Layout([], [], {})
    for place, one in enumerate(parameters):
        if one.name in settings.ignore:
            continue
        change = settings.normalizers.get(one.name)
        change_name = f"change{place}"
        names: dict[str, Any] = {}
        value = one.name
        if one.kind == VAR_KEYWORD:
            if settings.ignore or settings.normalizers:
                names[change_name] = _rest(settings, change)
                value = f"${change_name}({value})"
        elif change is not None:
            names[change_name] = _guarded(change, one.name)
            names["map"] = map
            many = one.kind == VAR_POSITIONAL
            value = f"[*$map(${change_name}, {value})]" if many else f"${change_name}({value})"
        elif one.kind == VAR_POSITIONAL:
            value = f"[*{value}]"
        if _is_sentinel(one.default):
            default = f"sentinel{place}"
            names |= {default: one.default, "left_out": _LEFT_OUT}
            value = f"$left_out if {one.name} is ${default} else {value}"
        layout.add(one.name, value, **names)
    return layout


def layout_of_method(
    parameters: tuple[Parameter, ...], settings: Settings, owner: type, of_class: bool
) -> Layout:
    """Return what is keyed of a call on an instance of `owner`, or on `owner` itself."""
    layout = Layout([], [], {})
    state = settings.state
    if state is None or (of_class and state is UNSET):
        layout.add("self", "None")
    else:
        if state is UNSET:
            read = self_content(owner)
        else:
            read = _guarded_state(state) if callable(state) else _attributes(state)
        layout.add("self", f"$state({parameters[0].name})", state=read)
    rest = layout_of(parameters[1:], settings)
    return Layout(
        layout.labels + rest.labels, layout.values + rest.values, layout.names | rest.names
    )


def _is_sentinel(default: Any) -> bool:
    if default is UNSET or is_keyable(default):
        return False
    return type(default) is object or is_bare(default)


def _rest(
    settings: Settings, normalizer: Callable[[Any], Any] | None
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def rest(found: dict[str, Any]) -> dict[str, Any]:
        kept = {}
        for name, value in found.items():
            if name not in settings.ignore:
                change = settings.normalizers.get(name, normalizer)
                kept[name] = _guarded(change, name)(value) if change else value
        return kept

    return rest


def _guarded(change: Callable[[Any], Any], name: str) -> Callable[[Any], Any]:
    """Return a normalizer whose `TypeError` can't be taken for a call that doesn't fit."""
    if change is normal_text:
        return change

    def guarded(value: Any) -> Any:
        try:
            return change(value)
        except Exception as error:
            reason = f"its normalize= callable raised {error!r}"
            raise KeyingError(class_name(type(value)), reason, path=name) from error

    return guarded


def _guarded_state(state: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return `state` so that its `TypeError` can't be taken for a call that doesn't fit."""

    def guarded(instance: Any) -> Any:
        try:
            return state(instance)
        except Exception as error:
            raise _state_error(instance, f"its state= callable raised {error!r}") from error

    return guarded


def _attributes(names: tuple[str, ...]) -> Callable[[Any], dict[str, Any]]:
    readers = [(name, attrgetter(name)) for name in names]

    def read(instance: Any) -> dict[str, Any]:
        found = {}
        for name, reader in readers:
            try:
                found[name] = reader(instance)
            except Exception as error:
                reason = (
                    f"there is no attribute {name}"
                    if isinstance(error, AttributeError)
                    else f"reading the attribute {name} raised {error!r}"
                )
                raise _state_error(instance, reason, f".{name}") from error
        return found

    return read


def _state_error(instance: Any, reason: str, path: str = "") -> KeyingError:
    name = class_name(type(instance))
    return KeyingError(name, reason, path=f"self{path}", ways_out=STATE_WAYS_OUT)
