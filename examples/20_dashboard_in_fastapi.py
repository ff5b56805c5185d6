"""The dashboard inside a FastAPI program, and its numbers for Prometheus at /metrics.

`uvicorn` would serve `app`; here a client asks it without a server, so that the file ends.
"""

import asyncio

import httpx
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

import memoleo.serve
from memoleo import content_cached, timed

app = FastAPI()
app.mount("/memoleo", memoleo.serve.asgi_app())


@app.get("/metrics", response_class=PlainTextResponse)
def metrics() -> str:
    return memoleo.serve.metrics_text()


@timed("mood")
@content_cached(type="mood", ttl="1h")
def mood_of(text: str) -> str:
    return "joy" if "sun" in text else "calm"


@app.get("/mood")
def mood(text: str) -> str:
    return mood_of(text)


async def main() -> None:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        for text in ("sun", "rain", "sun", "sun"):
            await client.get("/mood", params={"text": text})

        for line in (await client.get("/metrics")).text.splitlines():
            if line.startswith("memoleo_cache_lookups_total"):
                print(line)
        print("health:", (await client.get("/memoleo/health")).json()["status"])
        page = (await client.get("/memoleo/")).text
        print("the page at /memoleo/:", page[page.index("<title>") : page.index("</title>")][7:])


asyncio.run(main())
