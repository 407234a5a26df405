"""Server-sent events. The only module that uses sse-starlette."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any

from sse_starlette import EventSourceResponse
from sse_starlette.sse import AppStatus, SendTimeoutError
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from mflux_api.logs import log_event

# Streams end with their source, and the application closes the sources before uvicorn waits for connections.
AppStatus.disable_automatic_graceful_drain()  # type: ignore[no-untyped-call]

# Characters per chunk. A large event is sent in chunks of one text shared by all readers, so only chunks are copied.
PIECE = 1 << 14
PING = b": ping\r\n\r\n"
# Sent last: sending it waits until the client has read the events before it.
END = b": end\r\n\r\n"


@dataclass(frozen=True)
class ServerSentEvent:
    """An event. `id`: empty for none. `data`: an object, or text that is already JSON on one line."""

    id: str
    name: str
    data: dict[str, Any] | str


@dataclass(frozen=True)
class EventStreamer:
    """Make event-stream replies.

    `heartbeat`: seconds between comments on a silent stream. `send_timeout`: seconds after which a client that reads
    nothing is disconnected. `retry_ms`: delay before browsers reconnect.
    """

    heartbeat: float
    send_timeout: float
    retry_ms: int = 2000

    def build_response(
        self,
        messages: AsyncGenerator[ServerSentEvent, None],
        *,
        resumable: bool = True,
        on_disconnect: Callable[[], Awaitable[object]] | None = None,
    ) -> Response:
        """Make the reply. `on_disconnect`: called if the client leaves before the last message.

        `resumable`: a browser may connect again. Otherwise the stream has no `retry`, which some clients that expect
        JSON only take for an event; their messages should have no ids either.
        """
        # The library's own heartbeats are off: they could be sent between the chunks of an event.
        return _StreamResponse(
            self._encode_messages(messages, resumable=resumable), self.send_timeout, on_disconnect=on_disconnect
        )

    async def _encode_messages(
        self, messages: AsyncGenerator[ServerSentEvent, None], *, resumable: bool
    ) -> AsyncIterator[bytes]:
        # Sent first, so that browsers know the delay even if the stream breaks early.
        yield f": stream\r\nretry: {self.retry_ms}\r\n\r\n".encode() if resumable else b": stream\r\n\r\n"
        async with aclosing(messages), aclosing(self._with_heartbeats(messages)) as beating:
            async for message in beating:
                for piece in [PING] if message is None else _encode_in_chunks(message):
                    yield piece
                    # Let other tasks run: with a large socket buffer, sending never waits.
                    await asyncio.sleep(0)
        yield END

    async def _with_heartbeats(
        self, messages: AsyncGenerator[ServerSentEvent, None]
    ) -> AsyncGenerator[ServerSentEvent | None, None]:
        """Yield the messages, and None after each `heartbeat` seconds without one."""
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


def _encode_in_chunks(message: ServerSentEvent) -> Iterator[bytes]:
    data = message.data if isinstance(message.data, str) else json.dumps(message.data)
    number = f"id: {message.id}\r\n" if message.id else ""
    head = f"{number}event: {message.name}\r\ndata: "
    if len(data) <= PIECE:
        yield f"{head}{data}\r\n\r\n".encode()
        return
    yield head.encode()
    for start in range(0, len(data), PIECE):
        yield data[start : start + PIECE].encode()
    yield b"\r\n\r\n"


class _StreamResponse(EventSourceResponse):
    def __init__(
        self,
        content: AsyncIterator[bytes],
        send_timeout: float,
        *,
        on_disconnect: Callable[[], Awaitable[object]] | None,
    ) -> None:
        super().__init__(self._note_end(content), ping=0, send_timeout=send_timeout)
        self._on_disconnect = on_disconnect
        self._finished = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except SendTimeoutError:
            log_event("stream.dropped", path=scope["path"])
            await _abort_connection(receive)
        finally:
            if self._on_disconnect is not None and not self._finished:
                # Shielded: the server may cancel this call because its client is gone.
                await asyncio.shield(asyncio.ensure_future(self._on_disconnect()))

    async def _note_end(self, content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for piece in content:
            yield piece
        self._finished = True


async def _abort_connection(receive: Receive) -> None:
    """Abort the connection at once. A normal close would make uvicorn wait until the client has read its buffer.

    ASGI has no message for this, so the transport is aborted directly, if there is one.
    """
    transport = getattr(getattr(receive, "__self__", None), "transport", None)
    if transport is not None:
        transport.abort()
        # uvicorn notices in the next loop iteration; then it does not report an incomplete reply.
        await asyncio.sleep(0)
