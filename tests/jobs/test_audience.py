import asyncio

import pytest

from mflux_api.jobs import subscribers
from mflux_api.jobs.subscribers import Audience
from tests.jobs.making import asynchronous, is_waiting


async def nobody_watches(looks: Audience, job: str) -> bool:
    later = asyncio.create_task(looks.watches(job))
    try:
        return await is_waiting(later)
    finally:
        later.cancel()


@asynchronous
async def test_a_glance_counts_for_every_job_and_for_the_next_one() -> None:
    looks = Audience()
    first = asyncio.create_task(looks.watches("first"))
    assert await is_waiting(first)
    looks.glance()
    await first
    await looks.watches("second")


@asynchronous
async def test_a_glance_is_forgotten_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscribers, "GLANCE_SECONDS", 0.0)
    looks = Audience()
    looks.glance()
    assert await nobody_watches(looks, "job")


@asynchronous
async def test_of_two_watchers_one_may_go() -> None:
    looks = Audience()
    with looks.watching("job"):
        with looks.watching("job"):
            pass
        await looks.watches("job")
    assert await nobody_watches(looks, "job")


@asynchronous
async def test_everybody_who_waits_for_a_watcher_hears_of_one() -> None:
    looks = Audience()
    waiting = [asyncio.create_task(looks.watches(job)) for job in ("a", "a", "b")]
    assert await is_waiting(waiting[0])
    with looks.watching("a"):
        await asyncio.gather(*waiting[:2])
        assert await is_waiting(waiting[2])
    waiting[2].cancel()
