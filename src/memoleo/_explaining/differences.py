"""What differs between the keys of two calls, told by their parts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from memoleo._flow.parts import Inner, Parts, PartsMaker
from memoleo.keys._portrait import Portrait

__all__ = ["Difference", "differences"]

_MOST = 12


class Difference(msgspec.Struct, frozen=True):
    """One part in which two keys differ.

    Parameters
    ----------
    part
        what differs, in words: an argument with the path inside it, such as "options['seed']", or
        what of the function, such as "the code of m.helper"
    kind
        "argument", "code", "constant", "captured", "setting", or "other"
    now, then
        the beginnings of both values, where ``caching.explain`` is "previews"; else empty
    """

    part: str
    kind: str
    now: str = ""
    then: str = ""

    def __str__(self) -> str:
        if not self.now and not self.then:
            return self.part
        return f"{self.part}: {self.now or '(nothing)'}, was {self.then or '(nothing)'}"


def differences(
    mine: Parts,
    portrait: Portrait,
    theirs: Parts,
    other: Portrait | None,
    maker: PartsMaker,
    values: tuple[Any, ...] | None = None,
) -> tuple[Difference, ...]:
    """Return what differs between two keys, the arguments first.

    Parameters
    ----------
    mine, portrait
        the parts of one key, and what is written down of its function
    theirs, other
        the same of the other key; its portrait is `None` if the store has it no more
    maker
        who made the parts of both
    values
        what is keyed of the first, if it is at hand: it gives names to what is inside
    """
    found = list(_arguments(mine, portrait, theirs, other or portrait, maker, values))
    if mine.portrait != theirs.portrait:
        if other is not None:
            found += _facts(portrait, other)
        if not found:
            found.append(Difference("the function, or how it is cached", "code"))
    return tuple(found[:_MOST])


def _arguments(
    mine: Parts,
    portrait: Portrait,
    theirs: Parts,
    other: Portrait,
    maker: PartsMaker,
    values: tuple[Any, ...] | None,
) -> Iterator[Difference]:
    places = {name: place for place, name in enumerate(other.names)}
    for place, name in enumerate(portrait.names):
        there = places.pop(name, None)
        if there is None:
            yield Difference(f"{name}, which was not there", _kind(name))
            continue
        if mine.digest(place) == theirs.digest(there):
            continue
        value = None if values is None else values[place]
        inside = list(_inside(name, mine.inner.get(place), theirs.inner.get(there), maker, value))
        if 0 < len(inside) <= 3:
            yield from inside
        else:
            yield Difference(name, _kind(name), _preview(mine, place), _preview(theirs, there))
    for name in places:
        yield Difference(f"{name}, which is not there", _kind(name))


def _preview(parts: Parts, place: int) -> str:
    return parts.previews[place] if place < len(parts.previews) else ""


def _kind(name: str) -> str:
    return "captured" if name.endswith("(captured)") else "argument"


def _inside(
    name: str, mine: Inner | None, theirs: Inner | None, maker: PartsMaker, value: Any
) -> Iterator[Difference]:
    if mine is None or theirs is None or bool(mine.names) != bool(theirs.names):
        return
    known = {}
    if type(value) is dict:
        known = {maker.name_digest(one): _step(name, one) for one in value}
    elif not mine.names:
        known = {mark: f"{name}[{place}]" for place, (mark, _) in enumerate(mine.pairs())}
    before = dict(theirs.pairs())
    for mark, item in mine.pairs():
        path = known.get(mark, f"an item of {name}")
        if mark not in before:
            yield Difference(f"{path}, which was not there", "argument")
        elif before.pop(mark) != item:
            yield Difference(path, "argument")
    if before:
        some = "an item" if len(before) == 1 else f"{len(before)} items"
        yield Difference(f"{name}, which had {some} more", "argument")


def _step(name: str, item: Any) -> str:
    return f"{name}.{item}" if name == "self" else f"{name}[{item!r}]"


def _facts(now: Portrait, then: Portrait) -> Iterator[Difference]:
    """Return which facts about a function changed; what it reads only where nothing else tells."""
    changed = {
        name
        for name in (*now.facts, *then.facts)
        if now.facts.get(name) != then.facts.get(name) and not name.startswith("live ")
    }
    telling = {name for name in changed if name.partition(" ")[0] not in _STRUCTURE}
    for name in sorted(telling or changed, key=lambda one: (one.partition(" ")[0] != "logic", one)):
        kind, text = _fact(name, now.label)
        if name not in then.facts:
            text += ", which was not there"
        elif name not in now.facts:
            text += ", which is not there any more"
        yield Difference(text, kind)


_STRUCTURE = frozenset({"reads", "root", "layer", "base", "member"})


def _fact(fact: str, label: str) -> tuple[str, str]:
    """Return the kind of a fact, and what people call it."""
    word, _, rest = fact.partition(" ")
    names = [name.replace(":", ".") for name in rest.split(" ")]
    first, last = names[0], names[-1]
    if word == "logic":
        return "code", "the function's own code" if rest == label else f"the code of {first}"
    if word == "default":
        return "code", f"the default of {last or 'an argument'} in {first}"
    if word == "constant":
        return "constant", f"the constant {'.'.join(names)}"
    if word == "cell":
        return "captured", f"{last}, which {first} captures"
    if word in ("class", "fields"):
        return "code", f"the class {first}" if rest else "the class of self"
    if word == "field":
        return "code", f"{last} of the field {names[1]} in {first}"
    if word == "held":
        return "captured", f"{last}, which a decorator around {first} holds"
    if word == "reads":
        return "code", f"what {first} reads"
    return _OTHERS.get(word, ("other", fact))


_OTHERS = {
    "type": ("setting", "type="),
    "version": ("setting", "version="),
    "settings": ("setting", "its parameters, or ignore=, normalize=, state="),
    "root": ("code", "the function's name"),
    "layer": ("code", "a decorator around it"),
}
