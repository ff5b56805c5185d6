"""The head decides without I/O: a list of steps and answers is all that it takes to test it."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from memoleo._entry import Entry
from memoleo._flow.flow import Intent, flow
from memoleo._flow.policy import Freshness, Policy
from memoleo._flow.steps import (
    Alone,
    Call,
    Count,
    Failed,
    Followed,
    Lead,
    Leading,
    Leave,
    Now,
    Open,
    Returned,
    Save,
    Seen,
    Spawn,
)

NOW = 1000.0


def entry(age: float = 0.0) -> Entry:
    return Entry(b"stored", "auto", NOW - age, 60.0, cost_ms=5.0)


def freshness(ttl: float = 60.0, **windows: float) -> Freshness:
    return Freshness(ttl, Policy(**windows))


class World:
    """Answers the steps of one flow from a script, and writes down what was asked."""

    def __init__(self, **answers: Any) -> None:
        self.answers = {
            "Now": [NOW] * 9,
            "Open": [Returned("stored")] * 9,
            "Call": [Returned("computed", 7.0)],
            **answers,
        }
        self.steps: list[Any] = []

    def run(self, intent: Intent = Intent.ANSWER, **options: Any) -> Any:
        found = options.pop("found", None)
        streamed = options.pop("streamed", False)
        steps = flow(intent, freshness(**options), found=found, streamed=streamed)
        answer = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration as stop:
                return stop.value
            self.steps.append(step)
            name = type(step).__name__
            answer = self.answers[name].pop(0) if name in self.answers else None

    @property
    def names(self) -> list[str]:
        return [_name(step) for step in self.steps]


def _name(step: Any) -> str:
    if isinstance(step, Count):
        return f"Count:{step.outcome}"
    return "Call:miss" if step == Call(missed=True) else type(step).__name__


def test_fresh_entry_is_served_without_a_call() -> None:
    """A fresh entry is decoded, counted as a hit and returned; nothing else happens."""
    world = World()
    assert world.run(found=entry(age=59.9)).value == "stored"
    assert world.names == ["Now", "Open", "Count:hit"]


def test_expired_entry_is_computed_by_a_leader() -> None:
    """Past its TTL, without stale windows, an entry counts for nothing."""
    world = World(Lead=[Leading()])
    assert world.run(found=entry(age=60.0)).value == "computed"
    assert world.names == ["Now", "Count:expired", "Lead", "Call:miss", "Save"]
    assert world.steps[-1] == Save(Returned("computed", 7.0))


def test_unreadable_entry_is_a_miss() -> None:
    """What can't be decoded is computed anew."""
    world = World(Open=[None], Lead=[Leading()])
    assert world.run(found=entry()).value == "computed"


def test_stale_entry_is_served_while_one_refresh_runs() -> None:
    """Within stale_while_revalidate the caller doesn't wait."""
    world = World()
    assert world.run(found=entry(age=70), stale_while_revalidate=20.0).value == "stored"
    assert world.names == ["Now", "Open", "Count:stale", "Spawn"]
    assert isinstance(world.steps[-1], Spawn)


def test_stale_entry_excuses_a_failure() -> None:
    """Within stale_if_error a failed call is answered with what was stored."""
    error = OSError("down")
    world = World(Call=[Failed(error)], Lead=[Leading()])
    assert world.run(found=entry(age=70), stale_if_error=20.0).value == "stored"
    assert world.names[-2:] == ["Open", "Count:stale_if_error"]
    assert world.steps[-1].error is error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), GeneratorExit(), SystemExit()])
def test_stale_entry_does_not_excuse_being_stopped(error: BaseException) -> None:
    """Cancelling and interrupting are not failures of the call: they pass through."""
    world = World(Call=[Failed(error)], Lead=[Leading()])
    assert world.run(found=entry(age=70), stale_if_error=20.0).error is error
    assert "Count:error" not in world.names


