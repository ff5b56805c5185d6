"""From messages to the text that the model reads (ChatML, as in the model's own template)."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from memoleo.testing._ollama_errors import OllamaError

__all__ = ["SYSTEM", "TEMPLATE", "chat_prompt", "fitting_messages", "fitting_tokens", "templated"]

SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"

TEMPLATE = """{{- if .Messages }}
{{- if .System }}<|im_start|>system
{{ .System }}<|im_end|>
{{ end }}
{{- range .Messages }}<|im_start|>{{ .Role }}
{{ .Content }}<|im_end|>
{{ end }}<|im_start|>assistant
{{ else }}
{{- if .System }}<|im_start|>system
{{ .System }}<|im_end|>
{{ end }}{{ if .Prompt }}<|im_start|>user
{{ .Prompt }}<|im_end|>
{{ end }}<|im_start|>assistant
{{ end }}{{ .Response }}{{ if .Response }}<|im_end|>{{ end }}"""

_ACTION = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}", re.DOTALL)

Tokenize = Callable[[str], Awaitable[Sequence[int]]]


def chat_prompt(messages: Sequence[dict[str, Any]]) -> str:
    """Return the prompt for the assistant's next message.

    An assistant's message at the end is left open, for the model to go on with it.
    """
    if not messages or messages[0].get("role") != "system":
        messages = [{"role": "system", "content": SYSTEM}, *messages]
    text: list[str] = []
    image = 0
    for message in messages:
        content = message.get("content") or ""
        # The model can't see. Like the real server, leave a mark and no more.
        for _ in message.get("images") or ():
            content = f"[img-{image}]{content}"
            image += 1
        text.append(f"<|im_start|>{message['role']}\n{content}<|im_end|>\n")
    if messages[-1]["role"] == "assistant":
        return "".join(text).removesuffix("<|im_end|>\n")
    return "".join(text) + "<|im_start|>assistant\n"


async def fitting_messages(
    messages: Sequence[dict[str, Any]], tokenize: Tokenize, limit: int
) -> Sequence[dict[str, Any]]:
    """Return the system messages and as many of the latest others as fit; the last always stays."""
    for start in range(len(messages)):
        kept = [
            message
            for index, message in enumerate(messages)
            if index >= start or message.get("role") == "system"
        ]
        if start == len(messages) - 1 or len(await tokenize(chat_prompt(kept))) <= limit:
            return kept
    return messages


def fitting_tokens(tokens: Sequence[int], limit: int, keep: int) -> Sequence[int]:
    """Return the tokens, with some taken out after the first ``keep`` if there are too many."""
    if len(tokens) <= limit:
        return tokens
    head = min(max(keep, 0), limit // 2)
    return [*tokens[:head], *tokens[len(tokens) - (limit - head) :]]


def templated(template: str, system: str, prompt: str) -> str:
    """Return the prompt by a template of the request that only names the system and the prompt."""
    values = {".System": system, ".Prompt": prompt, ".Response": ""}

    def value(action: re.Match[str]) -> str:
        try:
            return values[action[1]]
        except KeyError:
            raise OllamaError(500, f"template error: unknown action {action[1]!r}") from None

    return _ACTION.sub(value, template)
