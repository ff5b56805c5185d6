"""The slots of the network client: limits at every instant, first come first served, no leaks."""

from __future__ import annotations

import asyncio
import random

import pytest

from memoleo.http._slots import Slots


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


class Crowd:
    """Tasks that take a slot each, and keep it until they are told to go."""

    def __init__(self, slots):
        self.slots = slots
        self.began = []
        self.tasks = {}
        self._go = {}

    async def _stay(self, name, host):
        await self.slots.acquire(host)
        try:
            self.began.append(name)
            await self._go[name].wait()
        finally:
            self.slots.release(host)

    async def come(self, *names):
        for name in names:
            self._go[name] = asyncio.Event()
            self.tasks[name] = asyncio.ensure_future(self._stay(name, name[0]))
            await settle()

    async def leave(self, *names):
        for name in names:
            self._go[name].set()
            await settle()


async def test_first_come_first_served():
    """Whoever waits longest goes next, if its host has room."""
    crowd = Crowd(Slots(total=3, per_host=2))
    await crowd.come("a1", "a2", "a3", "b1", "b2", "c1", "a4")
    assert crowd.began == ["a1", "a2", "b1"]
    await crowd.leave("b1")
    assert crowd.began[3:] == ["b2"]
    await crowd.leave("a1")
    assert crowd.began[4:] == ["a3"]
    await crowd.leave("b2")
    assert crowd.began[5:] == ["c1"]
    await crowd.leave("a2", "a3", "c1")
    assert crowd.began[6:] == ["a4"]
    await crowd.leave("a4")
    assert (crowd.slots.running, crowd.slots.by_host, crowd.slots.waiting()) == (0, {}, 0)


async def test_a_full_host_holds_up_nobody_else():
    """Many that wait for one host don't stand before those who want to go elsewhere."""
    crowd = Crowd(Slots(total=10, per_host=1))
    await crowd.come(*[f"a{number}" for number in range(50)])
    await crowd.come("b1")
    assert crowd.began == ["a0", "b1"]
    assert crowd.slots.waiting("a") == 49


async def test_who_gives_up_waiting_is_passed_over():
    """Cancelled in the queue, it takes no slot and stops nobody."""
    crowd = Crowd(Slots(total=1, per_host=1))
    await crowd.come("a1", "a2", "b1", "a3")
    crowd.tasks["a2"].cancel()
    crowd.tasks["b1"].cancel()
    await settle()
    assert crowd.slots.waiting() == 1
    await crowd.leave("a1")
    assert crowd.began == ["a1", "a3"]


async def test_cancelled_in_the_moment_of_its_turn():
    """A slot that was handed to a task that is being cancelled goes to the next one."""
    crowd = Crowd(Slots(total=1, per_host=1))
    await crowd.come("a1", "a2", "a3")
    crowd._go["a1"].set()
    await asyncio.sleep(0)
    crowd.tasks["a2"].cancel()
    await settle()
    assert crowd.began[-1] == "a3"
    await crowd.leave("a3")
    assert (crowd.slots.running, crowd.slots.waiting()) == (0, 0)


@pytest.mark.parametrize("seed", range(20))
async def test_limits_and_order_hold_through_anything(seed):
    """Random coming, going and giving up: never too many, nobody overtaken, nothing left."""
    source = random.Random(seed)
    total, per_host = source.randint(1, 6), source.randint(1, 4)
    slots = Slots(total, per_host)
    inside, queue, gone = {}, [], []

    async def stay(number, host, go):
        queue.append((number, host))
        try:
            await slots.acquire(host)
        except asyncio.CancelledError:
            queue.remove((number, host))
            raise
        queue.remove((number, host))
        inside[number] = host
        try:
            assert len(inside) <= total
            assert sum(each == host for each in inside.values()) <= per_host
            assert host not in [where for other, where in queue if other < number]
            await go.wait()
        finally:
            del inside[number]
            slots.release(host)
            gone.append(number)

    tasks = {}
    for number in range(300):
        host, go = source.choice("abcd"), asyncio.Event()
        tasks[number] = (asyncio.ensure_future(stay(number, host, go)), go)
        for _ in range(source.randint(0, 2)):
            task, go = tasks[source.choice(list(tasks))]
            task.cancel() if source.random() < 0.3 else go.set()
        if source.random() < 0.5:
            await asyncio.sleep(0)
        # Whoever waits has a reason to.
        assert slots.running == total or all(
            slots.by_host.get(host, 0) == per_host for host in slots._waiting if slots.waiting(host)
        )
    for _, go in tasks.values():
        go.set()
    ended = await asyncio.gather(*(task for task, _ in tasks.values()), return_exceptions=True)
    assert [error for error in ended if isinstance(error, Exception)] == []
    assert (slots.running, slots.by_host, slots.waiting(), slots._waiting) == (0, {}, 0, {})
