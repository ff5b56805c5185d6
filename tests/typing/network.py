"""Never run: mypy and pyright check what the network client returns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

from memoleo.http import AsyncNetworkClient, get_async_client

if TYPE_CHECKING:
    from typing_extensions import assert_type


async def run(client: AsyncNetworkClient) -> None:
    assert_type(await client.get("https://a.example", type="songs", ttl="24h"), httpx.Response)
    assert_type(await client.post("https://a.example", json={}), httpx.Response)
    assert_type(await client.request("GET", "https://a.example", deadline=5), httpx.Response)
    async with client.stream("GET", "https://a.example") as response:
        assert_type(response, httpx.Response)
    assert_type(
        await client.gather(["https://a.example", ("POST", "https://b.example")]),
        list[httpx.Response | Exception],
    )
    async with get_async_client() as shared:
        assert_type(shared, AsyncNetworkClient)
    plain: httpx.AsyncClient = client
    assert_type(plain.is_closed, bool)
