"""Adding tasks to an editor's ``tasks.json`` without touching what stands there."""

from __future__ import annotations

import json
from json.decoder import JSONDecoder
from typing import Any

__all__ = ["NotSafe", "add_tasks"]

_SPACE = " \t\r\n"


class NotSafe(Exception):
    """The file can't be changed without a risk to what stands in it; says why."""


def add_tasks(text: str, tasks: list[dict[str, Any]]) -> str:
    """Return the text of a ``tasks.json`` with the tasks that it lacks, by their labels.

    What was there stays as it is, letter by letter: the new tasks are written behind the last one.

    Raises
    ------
    NotSafe
        the text has comments, as editors allow, or isn't what a list of tasks looks like
    """
    try:
        before = json.loads(text, object_pairs_hook=_without_doubles)
    except ValueError as error:
        raise NotSafe(f"it has comments, or is not plain JSON ({error})") from None
    if not isinstance(before, dict) or not isinstance(before.get("tasks"), list):
        raise NotSafe("it has no list of tasks")
    labels = {task.get("label") for task in before["tasks"] if isinstance(task, dict)}
    missing = [task for task in tasks if task["label"] not in labels]
    if not missing:
        return text
    after = _inserted(text, before["tasks"], missing)
    if json.loads(after) != {**before, "tasks": [*before["tasks"], *missing]}:
        raise NotSafe("it is written in a way that memoleo doesn't understand")
    return after


def _inserted(text: str, present: list[Any], missing: list[dict[str, Any]]) -> str:
    end = _end_of(text, "tasks") - 1  # where its closing bracket is
    newline = "\r\n" if "\r\n" in text else "\n"
    kept = text[:end].rstrip(_SPACE)
    rest = text[end:]
    blocks = []
    for task in missing:
        lines = json.dumps(task, indent=2, ensure_ascii=False).splitlines()
        blocks.append(newline.join(f"    {line}" for line in lines))
    joint = "," if present else ""
    return f"{kept}{joint}{newline}{f',{newline}'.join(blocks)}{newline}  {rest}"


def _end_of(text: str, name: str) -> int:
    """Return where the value of a member of the outermost object ends, in valid JSON."""
    decode = JSONDecoder().raw_decode
    place = text.index("{") + 1
    while True:
        key, place = decode(text, text.index('"', place))
        place = _skip(text, _skip(text, place) + 1)
        _, end = decode(text, place)
        if key == name:
            return end
        place = end


def _skip(text: str, place: int) -> int:
    while text[place] in _SPACE:
        place += 1
    return place


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice in it")
    return found
