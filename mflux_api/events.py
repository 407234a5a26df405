"""One publisher, many listeners: every listener has a bounded box, and one that does not empty it is dropped."""

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
    """Something that happened to a job (`job` is empty: to the server). `preview`: a small PNG, on some progress."""

    id: str
    job: str
    name: str
    data: dict[str, Any] = field(compare=False)
    preview: bytes | None = field(default=None, compare=False)


class Box:
    """A listener's events. `None` on its queue: it was too slow, or the server stops."""

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
    """Publish and listen, all on the event loop's thread. The last events are remembered, to resume a stream."""

    def __init__(self) -> None:
        # Numbers start again with each run of the server; the prefix keeps an old one from meaning a new event.
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
        """A job has ended: its last progress is of no more use."""
        self._latest.pop(job, None)

    def latest(self, job: str) -> Event | None:
        """The job's last progress."""
        return self._latest.get(job)

    def since(self, last_id: str | None, job: str | None) -> list[Event] | None:
        """What came after an event, of one job or of all; None when that event is not remembered."""
        past = list(self._past)
        index = next((index for index, event in enumerate(past) if event.id == last_id), None)
        return None if index is None else [event for event in past[index + 1 :] if job in {None, event.job}]

    @contextmanager
    def listen(self, job: str | None) -> Iterator[Box]:
        """A box that receives every event of a job (None: of all) from now on."""
        box = Box(job)
        self._boxes.add(box)
        try:
            yield box
        finally:
            self._boxes.discard(box)

    def close(self) -> None:
        """Tell every listener that the server stops, and end it."""
        event = self.publish("", "closing", {"message": "The server stops. Connect again in a moment."})
        for box in self._boxes:
            if box.job is not None:
                box.put(event)
            box.put(None)
