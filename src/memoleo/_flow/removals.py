"""What was removed of late: a run that began before it must not bring it back."""

from __future__ import annotations

import msgspec

from memoleo._flow.store import Job

__all__ = ["Removal"]


class Removal(msgspec.Struct, frozen=True):
    """What somebody removed, or replaced, by every condition that is given.

    Parameters
    ----------
    keys
        the keys; `None` for any
    type, tag, label
        as for `Backend.clear`
    by
        the `id` of the run whose own result replaces the rest; 0 for none
    """

    keys: frozenset[bytes] | None = None
    type: str | None = None
    tag: str | None = None
    label: str | None = None
    by: int = 0

    def covers(self, job: Job, key: bytes) -> bool:
        """Whether a call's entry, as it was before, is among it.

        Tags that a result brings are not known before there is one, so they may be any.
        """
        policy = job.policy
        return (
            (self.keys is None or key in self.keys)
            and self.type in (None, policy.type)
            and self.label in (None, policy.label)
            and (self.tag is None or self.tag in policy.tags or job.tags is not None)
        )
