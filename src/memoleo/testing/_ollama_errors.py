"""The one error of the local server: a status and Ollama's ``{"error": …}``."""

from __future__ import annotations

__all__ = ["OllamaError"]


class OllamaError(Exception):
    """A request is refused the way the Ollama server refuses it.

    Parameters
    ----------
    status
        the HTTP status
    message
        what stands under ``error`` in the answer
    retry_after
        seconds for a ``Retry-After`` header; ``None``: no such header
    """

    def __init__(self, status: int, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after = retry_after
