"""Marks lead to keys that were made before: never the same one for different values."""

from __future__ import annotations

import enum
import pickle
import signal
import sys
import threading
from array import array
from collections import OrderedDict
from decimal import Decimal
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from memoleo.keys import Keyer
from memoleo.keys._marks import mark_of


class Text(str):
    __slots__ = ()


class Level(enum.IntEnum):
    LOW = 1


class Point(NamedTuple):
    x: int


class Hidden:
    """Pickles as if it were nothing but text."""

    def __reduce__(self) -> Any:
        return "text"


PLAIN: list[Any] = [
    1, True, 1.0, "1", b"1", None, 0, False, 0.0, -0.0, "", b"", 2**64, float(2**64),
    [], (), {}, set(), frozenset(), [1], (1,), {1}, frozenset({1}), {1: 1}, {"1": 1}, {1: "1"},
    [[1]], [(1,)], ([1],), ((1,),), [1, 2], [2, 1], [[1], 2], [[1, 2]], "12", ["1", "2"], ["12"],
    {"a": [1]}, {"a": (1,)}, {"a": {"b": 1}}, {"a": None}, {"a": "b"}, ["a", "b"], "\ud800",
    float("inf"), float("-inf"), "é", "e\u0301",
]  # fmt: skip


def test_different_values_have_different_marks() -> None:
    """Builtin values that many encoders confuse are told apart, by type and by structure."""
    marks = [mark_of((value,)) for value in PLAIN]
    assert None not in marks
    same = [
        (one, other)
        for (one, mark), (other, another) in combinations(zip(PLAIN, marks, strict=True), 2)
        if mark == another
    ]
    assert same == []
    assert mark_of(("a", "b")) != mark_of(("ab",)) != mark_of((["a", "b"],))


@pytest.mark.parametrize(
    "value",
    [
        Text("x"), Level.LOW, Point(1), OrderedDict(x=1), bytearray(b"x"), memoryview(b"x"),
        array("b", b"x"), pickle.PickleBuffer(b"x"), Path("x"), Decimal(1), Hidden(), len, Hidden,
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_other_types_have_no_mark(value: Any) -> None:
    """Whatever isn't exactly of a builtin type is left to the key itself, however deep it lies."""
    assert mark_of((value,)) is None
    assert mark_of(({"a": [1, (value,)]},)) is None
    assert mark_of((1,)) == mark_of((1,))


def test_values_that_contain_themselves_have_no_mark() -> None:
    """A circle ends, and leaves nothing behind."""
    circle: list[Any] = []
    circle.append(circle)
    deep: list[Any] = []
    for _ in range(200_000):
        deep = [deep]
    for _ in range(50):
        assert mark_of((circle,)) is None
        assert mark_of(("before", deep)) is None
    assert mark_of(("a",)) == mark_of(("a",)) != mark_of(("b",))
    while deep:
        deep = deep.pop()


def test_long_texts_have_marks_too() -> None:
    """Texts that come in pieces count whole and in order."""
    one, other = "x" * 100_000, "y" * 100_000
    marks = {mark_of(values) for values in [(one, other), (other, one), (one,), (one + other,)]}
    assert len(marks) == 4
    assert mark_of((one, other)) in marks


def test_threads_never_get_each_others_marks() -> None:
    """Many threads that make marks at once get the ones that they would get alone."""
    alone = {number: mark_of(({"n": number, "filling": ["x"] * 20},)) for number in range(500)}
    wrong: list[int] = []

    def work() -> None:
        for _ in range(10):
            for number, mark in alone.items():
                if mark_of(({"n": number, "filling": ["x"] * 20},)) != mark:
                    wrong.append(number)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="Windows has no interval timer")
def test_signal_handlers_never_take_the_marks_of_what_they_interrupt() -> None:
    """A handler that makes keys in the middle of everything changes no key."""

    def take(value: Any) -> None: ...

    key = Keyer(take, version=1).key
    kept = {number: key(({"n": number},), {}) for number in range(300)}
    ran = []

    def handler(*_: object) -> None:
        ran.append(key((["from", "the", "handler"],), {}))

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        while len(ran) < 50:
            for number, found in kept.items():
                assert key(({"n": number},), {}) == found
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(set(ran)) == 1


@pytest.mark.parametrize("value", [Decimal(1), Point(1), Text("a"), len])
def test_a_value_without_a_mark_takes_few_steps(value: Any) -> None:
    """Nothing looks for a signal handler where a value is merely not plain."""
    calls = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event == "call"

    assert mark_of((value,)) is None
    sys.setprofile(count)
    mark_of((value,))
    sys.setprofile(None)
    assert calls < 5
