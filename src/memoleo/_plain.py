"""Texts from elsewhere, made fit for a terminal: names, tags and values may hold anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["plain", "plain_name"]

_KEPT = "\n\N{IDEOGRAPHIC SPACE}\N{ZERO WIDTH JOINER}"


def plain(text: str) -> str:
    """Return a text with what a terminal would obey, or hide, spelled out; lines stay lines."""
    return "".join(
        letter
        if letter.isprintable() or letter in _KEPT
        else letter.encode("unicode_escape").decode()
        for letter in text
    )


def plain_name(name: str) -> Text:
    """Return a name as one cell of a table, in which markup has no meaning."""
    from rich.text import Text

    return Text(plain(name).replace("\n", "\\n"), overflow="fold")
