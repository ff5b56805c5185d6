"""What a test can ask of the local server: to be slow, to fail, to break off, to change its model.

The switches act on the calls that ask the model: generate, chat, embed, embeddings.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

__all__ = ["Counts", "Switches"]


@dataclasses.dataclass
class Switches:
    """The switches, all off.

    Parameters
    ----------
    delay
        seconds to wait before each answer
    fail_next
        the next this many calls fail
    fail_status
        with this HTTP status
    fail_message
        and this message; empty: one that the real server gives with that status
    retry_after
        and this ``Retry-After`` header, in seconds; ``None``: without
    cut_after
        a stream ends after this many parts, without its last one and without an error
    error_after
        a stream ends after this many parts with an ``{"error": …}`` part
    digest
        the digest that the server tells of its models; empty: the model file's own
    """

    delay: float = 0.0
    fail_next: int = 0
    fail_status: int = 500
    fail_message: str = ""
    retry_after: float | None = None
    cut_after: int | None = None
    error_after: int | None = None
    digest: str = ""

    def change(self, values: dict[str, Any]) -> None:
        """Set switches by name.

        Raises
        ------
        ValueError
            if there is no such switch, or the value isn't of its type
        """
        known = {switch.name: switch.default for switch in dataclasses.fields(self)}
        for name, value in values.items():
            if name not in known:
                raise ValueError(f"unknown switch {name!r}; there are {', '.join(known)}")
            default = known[name]
            wanted = (int, float) if default is None or isinstance(default, float) else (int,)
            allowed = (str,) if isinstance(default, str) else wanted
            nothing = value is None and default is None
            if not nothing and (isinstance(value, bool) or not isinstance(value, allowed)):
                raise ValueError(f"switch {name!r} can't be {value!r}")
        for name, value in values.items():
            setattr(self, name, value)

    def as_dict(self) -> dict[str, Any]:
        """Return all switches by name."""
        return dataclasses.asdict(self)


@dataclasses.dataclass
class Counts:
    """What the server was asked, counted by the server itself.

    Parameters
    ----------
    requests
        requests per path, whatever became of them; the paths below ``/memoleo`` don't count
    model_calls
        calls for which the model computed; loading and unloading don't count
    embedded_inputs
        texts that were embedded
    eval_count
        tokens that the model wrote
    prompt_eval_count
        tokens that the model read
    """

    requests: Counter[str] = dataclasses.field(default_factory=Counter)
    model_calls: int = 0
    embedded_inputs: int = 0
    eval_count: int = 0
    prompt_eval_count: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return all counts as plain data."""
        return {**dataclasses.asdict(self), "requests": dict(self.requests)}
