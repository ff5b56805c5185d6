"""One completion: the request as llama.cpp wants it, the parts as Ollama's clients expect them."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from typing import Any, Literal

from memoleo.testing._llama import CONTEXT_LENGTH, Llama
from memoleo.testing._ollama_errors import OllamaError
from memoleo.testing._ollama_fields import field, grammar_of, options_of
from memoleo.testing._ollama_model import timestamp
from memoleo.testing._ollama_prompt import (
    SYSTEM,
    chat_prompt,
    fitting_messages,
    fitting_tokens,
    templated,
)

__all__ = ["Completion", "Parts", "chat_tokens", "generate_tokens"]

Parts = AsyncGenerator[dict[str, Any], None]

_RANDOM_SEED = 0xFFFFFFFF

# Ollama's name for an option → llama.cpp's.
_SAMPLING = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "typical_p": "typical_p",
    "repeat_last_n": "repeat_last_n",
    "repeat_penalty": "repeat_penalty",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "num_keep": "n_keep",
    "stop": "stop",
}


class Completion:
    """A request for text, and what was counted while it was answered.

    Parameters
    ----------
    body
        the request
    name
        the model as the request names it
    kind
        whose shape the parts have
    """

    def __init__(self, body: dict[str, Any], name: str, *, kind: Literal["generate", "chat"]):
        self.body = body
        self.name = name
        self.kind = kind
        self.options = options_of(body)
        self.schema = grammar_of(body)
        self.load_ns = 0.0
        self.eval_count = 0
        self.prompt_eval_count = 0
        self._started = time.perf_counter_ns()
        self._top_logprobs = field(body, "top_logprobs", int, 0)
        self._logprobs = field(body, "logprobs", bool, False)

    @property
    def context_length(self) -> int:
        """How many tokens prompt and answer may have together."""
        return max(8, min(self.options["num_ctx"] or CONTEXT_LENGTH, CONTEXT_LENGTH))

    @property
    def prompt_limit(self) -> int:
        """How many tokens a prompt may have, so that there is room for an answer."""
        whole, wanted = self.context_length, self.options["num_predict"]
        return whole - min(wanted if wanted > 0 else whole // 4, whole // 2)

    async def run(self, llama: Llama, tokens: list[int]) -> Parts:
        """Yield the parts of the answer; the last one has ``done: true`` and the counts."""
        if len(tokens) > self.prompt_limit and not field(self.body, "truncate", bool, True):
            raise OllamaError(400, "the input length exceeds the context length")
        tokens = list(fitting_tokens(tokens, self.prompt_limit, self.options["num_keep"]))
        text: list[str] = []
        async for part in llama.complete(self._llama_request(tokens)):
            content = part["content"]
            text.append(content)
            if content:
                yield {**self._part(content), "done": False, **self._logprobs_of(part)}
            if part.get("stop"):
                answer = await llama.tokenize("".join(text)) if self._tells_context else []
                yield self._last_part(part, [*tokens, *answer])
                return
        raise OllamaError(500, "the model ended without an end")

    async def whole(self, parts: Parts) -> dict[str, Any]:
        """Return the parts as the one answer of a request that isn't streamed."""
        text: list[str] = []
        logprobs: list[Any] = []
        part: dict[str, Any] = {}
        async for part in parts:
            text.append(part["response"] if self.kind == "generate" else part["message"]["content"])
            logprobs.extend(part.get("logprobs", ()))
        answer = {**part, **self._part("".join(text)), "created_at": part["created_at"]}
        return {**answer, "logprobs": logprobs} if logprobs else answer

    @property
    def _tells_context(self) -> bool:
        return self.kind == "generate" and not field(self.body, "raw", bool, False)

    def _llama_request(self, tokens: list[int]) -> dict[str, Any]:
        options = self.options
        room = self.context_length - len(tokens)
        wanted = options["num_predict"] if options["num_predict"] > 0 else room
        request: dict[str, Any] = {
            "prompt": tokens,
            "n_predict": max(1, min(wanted, room)),
            "seed": options["seed"] if options["seed"] >= 0 else _RANDOM_SEED,
            **{theirs: options[ours] for ours, theirs in _SAMPLING.items()},
        }
        if self.schema is not None:
            request["json_schema"] = self.schema
        if self._logprobs:
            request["n_probs"] = max(1, self._top_logprobs)
        return request

    def _part(self, content: str) -> dict[str, Any]:
        head: dict[str, Any] = {"model": self.name, "created_at": timestamp()}
        if self.kind == "generate":
            return {**head, "response": content}
        return {**head, "message": {"role": "assistant", "content": content}}

    def _last_part(self, part: dict[str, Any], context: list[int]) -> dict[str, Any]:
        timings = part["timings"]
        self.eval_count = part["tokens_predicted"]
        self.prompt_eval_count = part["tokens_evaluated"]
        last = {
            **self._part(""),
            "done": True,
            "done_reason": "length" if part["stop_type"] == "limit" else "stop",
        }
        if self._tells_context:
            last["context"] = context
        return {
            **last,
            "total_duration": time.perf_counter_ns() - self._started,
            "load_duration": int(self.load_ns),
            "prompt_eval_count": self.prompt_eval_count,
            "prompt_eval_duration": int(timings["prompt_ms"] * 1e6),
            "eval_count": self.eval_count,
            "eval_duration": int(timings["predicted_ms"] * 1e6),
        }

    def _logprobs_of(self, part: dict[str, Any]) -> dict[str, Any]:
        if not self._logprobs:
            return {}
        told = ("token", "logprob", "bytes")
        entries = []
        for entry in part.get("completion_probabilities", ()):
            item = {name: entry[name] for name in told}
            if self._top_logprobs:
                item["top_logprobs"] = [
                    {name: other[name] for name in told} for other in entry["top_logprobs"]
                ]
            entries.append(item)
        return {"logprobs": entries} if entries else {}


async def generate_tokens(completion: Completion, llama: Llama) -> list[int]:
    """Return the tokens of the prompt that a request to ``/api/generate`` stands for."""
    body = completion.body
    prompt = body["prompt"]
    if field(body, "raw", bool, False):
        return await llama.tokenize(prompt)
    system = field(body, "system", str, "") or SYSTEM
    if template := field(body, "template", str, ""):
        text = templated(template, system, prompt)
    else:
        user = {"role": "user", "content": prompt, "images": body.get("images")}
        text = chat_prompt([{"role": "system", "content": system}, user])
    earlier = field(body, "context", list, [])
    return [*earlier, *await llama.tokenize(text)]


async def chat_tokens(completion: Completion, llama: Llama) -> list[int]:
    """Return the tokens of the prompt that a request to ``/api/chat`` stands for."""
    messages = completion.body["messages"]
    if field(completion.body, "truncate", bool, True):
        limit = completion.prompt_limit
        messages = await fitting_messages(messages, llama.tokenize, limit)
    return await llama.tokenize(chat_prompt(messages))
