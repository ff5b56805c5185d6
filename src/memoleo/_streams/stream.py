"""Iterators that are recorded while they are consumed, and replayed later."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator
from typing import Any

import msgspec

from memoleo._functions.decorating import aforward, resume
from memoleo._streams.unseen import unseen
from memoleo.codecs._protocol import Codec
from memoleo.errors import CodecError

__all__ = [
    "LateStream",
    "Recorded",
    "Recording",
    "StreamCodec",
    "arecord",
    "areplay",
    "record",
    "replay",
]


_LARGEST = 64 * 1024**2
"""Bytes of one recording: an endless stream must not fill the memory."""


class Recorded(msgspec.Struct, frozen=True):
    """All that an iterator yielded, and what it returned at its end."""

    items: list[Any]
    result: Any = None


class StreamCodec:
    """Encodes what an iterator yields, item by item, with another codec.

    Parameters
    ----------
    item
        the codec of a single item
    """

    def __init__(self, item: Codec) -> None:
        self.item = item
        self.name = f"{item.name}+stream"

    def encode(self, value: tuple[list[bytes], bytes]) -> bytes:
        """Return the payload of items that are encoded already."""
        return _encode(value)

    def told(self, value: tuple[list[bytes], bytes]) -> list[Any]:
        """Return items that are encoded already as whoever is asked about a result sees them."""
        return [*map(self.item.decode, value[0])]

    def decode(self, payload: bytes) -> Recorded:
        """Return everything that was recorded, decoded anew."""
        try:
            items, result = _decode(payload)
        except msgspec.MsgspecError as error:
            raise CodecError(f"not a recorded stream: {error}") from None
        decode = self.item.decode
        return Recorded([decode(item) for item in items], decode(result))


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[list[bytes], bytes]).decode


class Recording:
    """What was consumed so far.

    Items are encoded the moment they pass, so that nothing the consumer does to them later finds
    its way into the cache. An item that can't be encoded ends the recording, not the stream.

    Parameters
    ----------
    codec
        encodes single items
    finished
        called once with the encoded items and result when the source is exhausted
    failed
        called once with the error when an item can't be encoded
    ends
        whether an item says of itself that it is the last one; the recording is complete with it,
        since a consumer that knows this may leave without asking for more
    """

    def __init__(
        self,
        codec: Codec,
        finished: Callable[[tuple[list[bytes], bytes]], None],
        failed: Callable[[CodecError], None],
        ends: Callable[[Any], bool] | None = None,
    ) -> None:
        self._codec = codec
        self._ends = ends
        self._finished = finished
        self._failed = failed
        self._items: list[bytes] | None = []
        self._room = _LARGEST

    def add(self, item: Any) -> None:
        """Record an item that is about to be handed to the consumer."""
        if self._items is not None:
            try:
                encoded = self._codec.encode(item)
                self._room -= len(encoded)
                if self._room < 0:
                    raise CodecError(f"a stream of more than {_LARGEST} bytes is not recorded")
                self._items.append(encoded)
            except CodecError as error:
                self.drop()
                self._failed(error)
            else:
                if self._ends is not None and self._ends(item):
                    self.finish()

    def drop(self) -> None:
        """Give up: what follows depends on more than the arguments of the call."""
        self._items = None

    def finish(self, result: Any = None) -> None:
        """Hand over the recording of a source that was consumed to its end."""
        if self._items is not None:
            items = self._items
            self._items = None
            try:
                encoded = self._codec.encode(result)
            except CodecError as error:
                self._failed(error)
            else:
                self._finished((items, encoded))


def record(source: Iterator[Any], recording: Recording) -> Generator[Any, Any, Any]:
    """Start `source`, so that an early failure shows, and return an iterator that records it."""
    try:
        first = next(source)
    except StopIteration as stop:
        recording.finish(stop.value)
        return replay(Recorded([], stop.value))
    return _recorded(first, source, recording)


def _recorded(item: Any, source: Any, recording: Recording) -> Generator[Any, Any, Any]:
    while True:
        recording.add(item)
        try:
            try:
                sent = yield item
            except GeneratorExit:
                recording.drop()
                close = getattr(source, "close", None)
                if close is not None:
                    close()
                raise
            except BaseException as error:
                recording.drop()
                if not hasattr(source, "throw"):
                    raise
                item = source.throw(error)
            else:
                if sent is None:
                    item = next(source)
                else:
                    recording.drop()
                    item = source.send(sent)
        except StopIteration as stop:
            recording.finish(stop.value)
            return stop.value


def replay(
    recorded: Recorded, compute: Callable[[], Any] | None = None
) -> Generator[Any, Any, Any]:
    """Yield what was recorded, and return what was returned.

    What follows on a value or an error that the consumer sends is not on the record: the generator
    itself goes on from there.

    Parameters
    ----------
    recorded
        the recording
    compute
        starts the generator; `None` for one that heeds nothing that is sent
    """
    for place, item in enumerate(recorded.items, 1):
        sent = thrown = None
        try:
            sent = yield item
        except Exception as error:
            if compute is None:
                raise
            thrown = error
        if compute is None or (sent is None and thrown is None):
            continue
        source = compute()
        try:
            for _ in range(place):
                next(source)
            item = source.send(sent) if thrown is None else source.throw(thrown)
        except StopIteration as stop:
            return stop.value
        return (yield from resume(source, item))
    return recorded.result


async def arecord(source: AsyncIterator[Any], recording: Recording) -> AsyncGenerator[Any, Any]:
    """Start `source`, so that an early failure shows, and return an iterator that records it."""
    try:
        first = await source.__anext__()
    except StopAsyncIteration:
        recording.finish()
        return areplay(Recorded([]))
    return _arecorded(first, source, recording)


async def _arecorded(item: Any, source: Any, recording: Recording) -> AsyncGenerator[Any, Any]:
    while True:
        recording.add(item)
        try:
            try:
                sent = yield item
            except GeneratorExit:
                recording.drop()
                close = getattr(source, "aclose", None)
                if close is not None:
                    await close()
                raise
            except BaseException as error:
                recording.drop()
                if not hasattr(source, "athrow"):
                    raise
                item = await source.athrow(error)
            else:
                if sent is None:
                    item = await source.__anext__()
                else:
                    recording.drop()
                    item = await source.asend(sent)
        except StopAsyncIteration:
            recording.finish()
            return


class LateStream(AsyncGenerator[Any, Any]):
    """An asynchronous generator that is only had once its first item is asked for.

    Parameters
    ----------
    start
        returns the generator
    """

    def __init__(self, start: Callable[[], Awaitable[AsyncGenerator[Any, Any]]]) -> None:
        self._start = start
        self._source: AsyncGenerator[Any, Any] | None = None
        self._closed = False

    async def asend(self, value: Any) -> Any:
        """Pass `value` to the generator and return its next item."""
        return await (await self._started()).asend(value)

    async def athrow(self, *error: Any) -> Any:
        """Raise an error inside the generator and return its next item."""
        if self._source is None:
            self._closed = True
        return await (await self._started()).athrow(*error)

    async def aclose(self) -> None:
        """End the generator; one that was not started never runs."""
        self._closed = True
        if self._source is not None:
            await self._source.aclose()

    async def _started(self) -> AsyncGenerator[Any, Any]:
        if self._source is None:
            self._source = unseen(areplay(Recorded([])) if self._closed else await self._start())
        return self._source


async def areplay(
    recorded: Recorded, compute: Callable[[], Any] | None = None
) -> AsyncGenerator[Any, Any]:
    """Do what `replay` does."""
    thrown: BaseException | None = None
    for place, item in enumerate(recorded.items, 1):
        try:
            sent = yield item
        except Exception as error:
            if compute is None:
                raise
            sent, thrown = None, error
        if compute is None or (sent is None and thrown is None):
            continue
        source = compute()
        try:
            for _ in range(place):
                await source.__anext__()
            while True:
                item = await aforward(source, sent, thrown)
                sent = thrown = None
                try:
                    sent = yield item
                except BaseException as error:
                    thrown = error
        except StopAsyncIteration:
            return
