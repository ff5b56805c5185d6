"""Songs from a web API that limits, dawdles, moves and breaks: each asked for once a day."""

import asyncio

from songs.api import SongApi

from memoleo.http import AsyncNetworkClient

SONGS = [f"/v1/songs/{number}" for number in range(24)]


async def main() -> None:
    with SongApi() as api:
        async with AsyncNetworkClient(base_url=api.url, follow_redirects=True) as client:
            for name in ("cold", "warm"):
                before = api.requests
                answers = await client.gather(
                    SONGS,
                    type="song_recommendations",
                    ttl="24h",
                    stale_if_error="7d",
                    deadline="30s",
                    progress="songs",
                )
                for answer in answers:
                    if isinstance(answer, Exception):
                        raise answer
                titles = [answer.raise_for_status().json()["title"] for answer in answers]
                assert titles == [f"Song No. {number}" for number in range(24)]
                print(f"{name}: {len(titles)} songs, {api.requests - before} requests")


asyncio.run(main())
