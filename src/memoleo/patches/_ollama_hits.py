"""The hot path: an unstreamed question whose fresh answer is in memory.

It decides nothing that the long way wouldn't. Only the plainest case ends here, and every doubt
is answered with `ABSENT`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import msgspec
from xxhash import xxh3_128_digest

from memoleo import _switch
from memoleo._cache.cache import Cache
from memoleo._flow.reader import Missed
from memoleo._flow.store import Job
from memoleo.config import _settings
from memoleo.patches._ollama_call import Call
from memoleo.patches._ollama_models import Model, models
from memoleo.patches._ollama_request import content_of
from memoleo.patches._ollama_sending import being_asked
from memoleo.patches._ollama_server import server_of

__all__ = ["ABSENT", "Hits"]

ABSENT: Any = object()
"""What `Hits.find` answers when the call has to take the long way."""

_MOST = 256
_MOST_KEYS = 16_384
_SEED = secrets.randbits(64)
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode
_SERVE = _switch.Mode.SERVE
_mode = _switch.mode.get


class _Lane:
    """What questions to one model on one server have in common."""

    __slots__ = ("cache", "fresh", "keys", "model", "name", "prefix", "settings")

    def __init__(self, call: Call, model: Model, prefix: bytes, fresh: Callable[[bytes], Any]):
        self.cache = call.cache
        self.fresh = fresh
        self.keys: dict[bytes, bytes] = {}
        self.model = model
        self.name = call.question.model
        self.prefix = prefix
        self.settings = _settings.current()

    def key(self, body: dict[str, Any]) -> bytes | None:
        """Return the key of a question with this body; `None` if that needs a closer look."""
        block = _encode(body)
        # Only plain data reads back equal: see `content_of`.
        if _decode(block) != body:
            return None
        mark = xxh3_128_digest(block, _SEED)
        key = self.keys.get(mark)
        if key is None:
            content = content_of(body)
            if content is None:
                return None
            if len(self.keys) >= _MOST_KEYS:
                self.keys.clear()
            key = self.keys[mark] = sha256(self.prefix + content).digest()
        return key


class Hits:
    """Serves what one `Answers` has answered before.

    Parameters
    ----------
    cache
        returns the cache, at each call
    """

    def __init__(self, cache: Callable[[], Cache]) -> None:
        self._cache = cache
        self._lanes: dict[Any, _Lane] = {}

    def find(self, client: Any, args: Any, kwargs: Any) -> Any:
        """Return the answer to a call of ``_request`` if it is fresh and at hand."""
        try:
            body = kwargs["json"]
            server = server_of(client)
            lane = self._lanes[server.here, args, body["model"]]  # type: ignore[union-attr]
            if (
                kwargs["stream"]
                or len(kwargs) != 2
                or _mode() is not _SERVE
                or not _switch.on
                or lane.cache is not self._cache()
                or lane.settings is not _settings.current()
                or models.fresh(server, lane.name) != lane.model  # type: ignore[arg-type]
                or being_asked(body)
            ):
                return ABSENT
            key = lane.key(body)
            if key is None:
                return ABSENT
            found = lane.fresh(key)
            return ABSENT if type(found) is Missed else found
        except Exception:
            return ABSENT

    def learn(self, call: Call, model: Model, job: Job) -> None:
        """Remember what further calls have in common with this one."""
        question = call.question
        if question.streamed or question.inputs is not None or call.rules.policies.looks_inside:
            return
        fresh = call.cache.calls.reader(job)
        if fresh is not None:
            if len(self._lanes) >= _MOST:
                self._lanes = {}
            prefix = question.prefix(call.place(model), model.digest)
            self._lanes[call.server.here, call.request.args, question.asked] = _Lane(
                call, model, prefix, fresh
            )
