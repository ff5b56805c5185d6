"""The httpx library, of which the calls that rules name are answered from a cache.

Every call of a client, and every function of the package, ends in ``Client.send`` or
``AsyncClient.send``.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

from memoleo.patches._http_package import HttpPackage
from memoleo.patches._patch import Patch

if TYPE_CHECKING:
    from memoleo.patches._http_stack import Stack

__all__ = ["HttpxPackage"]


class HttpxPackage(HttpPackage):
    """The clients of httpx."""

    name = "httpx"

    def failures(self) -> tuple[type[BaseException], ...]:
        """See `HttpPackage.failures`."""
        import httpx

        return (httpx.TransportError,)

    def patches(self, package: ModuleType, stack: Stack) -> list[Patch]:
        """See `HttpPackage.patches`."""
        from memoleo.patches._httpx_calls import asend, send

        return [
            Patch(package.Client, "send", lambda original: send(original, stack)),
            Patch(package.AsyncClient, "send", lambda original: asend(original, stack)),
        ]
