"""Workers without a job: each waits until it should look at the line, or is handed a job."""

import asyncio

from mflux_api.jobs.job import Job


class Idle:
    """Who waits for work, in order."""

    def __init__(self) -> None:
        self._news = False
        self._waiting: list[asyncio.Future[Job | None]] = []

    def __bool__(self) -> bool:
        """Whether anybody waits."""
        return any(not place.done() for place in self._waiting)

    def looks(self) -> None:
        """A worker looks at the line: what happened until now is no news to it."""
        self._news = False

    async def wait(self, seconds: float | None) -> Job | None:
        """The job it is handed; None when it should look for itself, or has waited so long."""
        if self._news:
            return None
        place: asyncio.Future[Job | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await asyncio.wait([place], timeout=seconds)
            return place.result() if place.done() else None
        finally:
            self._waiting.remove(place)

    def wake(self) -> None:
        """There may be something to do: everybody looks, who is on the way to wait included."""
        self._news = True
        for place in self._waiting:
            if not place.done():
                place.set_result(None)

    def hand(self, job: Job) -> bool:
        """Give a job to the first who waits; whether there was one."""
        for place in self._waiting:
            if not place.done():
                place.set_result(job)
                return True
        return False
