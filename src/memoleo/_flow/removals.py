"""What was removed of late: a run that began before it must not bring it back."""

from __future__ import annotations

from collections.abc import Collection

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
        the number of the run whose own result replaces the rest; 0 for none
    """

    keys: frozenset[bytes] | None = None
    type: str | None = None
    tag: str | None = None
    label: str | None = None
    by: int = 0

    def covers(self, job: Job, key: bytes, tags: Collection[str] | None = None) -> bool:
        """Whether a call's entry is among it.

        Parameters
        ----------
        job, key
            the call, and the key that its result is stored under
        tags
            those that its result brings; `None` if there is no result yet: they may be any
        """
        policy = job.policy
        return (
            (self.keys is None or key in self.keys)
            and self.type in (None, policy.type)
            and self.label in (None, policy.label)
            and (
                self.tag is None
                or self.tag in policy.tags
                or (job.tags is not None and (tags is None or self.tag in tags))
            )
        )
