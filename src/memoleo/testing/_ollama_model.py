"""The model as Ollama's server would list it: names, digest, details, and when it leaves memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from memoleo.testing._llama import CONTEXT_LENGTH, Llama
from memoleo.testing._model_file import GGUF_SHA256, GGUF_SIZE
from memoleo.testing._ollama_errors import OllamaError
from memoleo.testing._ollama_fields import DEFAULT_KEEP_ALIVE_S, FOREVER
from memoleo.testing._ollama_prompt import SYSTEM, TEMPLATE

__all__ = ["MODEL", "Library", "Residence", "timestamp"]

MODEL = "smollm2:135m"
_DEFAULT_NAMESPACE = "registry.ollama.ai/library/"
_FAR_FUTURE = "2318-01-01T00:00:00Z"

DETAILS: dict[str, Any] = {
    "parent_model": "",
    "format": "gguf",
    "family": "llama",
    "families": ["llama"],
    "parameter_size": "134.52M",
    "quantization_level": "Q4_1",
}

MODEL_INFO: dict[str, Any] = {
    "general.architecture": "llama",
    "general.basename": "smollm2",
    "general.file_type": 3,
    "general.parameter_count": 134515008,
    "general.quantization_version": 2,
    "llama.attention.head_count": 9,
    "llama.attention.head_count_kv": 3,
    "llama.block_count": 30,
    "llama.context_length": 8192,
    "llama.embedding_length": 576,
    "llama.vocab_size": 49152,
    "tokenizer.ggml.model": "gpt2",
}


def timestamp(seconds: float | None = None) -> str:
    """Return a moment as the server writes it: UTC, RFC 3339, with fractions of a second."""
    moment = time.time() if seconds is None else seconds
    return datetime.fromtimestamp(moment, timezone.utc).isoformat().replace("+00:00", "Z")


class Library:
    """The names under which the one model is served.

    Parameters
    ----------
    aliases
        further names beside `MODEL`
    model
        the model file
    """

    def __init__(self, aliases: Iterable[str], model: Path) -> None:
        self.names = {self.full(name) for name in (MODEL, *aliases)}
        self._modified = timestamp(model.stat().st_mtime)

    @staticmethod
    def full(name: str) -> str:
        """Return the name with its tag, and without the default registry."""
        short = name.strip().lower().removeprefix(_DEFAULT_NAMESPACE).removeprefix("library/")
        return short if ":" in short.rsplit("/", 1)[-1] else f"{short}:latest"

    @staticmethod
    def qualified(name: str) -> str:
        """Return the name with registry and namespace, as some messages show it."""
        return _DEFAULT_NAMESPACE + Library.full(name)

    def check(self, name: str) -> None:
        """Refuse a model that isn't there."""
        if not name:
            raise OllamaError(400, "invalid model name")
        if self.full(name) not in self.names:
            raise OllamaError(404, f"model '{name}' not found")

    def listed(self, digest: str) -> list[dict[str, Any]]:
        """Return the models as ``/api/tags`` lists them."""
        return [
            {
                "name": name,
                "model": name,
                "modified_at": self._modified,
                "size": GGUF_SIZE,
                "digest": digest or GGUF_SHA256,
                "details": DETAILS,
            }
            for name in sorted(self.names)
        ]

    def shown(self, name: str) -> dict[str, Any]:
        """Return a model as ``/api/show`` shows it."""
        return {
            "modelfile": f'# Modelfile\nFROM {name}\nSYSTEM "{SYSTEM}"\n',
            "parameters": 'stop                           "<|im_start|>"\n'
            'stop                           "<|im_end|>"',
            "template": TEMPLATE,
            "system": SYSTEM,
            "details": DETAILS,
            "model_info": MODEL_INFO,
            "capabilities": ["completion"],
            "modified_at": self._modified,
        }


class Residence:
    """Keeps the model in memory for as long as the requests ask for.

    Parameters
    ----------
    llama
        the engine whose weights are loaded and freed
    """

    def __init__(self, llama: Llama) -> None:
        self.llama = llama
        self.turn = asyncio.Lock()
        self._name = ""
        self._expires = 0.0
        self._timer: asyncio.Task[None] | None = None

    async def enter(self, name: str) -> float:
        """Load the model if need be; return the nanoseconds that took. Needs the turn."""
        started = time.perf_counter_ns()
        self._name = Library.full(name)
        await self.llama.load()
        return time.perf_counter_ns() - started

    async def leave(self, keep_alive: float | None) -> None:
        """Decide how long the model stays. Needs the turn."""
        seconds = DEFAULT_KEEP_ALIVE_S if keep_alive is None else keep_alive
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if seconds == 0:
            await self.llama.unload()
            return
        self._expires = time.time() + seconds
        if seconds != FOREVER:
            self._timer = asyncio.create_task(self._unload_later(seconds))

    async def _unload_later(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        async with self.turn:
            self._timer = None
            await self.llama.unload()

    async def close(self) -> None:
        """Free the model."""
        if self._timer is not None:
            self._timer.cancel()
        await self.llama.unload()

    def listed(self, library: Library, digest: str) -> list[dict[str, Any]]:
        """Return what is loaded, as ``/api/ps`` lists it."""
        if not self.llama.loaded:
            return []
        forever = self._expires == FOREVER
        return [
            {
                **{k: v for k, v in entry.items() if k != "modified_at"},
                "expires_at": _FAR_FUTURE if forever else timestamp(self._expires),
                "size_vram": 0,
                "context_length": CONTEXT_LENGTH,
            }
            for entry in library.listed(digest)
            if entry["name"] == self._name
        ]
