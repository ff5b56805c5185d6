"""What computing hits again has shown."""

from __future__ import annotations

import msgspec

from memoleo._verifying.comparing import Change

__all__ = ["Finding", "Verified"]

_MOST_FINDINGS = 10


class Finding(msgspec.Struct, frozen=True):
    """One hit that turned out differently.

    Parameters
    ----------
    key, label
        of the call
    at
        when it was computed again, in seconds since the epoch
    age
        how old the entry was, in seconds
    change
        where the results differ; no value is kept. `None` if computing it failed
    error
        what it failed with: the name of the exception
    """

    key: str
    label: str
    at: float
    age: float
    change: Change | None = None
    error: str = ""

    def __str__(self) -> str:
        return f"{self.label or self.key}: {self.change or f'failed with {self.error}'}"


class Verified(msgspec.Struct):
    """What computing hits again has shown for one type of entries.

    Parameters
    ----------
    checked
        hits that were computed again and compared
    differed
        those whose result was another
    failed
        hits whose function raised this time, which says nothing about the entry
    last
        when the last one was computed, in seconds since the epoch
    findings
        the last of those that differed or failed, the newest first
    """

    checked: int = 0
    differed: int = 0
    failed: int = 0
    last: float = 0.0
    findings: list[Finding] = []

    @property
    def rate(self) -> float:
        """The percentage that differed."""
        return 100.0 * self.differed / self.checked if self.checked else 0.0

    def add(self, other: Verified) -> None:
        """Take in what another process found."""
        self.checked += other.checked
        self.differed += other.differed
        self.failed += other.failed
        self.last = max(self.last, other.last)
        found = sorted([*self.findings, *other.findings], key=lambda one: -one.at)
        self.findings = found[:_MOST_FINDINGS]
