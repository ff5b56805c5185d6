"""What an observed run says at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memoleo._plain import plain_name
from memoleo.launch._observed import Saving

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["as_data", "as_table", "sentence"]


def as_data(savings: dict[str, Saving]) -> dict[str, Any]:
    """Return plain data: ``{"types": {type: …}, "calls", "would_hit", "would_save_ms"}``."""
    return {
        "types": {
            name: {
                "calls": each.calls,
                "would_hit": each.hits,
                "would_miss": each.calls - each.hits,
                "hit_rate": 100 * each.hits / each.calls,
                "total_ms": each.total_ms,
                "would_save_ms": each.saved_ms,
            }
            for name, each in sorted(savings.items())
        },
        "calls": sum(each.calls for each in savings.values()),
        "would_hit": sum(each.hits for each in savings.values()),
        "would_save_ms": sum(each.saved_ms for each in savings.values()),
    }


def as_table(savings: dict[str, Saving]) -> Table:
    """Return a row per type."""
    from rich.table import Table

    table = Table("type", title="observed, nothing was served")
    for name in ("calls", "would be hits", "hit rate", "took", "would save"):
        table.add_column(name, justify="right")
    for name, each in sorted(savings.items()):
        table.add_row(
            plain_name(name),
            f"{each.calls:,}",
            f"{each.hits:,}",
            f"{100 * each.hits / each.calls:.1f} %",
            f"{each.total_ms / 1000:,.2f} s",
            f"{each.saved_ms / 1000:,.2f} s",
        )
    return table


def sentence(savings: dict[str, Saving]) -> str:
    """Return the sum in words."""
    calls = sum(each.calls for each in savings.values())
    hits = sum(each.hits for each in savings.values())
    saved = sum(each.saved_ms for each in savings.values()) / 1000
    if not calls:
        return "No call was made that memoleo would cache."
    return (
        f"{hits:,} of {calls:,} calls would have been answered from the cache, "
        f"and {saved:,.2f} s saved."
    )
