"""The errors that memoleo raises.

::

    MemoleoError
     ├─ ConfigError    (ValueError)  a setting or a decorator argument is wrong
     ├─ KeyingError    (TypeError)   a value has no content that could be keyed exactly
     ├─ CodecError     (ValueError)  a value can't be stored, or stored bytes can't be read
     ├─ BackendError                 a store failed
     │   └─ CorruptEntry             an entry does not verify against its checksum
     └─ CircuitOpenError             a host fails, and the user asked to fail fast

A program that only uses the decorators meets two of them: `ConfigError` when a decorator is
applied, and `KeyingError` when a function is called. The other two never leave a cached call:
the call runs, and the failure is logged and counted.
"""

from __future__ import annotations

__all__ = [
    "BackendError",
    "CircuitOpenError",
    "CodecError",
    "ConfigError",
    "CorruptEntry",
    "KeyingError",
    "MemoleoError",
]


class MemoleoError(Exception):
    """The parent of every error that memoleo raises."""


class ConfigError(MemoleoError, ValueError):
    """A setting, or an argument of a decorator, is unknown or has a bad value."""


class KeyingError(MemoleoError, TypeError):
    """A value can't be keyed exactly.

    The message names the parameter, the path inside it, the type, and the ways out.

    Parameters
    ----------
    type_name
        the qualified name of the type that can't be keyed
    reason
        why not, as the end of the sentence "… can't be keyed: "
    path
        where the value stands, for example ``labels[3].client``; empty at the top
    ways_out
        what the user can do, as the end of the sentence "Ways out: "
    """

    def __init__(
        self,
        type_name: str,
        reason: str,
        *,
        path: str = "",
        ways_out: str = (
            "name the parameter in ignore=(…), turn it into plain data with normalize={…}, "
            "or register an adapter for the type with memoleo.keys.register()"
        ),
    ) -> None:
        super().__init__(type_name, reason, path, ways_out)
        self.type_name = type_name
        self.reason = reason
        self.path = path
        self.ways_out = ways_out

    def __str__(self) -> str:
        place = f"{self.path}: " if self.path else ""
        return f"{place}{self.type_name} can't be keyed: {self.reason}. Ways out: {self.ways_out}."


class CodecError(MemoleoError, ValueError):
    """A value can't be encoded, or stored bytes can't be decoded."""


class BackendError(MemoleoError):
    """A store could not do what it was asked."""


class CorruptEntry(BackendError):
    """An entry was found, but its bytes don't verify: a miss that is counted as corrupt."""


class CircuitOpenError(MemoleoError, ConnectionError):
    """A call was not made, because its host failed again and again.

    It is only raised where the user asked to fail fast.

    Parameters
    ----------
    host
        which one
    retry_in
        seconds until a call may try again whether it works
    """

    def __init__(self, host: str, retry_in: float) -> None:
        super().__init__(
            f"{host} failed again and again, so this call was not made; "
            f"the next one may try in {retry_in:.3g} s"
        )
        self.host = host
        self.retry_in = retry_in

    def __reduce__(self) -> tuple[type[CircuitOpenError], tuple[str, float]]:
        return type(self), (self.host, self.retry_in)
