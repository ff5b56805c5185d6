"""llama.cpp as an awaitable engine: one model, one request at a time, the same answer each time.

Raises ImportError where the extra ``memoleo[local]`` isn't installed.
"""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx

__all__ = ["CONTEXT_LENGTH", "Llama", "LlamaError"]

try:
    # An extension module without type information.
    _xllamacpp: Any = importlib.import_module("xllamacpp")
except ModuleNotFoundError as error:  # pragma: no cover - depends on what is installed
    raise ImportError("The local model needs xllamacpp: pip install 'memoleo[local]'") from error
except ImportError as error:  # pragma: no cover - depends on the system
    raise ImportError(
        f"The local model can't be loaded: {error}. It needs the system's OpenMP runtime "
        "(Debian and Ubuntu: apt install libgomp1)"
    ) from error

CONTEXT_LENGTH = 2048

# llama.cpp closes an idle connection after 5 s; a request sent into that moment would be lost.
_NO_KEEP_ALIVE = httpx.Limits(max_keepalive_connections=0)


class LlamaError(Exception):
    """llama.cpp refused a request.

    Parameters
    ----------
    status
        the HTTP status it answered with
    message
        its reason
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Instance:
    """One llama.cpp server inside this process, spoken to over its own loopback port."""

    def __init__(self, model: Path, threads: int, *, embedding: bool) -> None:
        params = _xllamacpp.CommonParams()
        params.model.path = str(model)
        params.n_ctx = CONTEXT_LENGTH
        # Batching requests together, or reusing another request's prompt, changes the order of
        # floating-point sums and with it, now and then, a token.
        params.n_parallel = 1
        params.cache_prompt = False
        params.cache_ram_mib = 0
        params.n_ctx_checkpoints = 0
        params.cpuparams.n_threads = threads
        params.cpuparams_batch.n_threads = threads
        params.warmup = False
        params.ui = False
        params.endpoint_slots = False
        params.port = 0
        params.verbosity = -1
        if embedding:
            params.embedding = True
            params.pooling_type = _xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
            # A text is pooled in one batch, so a batch must hold the longest text.
            params.n_batch = params.n_ubatch = CONTEXT_LENGTH
        self._server = _xllamacpp.Server(params)
        self.client = httpx.AsyncClient(
            base_url=self._server.listening_address,
            timeout=None,
            trust_env=False,
            limits=_NO_KEEP_ALIVE,
        )

    async def close(self) -> None:
        await self.client.aclose()
        self._server = None


class Llama:
    """The model, loaded when it is first needed.

    Parameters
    ----------
    model
        the GGUF file
    threads
        CPU threads for one request
    """

    def __init__(self, model: Path, *, threads: int = 1) -> None:
        self._model = model
        self._threads = threads
        self._writer: _Instance | None = None
        self._embedder: _Instance | None = None

    @property
    def loaded(self) -> bool:
        """Whether the weights are in memory."""
        return self._writer is not None

    async def load(self) -> None:
        """Load the weights, if they aren't loaded."""
        if self._writer is None:
            self._writer = await asyncio.to_thread(
                _Instance, self._model, self._threads, embedding=False
            )

    async def unload(self) -> None:
        """Free the weights."""
        instances = [self._writer, self._embedder]
        self._writer = self._embedder = None
        for instance in instances:
            if instance is not None:
                await instance.close()

    async def complete(self, request: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """Yield the parts of a completion as llama.cpp sends them; the last has ``stop: true``.

        Parameters
        ----------
        request
            the body of llama.cpp's ``POST /completion``

        Raises
        ------
        LlamaError
            if llama.cpp refuses the request
        """
        client = await self._client()
        body = {**request, "stream": True, "cache_prompt": False}
        async with client.stream("POST", "/completion", json=body) as response:
            if response.status_code != httpx.codes.OK:
                await response.aread()
                raise _refusal(response)
            async for line in response.aiter_lines():
                if line.startswith("error:"):
                    fault = json.loads(line.removeprefix("error:"))
                    raise LlamaError(int(fault.get("code", 500)), str(fault.get("message", fault)))
                if line.startswith("data:"):
                    part = json.loads(line.removeprefix("data:"))
                    if "error" in part:
                        fault = part["error"]
                        raise LlamaError(int(fault.get("code", 500)), str(fault.get("message")))
                    yield part

    async def tokenize(self, text: str) -> list[int]:
        """Return the tokens of a text; special tokens in it count as such."""
        body = {"content": text, "parse_special": True, "add_special": False}
        tokens: list[int] = (await self._post("/tokenize", body))["tokens"]
        return tokens

    async def detokenize(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens."""
        text: str = (await self._post("/detokenize", {"tokens": list(tokens)}))["content"]
        return text

    async def embed(self, tokens: Sequence[int]) -> list[float]:
        """Return the mean embedding of tokens, not normalised."""
        if self._embedder is None:
            self._embedder = await asyncio.to_thread(
                _Instance, self._model, self._threads, embedding=True
            )
        body = {"content": list(tokens), "embd_normalize": -1}
        response = await self._embedder.client.post("/embedding", json=body)
        if response.status_code != httpx.codes.OK:
            raise _refusal(response)
        vector: list[float] = response.json()[0]["embedding"][0]
        return vector

    async def _client(self) -> httpx.AsyncClient:
        await self.load()
        assert self._writer is not None
        return self._writer.client

    async def _post(self, path: str, body: dict[str, Any]) -> Any:
        response = await (await self._client()).post(path, json=body)
        if response.status_code != httpx.codes.OK:
            raise _refusal(response)
        return response.json()


def _refusal(response: httpx.Response) -> LlamaError:
    try:
        message = str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = response.text
    return LlamaError(response.status_code, message)
