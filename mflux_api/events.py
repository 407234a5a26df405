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
MAX_PENDING_EVENTS = 256


@dataclass(frozen=True)
class Event:
    """An event of a job, or of the server (`job` is empty). `preview`: a small PNG, in some progress events."""

    id: str
    job: str
    name: str
    data: dict[str, Any] = field(compare=False)
    preview: bytes | None = field(default=None, compare=False)


class Listener:
    """Queue of one listener's events. Iteration ends when the listener was too slow or the server stops."""

    def __init__(self, job: str | None) -> None:
        self.job = job
        self.queue: asyncio.Queue[Event | None] = asyncio.Queue(MAX_PENDING_EVENTS + 1)
        self.dropped = False

    def put(self, event: Event | None) -> None:
        if self.dropped:
            return
        if event is None or self.queue.qsize() >= MAX_PENDING_EVENTS:
            self.dropped = True
            event = None
        self.queue.put_nowait(event)

    def __aiter__(self) -> "Listener":
        return self

    async def __anext__(self) -> Event:
        event = await self.queue.get()
        if event is None:
            raise StopAsyncIteration
        return event


class EventBus:
    """The event bus. Use it on the event loop's thread only. Keeps the last REMEMBERED events to resume streams."""

    def __init__(self) -> None:
        # Numbers restart with the server; the random prefix keeps old ids from matching new events.
        self._run_id = secrets.token_hex(3)
        self._numbers = itertools.count(1)
        self._history: deque[Event] = deque(maxlen=REMEMBERED)
        self._progress_by_job: dict[str, Event] = {}
        self._listeners: set[Listener] = set()

    def publish(self, job: str, name: str, data: dict[str, Any], preview: bytes | None = None) -> Event:
        event = Event(f"{self._run_id}-{next(self._numbers)}", job, name, data, preview)
        self._history.append(event)
        if job and name == "progress":
            self._progress_by_job[job] = event
        for listener in self._listeners:
            if listener.job in {None, job}:
                listener.put(event)
        return event

    def forget_progress(self, job: str) -> None:
        """Drop the last progress of a job that has ended."""
        self._progress_by_job.pop(job, None)

    def get_latest_progress(self, job: str) -> Event | None:
        """Return the job's last progress event."""
        return self._progress_by_job.get(job)

    def list_since(self, last_id: str | None, job: str | None) -> list[Event] | None:
        """Return the events after `last_id`, of one job or (None) of all; None if that event is no longer kept."""
        past = list(self._history)
        index = next((index for index, event in enumerate(past) if event.id == last_id), None)
        return None if index is None else [event for event in past[index + 1 :] if job in {None, event.job}]

    @contextmanager
    def listen(self, job: str | None) -> Iterator[Listener]:
        """Yield a box that receives every event of a job, or (None) of all jobs, from now on."""
        listener = Listener(job)
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)

    def close(self) -> None:
        """Send every listener a "closing" event, and end its iteration."""
        event = self.publish("", "closing", {"message": "The server stops. Connect again in a moment."})
        for listener in self._listeners:
            if listener.job is not None:
                listener.put(event)
            listener.put(None)
