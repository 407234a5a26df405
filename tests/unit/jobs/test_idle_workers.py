"""A job that is submitted while a worker waits is claimed in the same transaction, unless it must wait."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from mflux_api.jobs.job import Job, State
from mflux_api.jobs.sqlite_queue import SQLiteQueue
from mflux_api.jobs.waiting import IdleWorkers
from tests.support.jobs import REQUEST, is_waiting, make_job, open_queue, run_async


async def waiting_worker(queue: SQLiteQueue) -> asyncio.Task[Job]:
    worker = asyncio.create_task(queue.claim())
    assert await is_waiting(worker)
    return worker


def states(jobs: list[Job]) -> list[tuple[State, int]]:
    return [(job.state, job.attempts) for job in jobs]


@run_async
async def test_it_has_begun_when_it_was_accepted(tmp_path: Path) -> None:
    async with open_queue(tmp_path) as queue:
        worker = await waiting_worker(queue)
        with queue.job_events.events.listen(None) as box:
            accepted = await queue.submit(make_job())
            assert states([accepted, await queue.get(accepted.id)]) == [(State.QUEUED, 0), (State.GENERATING, 1)]
            assert (await worker).id == accepted.id
            assert [(await anext(box)).name for _ in range(2)] == ["queued", "started"]


@run_async
async def test_of_two_at_once_a_single_worker_begins_one(tmp_path: Path) -> None:
    async with open_queue(tmp_path) as queue:
        worker = await waiting_worker(queue)
        await asyncio.gather(queue.submit(make_job()), queue.submit(make_job()))
        first = await worker
        jobs = (await queue.list_jobs(None, None, 10)).jobs
        assert sorted(states(jobs)) == [(State.GENERATING, 1), (State.QUEUED, 0)]
        await queue.finish(first)
        assert (await queue.claim()).id != first.id


@run_async
async def test_it_goes_back_where_the_worker_has_gone_meanwhile(tmp_path: Path) -> None:
    async with open_queue(tmp_path) as queue:
        worker = await waiting_worker(queue)
        putting = asyncio.create_task(queue.submit(make_job()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        # The job is being inserted.
        assert queue._arriving == 1
        worker.cancel()
        job = await putting
        assert states([await queue.get(job.id)]) == [(State.INTERRUPTED, 0)]
        assert states([await queue.claim()]) == [(State.GENERATING, 1)]


@pytest.mark.parametrize("obstacle", ["paused", "held"])
@run_async
async def test_it_waits_while_nothing_may_begin(tmp_path: Path, obstacle: str) -> None:
    async with open_queue(tmp_path) as queue:
        worker = await waiting_worker(queue)
        if obstacle == "paused":
            queue.pause()
        job = await queue.submit(make_job(held=obstacle == "held"))
        assert await is_waiting(worker)
        assert queue.position(job.id) == 1
        queue.resume()
        await queue.release_held([job.model])
        assert (await worker).id == job.id


@run_async
async def test_the_first_of_the_line_begins_and_not_the_newest(tmp_path: Path) -> None:
    """A job whose model was just downloaded precedes a newer one, even before the worker checks the queue."""
    async with open_queue(tmp_path) as queue:
        worker = await waiting_worker(queue)
        earlier = await queue.submit(make_job(held=True))
        await queue.store.run(lambda db: db.execute("UPDATE jobs SET held = 0"))
        later = await queue.submit(make_job())
        assert (await worker).id == earlier.id
        assert queue.position(later.id) == 1


@run_async
async def test_news_between_looking_and_waiting_is_not_missed() -> None:
    idle = IdleWorkers()
    idle.clear_news()
    idle.wake()
    assert await idle.wait(None) is None


@run_async
async def test_who_has_waited_long_enough_looks_again() -> None:
    idle = IdleWorkers()
    assert await idle.wait(0.01) is None
    assert not idle


@pytest.mark.parametrize("webhook", [True, False])
@run_async
async def test_deliveries_are_looked_for_when_a_job_with_a_webhook_begins_and_ends(
    tmp_path: Path, webhook: bool
) -> None:
    note = {"webhook": "https://example.com/told"} if webhook else {}
    async with open_queue(tmp_path) as queue:
        waiting = asyncio.create_task(queue.wait_for_deliveries(60))
        await queue.submit(make_job(request=replace(REQUEST, note=note)))
        job = await queue.claim()
        assert await is_waiting(waiting) is not webhook
        assert len(await queue.due_deliveries(sending=[], busy_hosts=[], limit=10)) == 0
        waiting.cancel()
        waiting = asyncio.create_task(queue.wait_for_deliveries(60))
        assert await is_waiting(waiting)
        await queue.finish(job)
        assert await is_waiting(waiting) is not webhook
        assert len(await queue.due_deliveries(sending=[], busy_hosts=[], limit=10)) == webhook
        waiting.cancel()
