"""What the flow of a cached call asks its driver to do, and what the driver answers."""

from __future__ import annotations

from typing import Any

import msgspec

from memoleo._entry import Entry

__all__ = [
    "Alone",
    "Call",
    "Count",
    "Failed",
    "Followed",
    "Lead",
    "Leading",
    "Leave",
    "Now",
    "Open",
    "Returned",
    "Save",
    "Seen",
    "Spawn",
    "Step",
    "Unsee",
]


class Returned(msgspec.Struct, frozen=True):
    """A value, and how many milliseconds computing it took."""

    value: Any
    ms: float = 0.0


class Failed(msgspec.Struct, frozen=True):
    """An exception, and how many milliseconds it took to happen."""

    error: BaseException
    ms: float = 0.0


class Leading(msgspec.Struct, frozen=True):
    """Answers that this call computes the key; the others wait for it.

    Parameters
    ----------
    entry
        what is stored now: another may have finished just before
    """

    entry: Entry | None = None


class Followed(msgspec.Struct, frozen=True):
    """Another call computed the key.

    Parameters
    ----------
    entry
        what it left; `None` if there is nothing to share
    failed
        whether it failed, or was stopped, instead of having a result that is not stored
    """

    entry: Entry | None
    failed: bool = False


class Alone(msgspec.Struct, frozen=True):
    """Answers that this call computes by itself: it waits for itself, or waited long enough."""


class Now(msgspec.Struct, frozen=True):
    """Read the clock, once for the whole call. Answer: seconds since the epoch."""


class Open(msgspec.Struct, frozen=True):
    """Decode an entry. Answer: `Returned`, or `None` if it can't be read."""

    entry: Entry


class Lead(msgspec.Struct, frozen=True):
    """Become the one who computes the key, and look it up once more.

    Answer: `Leading`, `Followed` or `Alone`. With `wait` false nothing is waited for: a key that
    another computes answers `Alone`.
    """

    wait: bool = True


class Call(msgspec.Struct, frozen=True):
    """Run the user's function, counted as a miss or not. Answer: `Returned` or `Failed`."""

    missed: bool = True


class Save(msgspec.Struct, frozen=True):
    """Store the result, then stop leading, if need be, as `Leave` does. It is the last step."""

    result: Returned


class Leave(msgspec.Struct, frozen=True):
    """Stop leading, and hand to those who wait what they can share. No answer."""

    entry: Entry | None
    failed: bool = False


class Spawn(msgspec.Struct, frozen=True):
    """Refresh the key in the background. No answer."""


class Seen(msgspec.Struct, frozen=True):
    """Remember that the key was asked for at `now`. Answer: whether it was within its TTL."""

    now: float


class Unsee(msgspec.Struct, frozen=True):
    """Forget that the key was asked for, if this result of it would not be stored. No answer."""

    result: Returned | Failed


class Count(msgspec.Struct, frozen=True):
    """Count what happened. No answer.

    Parameters
    ----------
    outcome
        "hit", "stale", "shared", "stale_if_error", "expired", "error", "would_hit" or
        "would_miss"
    entry
        the entry that was served
    error
        what failed
    ms
        what serving the call would have saved, in milliseconds
    """

    outcome: str
    entry: Entry | None = None
    error: BaseException | None = None
    ms: float = 0.0


Step = Now | Open | Lead | Call | Save | Leave | Spawn | Seen | Unsee | Count
