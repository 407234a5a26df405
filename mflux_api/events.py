"""Event bus with bounded queues: a listener that falls behind is disconnected."""

import asyncio
import itertools
import secrets
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

REMEMBERED = 256
BOX = 256


@dataclass(frozen=True)
class Event:
    """An event of a job, or of the server (`job` is empty). `preview`: a small PNG, in some progress events."""

    id: str
    job: str
    name: str
    data: dict[str, Any] = field(compare=False)
    preview: bytes | None = field(default=None, compare=False)


class Box:
    """Queue of one listener's events. Iteration ends when the listener was too slow or the server stops."""

    def __init__(self, job: str | None) -> None:
        self.job = job
        self.queue: asyncio.Queue[Event | None] = asyncio.Queue(BOX + 1)
        self.dropped = False

    def put(self, event: Event | None) -> None:
        if self.dropped:
            return
        if event is None or self.queue.qsize() >= BOX:
            self.dropped = True
            event = None
        self.queue.put_nowait(event)

    def __aiter__(self) -> "Box":
        return self

    async def __anext__(self) -> Event:
        event = await self.queue.get()
        if event is None:
            raise StopAsyncIteration
        return event


class Events:
    """The event bus. Use it on the event loop's thread only. Keeps the last REMEMBERED events to resume streams."""

    def __init__(self) -> None:
        # Numbers restart with the server; the random prefix keeps old ids from matching new events.
        self._run = secrets.token_hex(3)
        self._numbers = itertools.count(1)
        self._past: deque[Event] = deque(maxlen=REMEMBERED)
        self._latest: dict[str, Event] = {}
        self._boxes: set[Box] = set()

    def publish(self, job: str, name: str, data: dict[str, Any], preview: bytes | None = None) -> Event:
        event = Event(f"{self._run}-{next(self._numbers)}", job, name, data, preview)
        self._past.append(event)
        if job and name == "progress":
            self._latest[job] = event
        for box in self._boxes:
            if box.job in {None, job}:
                box.put(event)
        return event

    def forget(self, job: str) -> None:
        """Drop the last progress of a job that has ended."""
        self._latest.pop(job, None)

    def latest(self, job: str) -> Event | None:
        """Return the job's last progress event."""
        return self._latest.get(job)

    def since(self, last_id: str | None, job: str | None) -> list[Event] | None:
        """Return the events after `last_id`, of one job or (None) of all; None if that event is no longer kept."""
        past = list(self._past)
        index = next((index for index, event in enumerate(past) if event.id == last_id), None)
        return None if index is None else [event for event in past[index + 1 :] if job in {None, event.job}]

    @contextmanager
    def listen(self, job: str | None) -> Iterator[Box]:
        """Yield a box that receives every event of a job, or (None) of all jobs, from now on."""
        box = Box(job)
        self._boxes.add(box)
        try:
            yield box
        finally:
            self._boxes.discard(box)

    def close(self) -> None:
        """Send every listener a "closing" event, and end its iteration."""
        event = self.publish("", "closing", {"message": "The server stops. Connect again in a moment."})
        for box in self._boxes:
            if box.job is not None:
                box.put(event)
            box.put(None)
