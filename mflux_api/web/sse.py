"""Server-sent events. The only file that knows sse-starlette."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any

from sse_starlette import EventSourceResponse
from sse_starlette.sse import AppStatus, SendTimeoutError
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from mflux_api.logs import event

# Streams end when their source does, and the application ends those before the server waits for connections.
AppStatus.disable_automatic_graceful_drain()  # type: ignore[no-untyped-call]

# A large event goes out in pieces of the one text that all its readers share: each is waited for, and copied, alone.
PIECE = 1 << 14
PING = b": ping\r\n\r\n"
# Sent after everything else, it waits until the reader has taken what came before.
END = b": end\r\n\r\n"


@dataclass(frozen=True)
class Message:
    """One event: `data` is sent as JSON. A text is JSON already, on one line."""

    id: str
    name: str
    data: dict[str, Any] | str


@dataclass(frozen=True)
class Streamer:
    """`heartbeat`: seconds between comments on a silent stream; `patience`: how long a reader may take nothing."""

    heartbeat: float
    patience: float
    retry_ms: int = 2000

    def respond(self, messages: AsyncGenerator[Message, None]) -> Response:
        # The library's own heartbeats would come between the pieces of an event.
        return _Stream(self._written(messages), ping=0, send_timeout=self.patience)

    async def _written(self, messages: AsyncGenerator[Message, None]) -> AsyncIterator[bytes]:
        # Said once and first, so that a browser knows it whatever comes.
        yield f": stream\r\nretry: {self.retry_ms}\r\n\r\n".encode()
        async with aclosing(messages), aclosing(self._beating(messages)) as beating:
            async for message in beating:
                for piece in [PING] if message is None else _pieces(message):
                    yield piece
                    # A reader with much room must not keep everybody else waiting.
                    await asyncio.sleep(0)
        yield END

    async def _beating(self, messages: AsyncGenerator[Message, None]) -> AsyncGenerator[Message | None, None]:
        """The messages, and None whenever none has come for a while."""
        coming = asyncio.ensure_future(anext(messages, None))
        try:
            while True:
                await asyncio.wait([coming], timeout=self.heartbeat)
                if not coming.done():
                    yield None
                    continue
                message = coming.result()
                if message is None:
                    return
                yield message
                coming = asyncio.ensure_future(anext(messages, None))
        finally:
            coming.cancel()
            with suppress(asyncio.CancelledError, StopAsyncIteration):
                await coming


def _pieces(message: Message) -> Iterator[bytes]:
    data = message.data if isinstance(message.data, str) else json.dumps(message.data)
    head = f"id: {message.id}\r\nevent: {message.name}\r\ndata: "
    if len(data) <= PIECE:
        yield f"{head}{data}\r\n\r\n".encode()
        return
    yield head.encode()
    for start in range(0, len(data), PIECE):
        yield data[start : start + PIECE].encode()
    yield b"\r\n\r\n"


class _Stream(EventSourceResponse):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except SendTimeoutError:
            event("stream.dropped", path=scope["path"])
            await _cut_off(receive)


async def _cut_off(receive: Receive) -> None:
    """End the connection now: uvicorn would first wait for this reader to take what it holds for it.

    ASGI has no word for that, so the connection is asked itself, where there is one.
    """
    transport = getattr(getattr(receive, "__self__", None), "transport", None)
    if transport is not None:
        transport.abort()
        # uvicorn learns of it in the loop's next round, and then misses no end of the reply.
        await asyncio.sleep(0)
