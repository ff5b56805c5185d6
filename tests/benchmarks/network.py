"""What the network client costs and brings, as ratios within one run.

Overhead: wall time of requests to a server that answers at once, against bare httpx at the same
concurrency; contenders take turns, and the median of the turns' ratios counts. Gain: 500 requests
to five hosts that take 50 ms for each, against one `requests` session that asks one after the
other (measured on fewer, since each takes what it takes). Exit status 1 if a ratio is out of its
limit.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import httpx
import requests
from rich.console import Console
from rich.table import Table

from memoleo.http import AsyncNetworkClient

sys.path.insert(0, str(Path(__file__).parents[1]))
from https_server import names_on_loopback

OVERHEAD_LIMIT = 1.15
GAIN_LIMIT = 2.5
REQUESTS, TURNS, AT_ONCE = 200, 20, 16

SERVER = """
import asyncio, sys
answer = b"HTTP/1.1 200 OK\\r\\ncontent-length: 4\\r\\n\\r\\nsong"
latency = float(sys.argv[1])
class Serve(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        self.asked = b""
    def data_received(self, data):
        self.asked += data
        while b"\\r\\n\\r\\n" in self.asked:
            self.asked = self.asked.partition(b"\\r\\n\\r\\n")[2]
            if latency:
                asyncio.get_running_loop().call_later(latency, self.transport.write, answer)
            else:
                self.transport.write(answer)
async def main():
    server = await asyncio.get_running_loop().create_server(Serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.readline)
asyncio.run(main())
"""

Clients = dict[str, Callable[[], httpx.AsyncClient]]


async def turn(client: httpx.AsyncClient, urls: list[str]) -> tuple[float, float]:
    """Return the wall and CPU seconds that requests take, 16 at once."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(url: str) -> None:
        async with places:
            assert (await client.get(url)).status_code == 200

    wall, cpu = perf_counter(), process_time()
    await asyncio.gather(*map(one, urls))
    return perf_counter() - wall, process_time() - cpu


async def overhead(urls: list[str], clients: Clients) -> dict[str, list[tuple[float, float]]]:
    """Return wall and CPU time of each client in each turn, in microseconds per request."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in clients}
    made = {name: make() for name, make in clients.items()}
    for client in made.values():
        await turn(client, urls)
    for number in range(TURNS):
        # First and second by turns: what else the machine does hits both alike.
        for name in sorted(made, reverse=bool(number % 2)):
            wall, cpu = await turn(made[name], urls)
            times[name].append((wall / len(urls) * 1e6, cpu / len(urls) * 1e6))
    for client in made.values():
        await client.aclose()
    return times


async def gathered(urls: list[str]) -> float:
    """Return the seconds per request of the network client as it is."""
    async with AsyncNetworkClient(trust_env=False) as client:
        started = perf_counter()
        answers = await client.gather(urls)
        assert all(isinstance(each, httpx.Response) for each in answers)
        return (perf_counter() - started) / len(urls)


def in_turn(urls: list[str]) -> float:
    """Return the seconds per request of one session that asks one after the other."""
    with requests.Session() as session:
        session.trust_env = False
        started = perf_counter()
        for url in urls:
            assert session.get(url).status_code == 200
        return (perf_counter() - started) / len(urls)


def served(latency: float, use: Callable[[list[str]], Awaitable[object]]) -> object:
    """Use a server, in a process of its own, that takes so long for each answer."""
    with (
        names_on_loopback() as hosts,
        subprocess.Popen(
            [sys.executable, "-c", SERVER, str(latency)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as server,
    ):
        assert server.stdout is not None
        port = int(server.stdout.readline())
        try:
            return asyncio.run(use([f"http://{host}:{port}/song" for host in hosts]))
        finally:
            server.kill()


def main() -> int:
    """Measure, print, and judge."""
    # As many connections as each likes: which of them are closed for others is a matter of luck.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    clients: Clients = {
        "httpx": lambda: httpx.AsyncClient(trust_env=False, limits=limits, timeout=180),
        "memoleo": lambda: AsyncNetworkClient(
            trust_env=False, http2=False, per_host_limit=AT_ONCE, limits=limits
        ),
    }

    async def cost(urls: list[str]) -> dict[str, list[tuple[float, float]]]:
        return await overhead(urls * (REQUESTS // len(urls)), clients)

    async def gain(urls: list[str]) -> tuple[float, float]:
        alone = await asyncio.to_thread(in_turn, urls * 8)
        return alone, await gathered(urls * 100)

    costs = served(0.0, cost)
    alone, together = served(0.05, gain)  # type: ignore[misc]
    bare, ours = costs["httpx"], costs["memoleo"]  # type: ignore[index]
    walls, cpus = (
        median(mine[which] / its[which] for its, mine in zip(bare, ours, strict=True))
        for which in (0, 1)
    )
    table = Table("ratio", "measured", "limit", title="Network client")
    ratios = {
        "wall time per request, httpx = 1": (walls, OVERHEAD_LIMIT, False),
        "CPU time per request, httpx = 1": (cpus, OVERHEAD_LIMIT, False),
        "500 requests, requests in turn = 1": (alone / together, GAIN_LIMIT, True),
    }
    failed = False
    for name, (measured, limit, least) in ratios.items():
        ok = measured >= limit if least else measured <= limit
        failed |= not ok
        colour = "green" if ok else "bold red"
        table.add_row(name, f"[{colour}]{measured:.2f} x[/]", f"{limit:.2f} x")
    Console().print(
        f"httpx {min(bare)[0]:.0f} µs, memoleo {min(ours)[0]:.0f} µs per request", table
    )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
