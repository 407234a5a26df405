"""Server-sent events. The only file that knows sse-starlette."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import AppStatus
from starlette.responses import Response

# Streams end when their source does, and the application ends those before the server waits for connections.
AppStatus.disable_automatic_graceful_drain()  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Message:
    """One event: `data` is sent as JSON."""

    id: str
    name: str
    data: dict[str, Any] | str


@dataclass(frozen=True)
class Streamer:
    """`heartbeat`: seconds between comments on a silent stream; `patience`: how long a reader may take nothing."""

    heartbeat: float
    patience: float
    retry_ms: int = 2000

    def respond(self, messages: AsyncIterator[Message]) -> Response:
        return EventSourceResponse(self._events(messages), ping=self.heartbeat, send_timeout=self.patience)

    async def _events(self, messages: AsyncIterator[Message]) -> AsyncIterator[ServerSentEvent]:
        # Said once and first, so that a browser knows it whatever comes.
        yield ServerSentEvent(comment="stream", retry=self.retry_ms)
        async for message in messages:
            data = message.data if isinstance(message.data, str) else json.dumps(message.data)
            yield ServerSentEvent(data, event=message.name, id=message.id)
