"""The pytest plugin: the fixture ``local_ollama``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from memoleo.testing._local_ollama import LocalOllama

__all__ = ["local_ollama"]


@pytest.fixture(scope="session")
def local_ollama() -> Iterator[LocalOllama]:
    """A `memoleo.testing.LocalOllama` that runs for the whole session (``memoleo[local]``)."""
    # A plugin is imported in each run of pytest, also where nobody asks for a model.
    from memoleo.testing._local_ollama import LocalOllama

    with LocalOllama() as server:
        yield server
