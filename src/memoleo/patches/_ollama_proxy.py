"""One client that answers from a cache while others of its class don't."""

from __future__ import annotations

from typing import Any

import wrapt

__all__ = ["ClientProxy"]


class ClientProxy(wrapt.BaseObjectProxy):  # type: ignore[type-arg]
    """Passes for the client that it holds, `isinstance` included."""

    def __repr__(self) -> str:
        return f"<memoleo.proxy of {self.__wrapped__!r}>"

    def __enter__(self) -> Any:
        entered = self.__wrapped__.__enter__()
        return self if entered is self.__wrapped__ else entered

    def __exit__(self, *error: Any) -> Any:
        return self.__wrapped__.__exit__(*error)

    async def __aenter__(self) -> Any:
        entered = await self.__wrapped__.__aenter__()
        return self if entered is self.__wrapped__ else entered

    async def __aexit__(self, *error: Any) -> Any:
        return await self.__wrapped__.__aexit__(*error)
