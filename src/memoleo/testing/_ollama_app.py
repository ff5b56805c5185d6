"""An ASGI application that speaks the API of the Ollama server, with a small model behind it.

The shapes, the statuses and the messages are those of Ollama's ``server/routes.go``.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

from memoleo.testing._llama import CONTEXT_LENGTH, Llama, LlamaError
from memoleo.testing._ollama_completion import Completion, Parts, chat_tokens, generate_tokens
from memoleo.testing._ollama_errors import OllamaError
from memoleo.testing._ollama_fields import body_of, field, keep_alive_of, options_of
from memoleo.testing._ollama_http import Handler, each, guarded, ndjson, until_gone
from memoleo.testing._ollama_model import Library, Residence, timestamp
from memoleo.testing._ollama_switches import Counts, Switches

try:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, PlainTextResponse, Response
    from starlette.routing import Route
    from starlette.types import ASGIApp, Receive, Scope, Send
except ImportError as error:  # pragma: no cover - depends on what is installed
    raise ImportError("The local server needs starlette: pip install 'memoleo[local]'") from error

__all__ = ["VERSION", "OllamaApp"]

VERSION = "0.12.6"

_MESSAGES = {
    401: "unauthorized",
    403: "forbidden",
    404: "model not found",
    429: "too many requests",
    503: "server busy, please try again.  maximum pending requests exceeded",
}

_TokensOf = Callable[[Completion, Llama], Awaitable[list[int]]]


class OllamaApp:
    """The application and its state.

    Parameters
    ----------
    model
        the GGUF file
    aliases
        further names under which the model is served
    threads
        CPU threads for one request
    switches
        how the server misbehaves from the start
    """

    def __init__(
        self,
        model: Path,
        *,
        aliases: Iterable[str] = (),
        threads: int = 1,
        switches: Switches | None = None,
    ) -> None:
        self.library = Library(aliases, model)
        self.residence = Residence(Llama(model, threads=threads))
        self.switches = switches or Switches()
        self.counts = Counts()
        routes: list[tuple[str, str, Handler]] = [
            ("GET", "/", self.root),
            ("GET", "/api/version", self.version),
            ("GET", "/api/tags", self.tags),
            ("GET", "/api/ps", self.ps),
            ("POST", "/api/show", self.show),
            ("POST", "/api/generate", self.generate),
            ("POST", "/api/chat", self.chat),
            ("POST", "/api/embed", self.embed),
            ("POST", "/api/embeddings", self.embeddings),
            ("POST", "/api/pull", self.pull),
            ("POST", "/api/copy", self.copy),
            ("DELETE", "/api/delete", self.delete),
            ("GET", "/memoleo/counts", self.read_counts),
            ("DELETE", "/memoleo/counts", self.reset_counts),
            ("GET", "/memoleo/switches", self.read_switches),
            ("POST", "/memoleo/switches", self.change_switches),
        ]
        self._app: ASGIApp = Starlette(
            routes=[
                Route(path, guarded(handler), methods=[method]) for method, path, handler in routes
            ],
            exception_handlers={
                404: lambda request, error: PlainTextResponse("404 page not found", 404),
                405: lambda request, error: PlainTextResponse("405 method not allowed", 405),
            },
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count the request and answer it."""
        if scope["type"] == "http" and not scope["path"].startswith("/memoleo/"):
            self.counts.requests[scope["path"]] += 1
        await self._app(scope, receive, send)

    async def close(self) -> None:
        """Free the model."""
        await self.residence.close()

    # -- what the server tells about itself

    async def root(self, request: Request) -> Response:
        return PlainTextResponse("Ollama is running")

    async def version(self, request: Request) -> Response:
        return JSONResponse({"version": VERSION})

    async def tags(self, request: Request) -> Response:
        return JSONResponse({"models": self.library.listed(self.switches.digest)})

    async def ps(self, request: Request) -> Response:
        return JSONResponse({"models": self.residence.listed(self.library, self.switches.digest)})

    async def show(self, request: Request) -> Response:
        body = body_of(await request.body())
        name = field(body, "model", str, "") or field(body, "name", str, "")
        if not name:
            raise OllamaError(400, "model is required")
        self.library.check(name)
        return JSONResponse(self.library.shown(name))

    # -- what the model is asked

    async def generate(self, request: Request) -> Response:
        body, name, keep_alive = await self._asked(request)
        head = {"model": name, "created_at": timestamp(), "response": ""}
        if not field(body, "prompt", str, ""):
            return await self._load_or_unload(name, keep_alive, head)
        self._refuse_what_it_cannot(body, name)
        if field(body, "suffix", str, ""):
            raise OllamaError(400, f"{Library.qualified(name)} does not support insert")
        if field(body, "raw", bool, False) and any(
            body.get(other) for other in ("template", "system", "context")
        ):
            raise OllamaError(400, "raw mode does not support template, system, or context")
        completion = Completion(body, name, kind="generate")
        return await self._answer(request, completion, generate_tokens, keep_alive)

    async def chat(self, request: Request) -> Response:
        body, name, keep_alive = await self._asked(request)
        message = {"role": "assistant", "content": ""}
        head = {"model": name, "created_at": timestamp(), "message": message}
        messages = field(body, "messages", list, [])
        if not messages:
            return await self._load_or_unload(name, keep_alive, head)
        for message in messages:
            if not isinstance(message, dict):
                raise OllamaError(400, "json: cannot unmarshal Request.messages of type Message")
            field(message, "role", str, "")
            field(message, "content", str, "")
        self._refuse_what_it_cannot(body, name)
        if body.get("tools"):
            raise OllamaError(400, f"{Library.qualified(name)} does not support tools")
        completion = Completion(body, name, kind="chat")
        return await self._answer(request, completion, chat_tokens, keep_alive)

    async def embed(self, request: Request) -> Response:
        started = time.perf_counter_ns()
        body, name, keep_alive = await self._asked(request)
        texts = body.get("input")
        if texts is None or texts == "":
            texts = []
        elif isinstance(texts, str):
            texts = [texts]
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise OllamaError(400, "invalid input type")
        dimensions = field(body, "dimensions", int, 0)
        loading, vectors, tokens = await until_gone(
            request, self._embedded(body, name, keep_alive, texts)
        )
        if not texts:
            return JSONResponse({"model": name, "embeddings": []})
        if dimensions > 0:
            vectors = [vector[:dimensions] for vector in vectors]
        return JSONResponse(
            {
                "model": name,
                "embeddings": [_normalized(vector) for vector in vectors],
                "total_duration": time.perf_counter_ns() - started,
                "load_duration": loading,
                "prompt_eval_count": tokens,
            }
        )

    async def embeddings(self, request: Request) -> Response:
        body, name, keep_alive = await self._asked(request)
        prompt = field(body, "prompt", str, "")
        texts = [prompt] if prompt else []
        _, vectors, _ = await until_gone(request, self._embedded(body, name, keep_alive, texts))
        return JSONResponse({"embedding": vectors[0] if vectors else []})

    # -- what changes the list of models

    async def pull(self, request: Request) -> Response:
        body = body_of(await request.body())
        name = field(body, "model", str, "") or field(body, "name", str, "")
        if Library.full(name) in self.library.names:
            parts = [{"status": "pulling manifest"}, {"status": "success"}]
        else:
            parts = [{"error": "pull model manifest: file does not exist"}]
        if field(body, "stream", bool, True):
            return ndjson(each(parts))
        return JSONResponse(parts[-1], 500 if "error" in parts[-1] else 200)

    async def copy(self, request: Request) -> Response:
        body = body_of(await request.body())
        source, destination = field(body, "source", str, ""), field(body, "destination", str, "")
        if Library.full(source) not in self.library.names:
            raise OllamaError(404, f'model "{source}" not found')
        if not destination:
            raise OllamaError(400, f'destination "{destination}" is invalid')
        self.library.names.add(Library.full(destination))
        return Response(status_code=200)

    async def delete(self, request: Request) -> Response:
        body = body_of(await request.body())
        name = field(body, "model", str, "") or field(body, "name", str, "")
        self.library.check(name)
        self.library.names.discard(Library.full(name))
        return Response(status_code=200)

    # -- for tests

    async def read_counts(self, request: Request) -> Response:
        return JSONResponse(self.counts.as_dict())

    async def reset_counts(self, request: Request) -> Response:
        self.counts = Counts()
        return JSONResponse(self.counts.as_dict())

    async def read_switches(self, request: Request) -> Response:
        return JSONResponse(self.switches.as_dict())

    async def change_switches(self, request: Request) -> Response:
        try:
            self.switches.change(body_of(await request.body()))
        except ValueError as error:
            raise OllamaError(400, str(error)) from None
        return JSONResponse(self.switches.as_dict())

    # -- the parts of an answer

    async def _asked(self, request: Request) -> tuple[dict[str, Any], str, float | None]:
        body = body_of(await request.body())
        name = field(body, "model", str, "")
        keep_alive = keep_alive_of(body)
        switches = self.switches
        if switches.fail_next > 0:
            switches.fail_next -= 1
            status = switches.fail_status
            message = switches.fail_message or _MESSAGES.get(status, "an error was asked for")
            raise OllamaError(status, message, retry_after=switches.retry_after)
        if switches.delay:
            await until_gone(request, asyncio.sleep(switches.delay))
        self.library.check(name)
        return body, name, keep_alive

    def _refuse_what_it_cannot(self, body: dict[str, Any], name: str) -> None:
        if not 0 <= field(body, "top_logprobs", int, 0) <= 20:
            raise OllamaError(400, "top_logprobs must be between 0 and 20")
        if body.get("think"):
            raise OllamaError(400, f'"{name}" does not support thinking')

    async def _load_or_unload(
        self, name: str, keep_alive: float | None, head: dict[str, Any]
    ) -> Response:
        async with self.residence.turn:
            if keep_alive != 0:
                await self.residence.enter(name)
            await self.residence.leave(keep_alive)
        reason = "unload" if keep_alive == 0 else "load"
        return JSONResponse({**head, "done": True, "done_reason": reason})

    async def _answer(
        self,
        request: Request,
        completion: Completion,
        tokens_of: _TokensOf,
        keep_alive: float | None,
    ) -> Response:
        parts = self._parts(completion, tokens_of, keep_alive)
        if not field(completion.body, "stream", bool, True):
            return JSONResponse(await until_gone(request, completion.whole(parts)))
        # An error before the first part still has a status of its own.
        first = await until_gone(request, anext(parts, None))
        return ndjson(self._troubled(first, parts))

    async def _parts(
        self,
        completion: Completion,
        tokens_of: _TokensOf,
        keep_alive: float | None,
    ) -> Parts:
        llama = self.residence.llama
        async with self.residence.turn:
            completion.load_ns = await self.residence.enter(completion.name)
            try:
                tokens = await tokens_of(completion, llama)
                self.counts.model_calls += 1
                async for part in completion.run(llama, tokens):
                    yield part
                self.counts.eval_count += completion.eval_count
                self.counts.prompt_eval_count += completion.prompt_eval_count
            except LlamaError as error:
                raise OllamaError(error.status, str(error)) from None
            finally:
                await self.residence.leave(keep_alive)

    async def _troubled(self, first: dict[str, Any] | None, rest: Parts) -> Parts:
        cut, fault = self.switches.cut_after, self.switches.error_after
        sent = 0
        part = first
        try:
            while part is not None:
                if sent == fault:
                    yield {"error": self.switches.fail_message or "an error was asked for"}
                    return
                if sent == cut:
                    return
                yield part
                sent += 1
                part = await anext(rest, None)
        except OllamaError as error:
            yield {"error": error.message}
        finally:
            await rest.aclose()

    async def _embedded(
        self, body: dict[str, Any], name: str, keep_alive: float | None, texts: list[str]
    ) -> tuple[float, list[list[float]], int]:
        limit = options_of(body)["num_ctx"] or CONTEXT_LENGTH
        limit = max(1, min(limit, CONTEXT_LENGTH))
        async with self.residence.turn:
            loading = await self.residence.enter(name)
            llama = self.residence.llama
            total = 0
            vectors: list[list[float]] = []
            try:
                self.counts.model_calls += bool(texts)
                for text in texts:
                    tokens = await llama.tokenize(text)
                    if len(tokens) > limit and not field(body, "truncate", bool, True):
                        raise OllamaError(400, "the input length exceeds the context length")
                    # An empty text has no token, and the model needs one.
                    tokens = tokens[:limit] or [0]
                    vectors.append(await llama.embed(tokens))
                    total += len(tokens)
                    self.counts.embedded_inputs += 1
                    self.counts.prompt_eval_count += len(tokens)
            except LlamaError as error:
                raise OllamaError(error.status, str(error)) from None
            finally:
                await self.residence.leave(keep_alive)
        return loading, vectors, total


def _normalized(vector: list[float]) -> list[float]:
    norm = max(math.sqrt(sum(value * value for value in vector)), 1e-12)
    return [value / norm for value in vector]