def test_failure_is_returned_and_never_saved() -> None:
    """A failed call leaves nothing behind, and lets its followers go."""
    error = ValueError("no")
    world = World(Call=[Failed(error)], Lead=[Leading()])
    assert world.run().error is error
    assert world.names == ["Lead", "Call:miss", "Count:error", "Leave"]
    assert world.steps[-1] == Leave(None, failed=True)


def test_second_look_serves_what_was_just_stored() -> None:
    """Who leads right after another has finished finds the result instead of computing again."""
    world = World(Lead=[Leading(entry())])
    assert world.run().value == "stored"
    assert world.names == ["Lead", "Now", "Open", "Leave", "Count:hit"]


def test_follower_opens_the_leaders_entry() -> None:
    """A follower decodes a copy of its own."""
    world = World(Lead=[Followed(entry())])
    assert world.run().value == "stored"
    assert world.names == ["Lead", "Open", "Count:shared"]


def test_follower_takes_over_from_a_failed_leader() -> None:
    """When the leader leaves nothing, a follower becomes the next leader."""
    world = World(Lead=[Followed(None, True), Leading()])
    assert world.run().value == "computed"
    assert world.names == ["Lead", "Lead", "Call:miss", "Save"]


def test_follower_of_two_failures_computes_by_itself() -> None:
    """A key that fails time and again doesn't make a queue: everybody computes."""
    world = World(Lead=[Followed(None, True), Followed(None, True)])
    assert world.run().value == "computed"
    assert world.names == ["Lead", "Lead", "Call:miss", "Save"]


def test_recursion_computes_alone() -> None:
    """A call inside the computation of its own key doesn't wait for itself."""
    world = World(Lead=[Alone()])
    assert world.run().value == "computed"
    assert world.names == ["Lead", "Call:miss", "Save"]


def test_refresh_neither_looks_nor_waits() -> None:
    """A refresh computes and replaces, whatever is stored."""
    world = World()
    assert world.run(Intent.REFRESH, found=entry()).value == "computed"
    assert world.names == ["Call:miss", "Save"]


def test_revalidation_gives_way_to_another() -> None:
    """Only one refresh runs at a time."""
    world = World(Lead=[Alone()])
    world.run(Intent.REVALIDATE)
    assert world.steps == [Lead(wait=False)]


def test_revalidation_stops_if_the_entry_became_fresh() -> None:
    """A refresh that comes late doesn't compute."""
    world = World(Lead=[Leading(entry())])
    world.run(Intent.REVALIDATE)
    assert world.names == ["Lead", "Now", "Leave"]


def test_observing_serves_and_saves_nothing() -> None:
    """Observing computes each call, and only counts."""
    world = World(Seen=[True])
    assert world.run(Intent.OBSERVE, found=entry()).value == "computed"
    assert world.names == ["Now", "Seen", "Call", "Count:would_hit"]
    assert world.steps[1] == Seen(NOW)
    assert world.steps[-1].ms == 7.0


def test_streams_are_not_shared() -> None:
    """An iterator is consumed by its own caller, and stores itself: no flight, no save."""
    world = World()
    assert world.run(streamed=True).value == "computed"
    assert world.names == ["Call:miss"]


@pytest.mark.parametrize(
    ("age", "ttl", "fresh"),
    [(0, 60, True), (59.9, 60, True), (60, 60, False), (-1, 60, False), (-1, inf, True)],
)
def test_freshness_is_judged_by_age(age: float, ttl: float, fresh: bool) -> None:
    """An entry from the future can't be judged: unless it never expires it is not fresh."""
    assert freshness(ttl).fresh(NOW - age, NOW) is fresh


def test_clock_is_read_once_before_the_call() -> None:
    """One moment judges the entry that was found."""
    world = World(Lead=[Leading()])
    world.run(found=entry(age=61))
    assert [step for step in world.steps if isinstance(step, (Now, Call, Save, Open))][0] == Now()


def test_follower_of_an_unshared_result_computes_at_once() -> None:
    """A result that is not stored makes no queue of those who want the same."""
    world = World(Lead=[Followed(None)])
    assert world.run().value == "computed"
    assert world.names == ["Lead", "Call:miss", "Save"]
