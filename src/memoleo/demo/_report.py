"""What the demo says at its end: per stage, cold against warm."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from memoleo.demo.worker import STAGES

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["Run", "as_data", "as_table", "verdict"]


@dataclass
class Run:
    """What one process did.

    Parameters
    ----------
    name
        "cold" or "warm"
    calls
        what the worker printed, one a call
    model_calls
        the calls that reached the model, as the server counted them
    wall_s
        seconds from the start of the process to its end
    """

    name: str
    calls: list[dict[str, Any]] = field(default_factory=list)
    model_calls: int = 0
    wall_s: float = 0.0

    def stage(self, name: str) -> dict[str, Any]:
        """Return the numbers of a stage; latencies and time saved in milliseconds."""
        calls = [call for call in self.calls if call["stage"] == name]
        times = sorted(call["ms"] for call in calls)
        hits = sum(call["hits"] for call in calls)
        return {
            "count": len(calls),
            "p50_ms": _quantile(times, 0.50),
            "p95_ms": _quantile(times, 0.95),
            "hits": hits,
            "hit_rate": 100.0 * hits / len(calls) if calls else 0.0,
            "tokens_saved": sum(call["tokens_saved"] for call in calls),
            "saved_ms": sum(call["saved_ms"] for call in calls),
        }


def _quantile(times: list[float], share: float) -> float:
    return times[max(0, math.ceil(share * len(times)) - 1)] if times else 0.0


def as_data(cold: Run, warm: Run) -> dict[str, Any]:
    """Return both runs as plain data."""
    return {
        run.name: {
            "wall_s": run.wall_s,
            "model_calls": run.model_calls,
            "stages": {stage: run.stage(stage) for stage in STAGES},
        }
        for run in (cold, warm)
    }


def as_table(cold: Run, warm: Run) -> Table:
    """Return the table."""
    from rich.table import Table

    table = Table(title="The same program, twice", title_justify="left")
    for heading in ("stage", "run"):
        table.add_column(heading)
    for heading in ("calls", "p50", "p95", "hit rate", "tokens saved", "time saved"):
        table.add_column(heading, justify="right")
    for stage in STAGES:
        for run in (cold, warm):
            numbers = run.stage(stage)
            table.add_row(
                stage if run is cold else "",
                run.name,
                str(numbers["count"]),
                _duration(numbers["p50_ms"]),
                _duration(numbers["p95_ms"]),
                f"{numbers['hit_rate']:.0f} %",
                f"{numbers['tokens_saved']:,.0f}",
                _duration(numbers["saved_ms"]),
                end_section=run is warm,
            )
    return table


def verdict(cold: Run, warm: Run) -> tuple[bool, str]:
    """Return whether the warm run was right, and a sentence about it."""
    calls = f"{warm.model_calls} model call{'' if warm.model_calls == 1 else 's'}"
    sentence = (
        f"The warm run made {calls}, says the server; the cold one made {cold.model_calls}. "
        f"{cold.wall_s:.1f} s became {warm.wall_s:.1f} s."
    )
    other = sum(
        one["answer"] != two["answer"] for one, two in zip(cold.calls, warm.calls, strict=True)
    )
    if other:
        sentence += f" {other} answers of the warm run differ from those of the cold one!"
    else:
        sentence += " All answers are the same."
    return warm.model_calls == 0 and not other, sentence


def _duration(ms: float) -> str:
    if ms < 1:
        return f"{ms * 1000:.0f} µs"
    if ms < 1000:
        return f"{ms:.1f} ms" if ms < 10 else f"{ms:.0f} ms"
    return f"{ms / 1000:.1f} s"
