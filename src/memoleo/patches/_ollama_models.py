"""Which content is behind the name of a model: its digest, as the server lists it.

A server is asked at most every `LIFETIME` seconds, and at once after something that can change
its models went through this process. When it can't be asked, the last known digest stands in:
the stored answers of a model remain answers of that model while its server is down.

A model that nothing is known of has no stored answers either, so there is nothing to look up:
it is asked first, and its digest learned afterwards.

No client library is known here. Whoever sends requests asks ``GET /api/tags`` of the server with
its own means when `Models.find` says `Unsure.ASK`, or after an answer of a model that was
`Unsure.UNKNOWN`, and hands what it got to `Models.listed` or `Models.failed`. `Model.remote` limits
how long an answer is kept, see `REMOTE_TTL`; entries carry `tags`, by which a later process finds
the digest again.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import msgspec

from memoleo._cache.cache import Cache
from memoleo._events import extras, logger
from memoleo._platform.forks import renew_after_fork
from memoleo._platform.locks import Lock
from memoleo.keys._canonical import frame
from memoleo.patches._ollama_request import full_name
from memoleo.patches._ollama_server import Server

__all__ = ["LIFETIME", "REMOTE_TTL", "TIMEOUT", "Model", "Models", "Unsure", "models", "tags"]

LIFETIME = 2.0
"""Seconds for which a listing holds."""

TIMEOUT = 5.0
"""Seconds to wait for a listing."""

REMOTE_TTL = 3600.0
"""Seconds for which answers of a model that runs elsewhere are kept at most."""

_SILENCE = 60.0
"""Seconds before a server that offers no listing is asked again."""

_DIGEST = "digest:"


class Model(msgspec.Struct, frozen=True):
    """What a server says of a model.

    Parameters
    ----------
    digest
        of its content
    remote
        whether it runs elsewhere; its digest then says nothing about its answers
    """

    digest: str
    remote: bool = False


class Unsure(enum.Enum):
    """Why a digest can't be told."""

    ASK = "the server has to be asked first"
    UNKNOWN = "nothing is known of the model, and nothing stored"
    SILENT = "the server does not tell"


class _Listing:
    """What is known of one server."""

    def __init__(self) -> None:
        self.models: dict[str, Model] = {}
        self.holds_until = 0.0
        self.silent_until = 0.0
        self.asked_until = 0.0
        self.doubtful = False
        self.changes = 0


def tags(server: Server, model: str, digest: str) -> tuple[str, ...]:
    """Return the tags of an answer, by which its digest is found again."""
    return (_source(server, model), f"model:{model}", _DIGEST + digest)


def _source(server: Server, model: str) -> str:
    return f"ollama:{sha256(server.here + frame(model)).hexdigest()[:24]}"


class Models:
    """The models of all servers that this process talks to.

    Parameters
    ----------
    clock
        seconds that only grow
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._listings: dict[bytes, _Listing] = {}
        self._after_fork()
        renew_after_fork(self)

    def _after_fork(self) -> None:
        self._lock = Lock()

    def find(self, server: Server, name: str, cache: Cache) -> Model | Unsure:
        """Return a model, or why it can't be told; nothing is sent.

        Parameters
        ----------
        server
            who lists it
        name
            its full name
        cache
            what remembers digests from earlier runs
        """
        listing = self._listing(server)
        now = self._clock()
        known = listing.models.get(name)
        if now < listing.holds_until:
            return known or Unsure.UNKNOWN
        if now < listing.silent_until:
            return Unsure.SILENT
        if known is None:
            known = _recalled(server, name, cache)
            if known is None:
                return Unsure.UNKNOWN
            listing.models.setdefault(name, known)
        with self._lock:
            if now < listing.asked_until and not listing.doubtful:
                return known
            listing.asked_until = now + TIMEOUT
        return Unsure.ASK

    def fresh(self, server: Server, name: str) -> Model | None:
        """Return a model if a listing that still holds has it."""
        listing = self._listings.get(server.here)
        if listing is None or self._clock() >= listing.holds_until:
            return None
        return listing.models.get(name)

    def silent(self, server: Server) -> bool:
        """Whether a server was asked for its models lately, and tells nothing of any.

        Scripts that only speak like Ollama list no models, or names without digests. A real
        server without models has no answers that could be kept.
        """
        listing = self._listings.get(server.here)
        if listing is None:
            return False
        now = self._clock()
        return now < listing.silent_until or (now < listing.holds_until and not listing.models)

    def changes(self, server: Server) -> int:
        """Return a number that grows with every change, to be handed to `listed`."""
        return self._listing(server).changes

    def listed(self, server: Server, answer: Any, changes: int) -> None:
        """Take in the answer of ``/api/tags`` that was asked for after `changes`."""
        found: dict[str, Model] = {}
        for row in answer["models"]:
            name, digest = row.get("model") or row.get("name"), row.get("digest")
            if isinstance(name, str) and isinstance(digest, str) and digest:
                remote = bool(row.get("remote_model") or row.get("remote_host"))
                found[full_name(name)] = Model(digest, remote)
        listing = self._listing(server)
        with self._lock:
            if listing.changes != changes:
                return
            listing.models = found
            listing.holds_until = self._clock() + LIFETIME
            listing.silent_until = listing.asked_until = 0.0
            listing.doubtful = False

    def failed(self, server: Server, name: str, error: Exception) -> Model | None:
        """Note that a listing could not be had, and return what is to be taken for the model.

        A server that answers, but not with a listing, is another server than the one that was
        known; one that doesn't answer is down.
        """
        listing = self._listing(server)
        now = self._clock()
        status = getattr(error, "status_code", None)
        with self._lock:
            listing.asked_until = 0.0
            if status is None or status in (408, 429) or status >= 500:
                listing.asked_until = now + LIFETIME
                if listing.models:
                    return listing.models.get(name)
            listing.silent_until = now + _SILENCE
        return None

    def forget(self, server: Server) -> None:
        """Ask anew before the next answer: a model may have changed."""
        listing = self._listing(server)
        with self._lock:
            listing.changes += 1
            listing.holds_until = listing.silent_until = listing.asked_until = 0.0
            listing.doubtful = True

    def clear(self) -> None:
        """Forget all servers."""
        self._listings = {}

    def _listing(self, server: Server) -> _Listing:
        found = self._listings.get(server.here)
        return self._listings.setdefault(server.here, _Listing()) if found is None else found


models = Models()
"""Those of this process."""


def _recalled(server: Server, name: str, cache: Cache) -> Model | None:
    """Return the model whose answer was stored last, by this process or by an earlier one."""
    try:
        for _, entry in cache.backend.entries(tag=_source(server, name)):
            for tag in entry.tags:
                if tag.startswith(_DIGEST):
                    return Model(tag.removeprefix(_DIGEST))
            break
    except Exception as error:
        logger.info(
            "a model's digest can't be looked up: %s",
            error,
            extra=extras("no_digest", error=error),
        )
    return None
