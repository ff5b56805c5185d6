"""What the network client costs and brings, as ratios within one run.

Overhead: wall and CPU time of requests to a server that answers at once, against bare httpx at the
same concurrency. Contenders take short turns in a random order, so that none always comes after the
same other one, and the collector runs between turns only. Each is compared with the bare client of
its own round, and the median of these ratios counts. There are two bare clients: ours is compared
with their mean, and how far the second is from the first is what the machine adds. A run in which
that is far proves nothing.

Gain: 500 requests to five hosts that take 50 ms for each, against one `requests` session that asks
one after the other (measured on fewer, since each takes what it takes).

Exit status 1 if a ratio is out of its limit, 2 if the machine was too unsteady to say.
"""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from random import Random
from statistics import mean, median
from time import perf_counter, process_time
from typing import Any

import httpx
import requests
from rich.console import Console
from rich.table import Table

from memoleo.http import AsyncNetworkClient

sys.path.insert(0, str(Path(__file__).parents[1]))
from https_server import names_on_loopback

OVERHEAD_LIMIT = 1.15
GAIN_LIMIT = 2.5
UNSTEADY = 0.07
REQUESTS, ROUNDS, AT_ONCE = 80, 80, 16

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

BARE, AGAIN, OURS = "httpx", "httpx again", "memoleo"

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
    """Return wall and CPU time of each client in each round, in microseconds per request."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in clients}
    made = {name: make() for name, make in clients.items()}
    for client in made.values():
        await turn(client, urls)
    order = list(made)
    luck = Random(0)
    for _ in range(ROUNDS):
        luck.shuffle(order)
        for name in order:
            # Whose garbage fills the collector's generation is a matter of luck.
            gc.collect()
            gc.disable()
            wall, cpu = await turn(made[name], urls)
            gc.enable()
            times[name].append((wall / len(urls) * 1e6, cpu / len(urls) * 1e6))
    for client in made.values():
        await client.aclose()
    return times


def ratio(times: dict[str, list[tuple[float, float]]], name: str, which: int) -> float:
    """Return the median of a client's ratios to what is bare in the same round."""
    bare = (BARE, AGAIN) if name == OURS else (BARE,)
    return median(
        mine[which] / mean(times[each][number][which] for each in bare)
        for number, mine in enumerate(times[name])
    )


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
    bare = partial(httpx.AsyncClient, trust_env=False, limits=limits, timeout=180)
    clients: Clients = {
        BARE: bare,
        AGAIN: bare,
        OURS: lambda: AsyncNetworkClient(
            trust_env=False, http2=False, per_host_limit=AT_ONCE, limits=limits
        ),
    }

    async def cost(urls: list[str]) -> dict[str, list[tuple[float, float]]]:
        return await overhead(urls * (REQUESTS // len(urls)), clients)

    async def gain(urls: list[str]) -> tuple[float, float]:
        alone = await asyncio.to_thread(in_turn, urls * 8)
        return alone, await gathered(urls * 100)

    costs: Any = served(0.0, cost)
    alone, together = served(0.05, gain)  # type: ignore[misc]
    table = Table("ratio", "measured", "limit", title="Network client")
    ratios = {
        "wall time per request, httpx = 1": (ratio(costs, OURS, 0), OVERHEAD_LIMIT, False),
        "CPU time per request, httpx = 1": (ratio(costs, OURS, 1), OVERHEAD_LIMIT, False),
        "500 requests, requests in turn = 1": (alone / together, GAIN_LIMIT, True),
    }
    failed = False
    for name, (measured, limit, least) in ratios.items():
        ok = measured >= limit if least else measured <= limit
        failed |= not ok
        colour = "green" if ok else "bold red"
        table.add_row(name, f"[{colour}]{measured:.2f} x[/]", f"{limit:.2f} x")
    noise = [ratio(costs, AGAIN, which) for which in (0, 1)]
    table.add_row("httpx again, wall and CPU", " ".join(f"{each:.2f} x" for each in noise), "")
    cpus = {name: median(cpu for _, cpu in costs[name]) for name in (BARE, OURS)}
    Console().print(
        f"CPU time per request: httpx {cpus[BARE]:.0f} µs, memoleo {cpus[OURS]:.0f} µs", table
    )
    if any(abs(each - 1) > UNSTEADY for each in noise):
        Console().print("[bold red]The machine is too busy: bare httpx differs from itself.[/]")
        return 2
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
