"""Who looks on while pictures are painted: small ones are made of each step for somebody, and seldom for nobody."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

# Clients that ask now and then ask again within this time.
GLANCE_SECONDS = 60.0


class Audience:
    """Whoever watches a job, or all of them; and whoever glanced at what is being painted."""

    def __init__(self) -> None:
        self._watchers: Counter[str | None] = Counter()
        self._glanced = -GLANCE_SECONDS
        self._came = asyncio.Event()

    @contextmanager
    def watching(self, job: str | None) -> Iterator[None]:
        """Somebody wants to see the previews of a job (None: of all) until this ends."""
        self._watchers[job] += 1
        self._announce()
        try:
            yield
        finally:
            self._watchers -= Counter([job])

    def glance(self) -> None:
        """Somebody asked for the preview of now, and will again."""
        self._glanced = time.monotonic()
        self._announce()

    async def watches(self, job: str) -> None:
        """Return once somebody looks at this job."""
        while not self._looks_at(job):
            await self._came.wait()

    def _looks_at(self, job: str) -> bool:
        lately = time.monotonic() - self._glanced < GLANCE_SECONDS
        return lately or self._watchers[job] > 0 or self._watchers[None] > 0

    def _announce(self) -> None:
        """Everybody who waits looks again; whoever comes later waits for the next."""
        self._came.set()
        self._came = asyncio.Event()
