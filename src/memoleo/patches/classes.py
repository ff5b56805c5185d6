"""Stand-ins for one class or one object of a program; the class and the object are left alone."""

from __future__ import annotations

import copyreg
import inspect
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from memoleo._cache.cache import Cache
from memoleo.config._targets import Target, target_from
from memoleo.errors import ConfigError
from memoleo.patches._places import nearest, places
from memoleo.patches._standins import stand_in

__all__ = ["proxied_class", "proxied_object"]

Methods = Mapping[str, Mapping[str, Any]] | Iterable[str]


def proxied_class(cls: type, methods: Methods, cache: Cache | None) -> type:
    """Return a subclass of which some methods answer from a cache.

    Parameters
    ----------
    cls
        any class that can be subclassed
    methods
        names, which may have wildcards, and the options of each as for `Target`
    cache
        `None` for the default one, looked up at each call

    Raises
    ------
    ConfigError
        there is no such method, an option is wrong, or the class can't be subclassed
    """
    made = {name: made for name, (made, _) in _stand_ins(cls, methods, cache).items()}
    made["__module__"] = cls.__module__
    made["__qualname__"] = cls.__qualname__
    made["__doc__"] = cls.__doc__
    made["__slots__"] = ()
    if "__reduce_ex__" not in made:
        made["__reduce_ex__"] = _reduce_as(cls)
    try:
        stand_in_class = types.new_class(cls.__name__, (cls,), {}, lambda body: body.update(made))
    except TypeError as error:
        raise ConfigError(f"proxy: {cls.__qualname__} can't be subclassed: {error}") from None
    return stand_in_class


def _reduce_as(cls: type) -> Callable[[Any, Any], Any]:
    def __reduce_ex__(self: Any, protocol: Any) -> Any:
        # Pickles name classes, and what has the name is the class itself.
        found = super(type(self), self).__reduce_ex__(protocol)
        if not isinstance(found, tuple):
            return found
        own = type(self)
        make, arguments = found[0], found[1]
        arguments = tuple(cls if each is own else each for each in arguments)
        make = _MAKERS.get(make, cls if make is own else make)
        return (make, arguments, *found[2:])

    return __reduce_ex__


def _new(cls: Any, *args: Any) -> Any:
    return cls.__new__(cls, *args)


def _new_ex(cls: Any, args: Any, kwargs: Any) -> Any:
    return cls.__new__(cls, *args, **kwargs)


# Under their own names, pickle insists on the very class of the object.
_MAKERS: dict[Any, Any] = {
    getattr(copyreg, "__newobj__"): _new,  # noqa: B009
    getattr(copyreg, "__newobj_ex__"): _new_ex,  # noqa: B009
}


def proxied_object(value: Any, methods: Methods, cache: Cache | None) -> Any:
    """Return an object that passes for another one, and answers some methods from a cache.

    Raises
    ------
    ConfigError
        there is no such method, or an option is wrong
    """
    from memoleo.patches._object_proxy import ObjectProxy

    made = _stand_ins(type(value), methods, cache)
    return ObjectProxy(value, {name: inner for name, (inner, _) in made.items()})


def _stand_ins(cls: type, methods: Methods, cache: Cache | None) -> dict[str, tuple[Any, Any]]:
    found: dict[str, tuple[Any, Any]] = {}
    for pattern, options in _options(methods).items():
        if not isinstance(pattern, str) or not pattern or "." in pattern:
            raise ConfigError(f"methods: {pattern!r} is no name of a method")
        target = _target(pattern, options)
        names = [name for _, name in places(cls, [pattern])]  # type: ignore[arg-type]
        if not names:
            near = nearest(cls, [pattern])  # type: ignore[arg-type]
            meant = f" Did you mean {near!r}?" if near else ""
            raise ConfigError(f"methods: {cls.__qualname__} has no {pattern!r}.{meant}")
        for name in names:
            try:
                made, inner = stand_in(inspect.getattr_static(cls, name), cls, name)
            except ConfigError as error:
                raise ConfigError(f"methods: {cls.__qualname__}.{name} {error}") from None
            inner.use(target, cache)
            found[name] = (made, inner)
    return found


def _options(methods: Methods) -> dict[str, Mapping[str, Any]]:
    if isinstance(methods, Mapping):
        return dict(methods)
    if isinstance(methods, str) or not isinstance(methods, Iterable):
        raise ConfigError(f"methods={methods!r}: expected names, or names and their options")
    return {name: {} for name in methods}


def _target(name: str, options: Any) -> Target:
    if not isinstance(options, Mapping):
        raise ConfigError(f"methods: {name}: expected options such as {{'ttl': '30d'}}")
    try:
        return target_from({"path": f"methods:{name}", **options})
    except ConfigError as error:
        raise ConfigError(f"methods: {name}: {error}") from None
