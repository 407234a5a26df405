import asyncio

import pytest

from mflux_api.jobs import subscribers
from mflux_api.jobs.subscribers import PreviewViewers
from tests.support.jobs import is_waiting, run_async


async def nobody_watches(looks: PreviewViewers, job: str) -> bool:
    later = asyncio.create_task(looks.wait_for_viewer(job))
    try:
        return await is_waiting(later)
    finally:
        later.cancel()


@run_async
async def test_a_glance_counts_for_every_job_and_for_the_next_one() -> None:
    looks = PreviewViewers()
    first = asyncio.create_task(looks.wait_for_viewer("first"))
    assert await is_waiting(first)
    looks.poll()
    await first
    await looks.wait_for_viewer("second")


@run_async
async def test_a_glance_is_forgotten_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscribers, "POLL_SECONDS", 0.0)
    looks = PreviewViewers()
    looks.poll()
    assert await nobody_watches(looks, "job")


@run_async
async def test_of_two_watchers_one_may_go() -> None:
    looks = PreviewViewers()
    with looks.watching("job"):
        with looks.watching("job"):
            pass
        await looks.wait_for_viewer("job")
    assert await nobody_watches(looks, "job")


@run_async
async def test_everybody_who_waits_for_a_watcher_hears_of_one() -> None:
    looks = PreviewViewers()
    waiting = [asyncio.create_task(looks.wait_for_viewer(job)) for job in ("a", "a", "b")]
    assert await is_waiting(waiting[0])
    with looks.watching("a"):
        await asyncio.gather(*waiting[:2])
        assert await is_waiting(waiting[2])
    waiting[2].cancel()
