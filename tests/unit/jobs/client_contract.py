"""The contract that every implementation of `ClientQueue` keeps about jobs.

Subclass it as Test... with a fixture `opening`. The tests play the worker through `WorkQueue`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Protocol

import pytest

from mflux_api.errors import JobConflict, JobNotFound, PictureNotFound, QueueFull, ShuttingDown
from mflux_api.events import Event
from mflux_api.jobs.job import Failure, Job, State
from mflux_api.jobs.queue import JobPage, JobQueue
from mflux_api.request import EarlyStop
from tests.support.jobs import (
    BROKEN,
    PROGRESS,
    REQUEST,
    complete_job,
    fail_job,
    is_waiting,
    make_job,
    make_painted,
    run_async,
)


class Opening(Protocol):
    def __call__(self, *, limit: int = 100, tries: int = 2) -> AbstractAsyncContextManager[JobQueue]:
        """Open the queue for the length of a block. Opened again, it has the same jobs."""


async def next_event(queue: JobQueue, name: str) -> Event:
    """Wait for the next event of this name, of any job."""
    return await anext(event async for event in queue.watch_all(None, previews=False) if event.name == name)


async def positions(queue: JobQueue, jobs: list[Job]) -> list[int | None]:
    return [queue.position(job.id) for job in jobs]


class ClientQueueContract:
    @pytest.fixture
    def opening(self) -> Opening:
        raise NotImplementedError

    # Submit

    @run_async
    async def test_a_job_is_on_disk_and_announced_when_it_is_accepted(self, opening: Opening) -> None:
        async with opening() as queue:
            heard = asyncio.create_task(next_event(queue, "queued"))
            assert await is_waiting(heard)
            job = await queue.submit(make_job())
            assert await queue.get(job.id) == job
            event = await heard
        assert (job.state, job.attempts, job.pictures) == (State.QUEUED, 0, ())
        assert (event.job, event.name) == (job.id, "queued")
        assert event.data == {"job_id": job.id, "status": "queued", "position": 1}

    @run_async
    async def test_a_full_queue_says_when_to_come_again(self, opening: Opening) -> None:
        async with opening(limit=2) as queue:
            first, _ = [await queue.submit(make_job()) for _ in range(2)]
            with pytest.raises(QueueFull) as caught:
                await queue.submit(make_job())
            assert caught.value.details == {"limit": 2, "retry_after": 10}
            assert caught.value.status == 503
            await queue.cancel(first.id)
            await queue.submit(make_job())

    @run_async
    async def test_the_running_job_does_not_wait(self, opening: Opening) -> None:
        async with opening(limit=1) as queue:
            await queue.submit(make_job())
            await queue.claim()
            await queue.submit(make_job())
            with pytest.raises(QueueFull):
                await queue.submit(make_job())

    @run_async
    async def test_many_at_once_never_exceed_the_limit(self, opening: Opening) -> None:
        async with opening(limit=10) as queue:
            dead = [await fail_job(queue) for _ in range(5)]
            offers = [queue.submit(make_job()) for _ in range(50)] + [queue.retry(job.id, held=False) for job in dead]
            results = await asyncio.gather(*offers, return_exceptions=True)
            refused = [result for result in results if isinstance(result, QueueFull)]
            assert len(results) - len(refused) == queue.count_waiting() == len(await queue.waiting_jobs(100)) == 10

    # Idempotent resubmits

    @run_async
    async def test_the_same_key_is_the_same_job(self, opening: Opening) -> None:
        async with opening(limit=1) as queue:
            job = await queue.submit(make_job(owner="alice", key="k", digest="d"))
            again = await queue.submit(make_job(owner="alice", key="k", digest="d"))
            assert again == job
            assert queue.count_waiting() == 1
            await queue.cancel(job.id)
            assert (await queue.submit(make_job(owner="alice", key="k", digest="d"))).state is State.CANCELLED

    @run_async
    async def test_the_same_key_at_the_same_time_is_one_job(self, opening: Opening) -> None:
        async with opening() as queue:
            jobs = await asyncio.gather(*(queue.submit(make_job(key="k", digest="d")) for _ in range(20)))
            assert len({job.id for job in jobs}) == queue.count_waiting() == 1

    @pytest.mark.parametrize("limit", [1, 100])
    @run_async
    async def test_a_key_used_for_something_else_is_refused(self, opening: Opening, limit: int) -> None:
        async with opening(limit=limit) as queue:
            job = await queue.submit(make_job(key="k", digest="d"))
            with pytest.raises(JobConflict) as caught:
                await queue.submit(make_job(key="k", digest="other"))
            assert caught.value.details == {"job_id": job.id}

    @run_async
    async def test_keys_belong_to_their_owners(self, opening: Opening) -> None:
        async with opening() as queue:
            jobs = [await queue.submit(make_job(owner=owner, key="k", digest=owner)) for owner in ("alice", "bob")]
            assert jobs[0].id != jobs[1].id
            assert len({(await queue.submit(make_job())).id for _ in range(2)}) == 2

    # Cancel

    @run_async
    async def test_a_waiting_job_is_cancelled_at_once(self, opening: Opening) -> None:
        async with opening() as queue:
            job = await queue.submit(make_job())
            heard = asyncio.create_task(next_event(queue, "cancelled"))
            assert await is_waiting(heard)
            cancelled = await queue.cancel(job.id)
            assert (await heard).data == {"job_id": job.id, "status": "cancelled"}
            assert (cancelled.state, cancelled.finished is None) == (State.CANCELLED, False)
            assert queue.position(job.id) is None

    @run_async
    async def test_a_running_job_keeps_the_pictures_it_has_when_it_is_cancelled(self, opening: Opening) -> None:
        async with opening() as queue:
            await queue.submit(make_job(request=replace(REQUEST, seeds=(1, 2))))
            job = await queue.claim()
            await queue.picture(job, make_painted())
            cancelled = await queue.cancel(job.id)
            assert (cancelled.state, len(cancelled.pictures)) == (State.CANCELLED, 1)
            assert queue.read_picture(cancelled.pictures[0].file) == b"picture"

    @run_async
    async def test_a_second_cancel_changes_nothing(self, opening: Opening) -> None:
        async with opening() as queue:
            job = await queue.submit(make_job())
            assert await queue.cancel(job.id) == await queue.cancel(job.id)

    @pytest.mark.parametrize(("end", "past"), [(complete_job, "completed"), (fail_job, "failed")])
    @run_async
    async def test_a_job_that_is_over_cannot_be_cancelled(
        self, opening: Opening, end: Callable[[JobQueue], Awaitable[Job]], past: str
    ) -> None:
        async with opening() as queue:
            job = await end(queue)
            with pytest.raises(JobConflict, match=f"already {past}") as caught:
                await queue.cancel(job.id)
            assert caught.value.details == {"status": past}
            assert await queue.get(job.id) == job

    @run_async
    async def test_an_unknown_job_is_not_found_and_its_name_not_echoed_at_length(self, opening: Opening) -> None:
        async with opening() as queue:
            for call in (queue.get, queue.cancel, lambda name: queue.retry(name, held=False)):
                with pytest.raises(JobNotFound) as caught:
                    await call("x" * 1000)
                assert len(caught.value.message) < 100

    @run_async
    async def test_only_a_running_job_can_be_ended_early(self, opening: Opening) -> None:
        async with opening() as queue:
            job = await queue.submit(make_job())
            queue.end_early(job.id, EarlyStop.INTERRUPT)
            queue.end_early("nothing", EarlyStop.INTERRUPT)
            await queue.claim()
            (running,) = queue.running_jobs()
            assert running.cut is None
            queue.end_early(job.id, EarlyStop.SKIP)
            (running,) = queue.running_jobs()
            assert running.cut is EarlyStop.SKIP

    # Retry

    @run_async
    async def test_a_failed_job_is_tried_again_as_if_it_were_new(self, opening: Opening) -> None:
        async with opening() as queue:
            await queue.submit(make_job())
            job = await queue.claim()
            await queue.picture(job, make_painted())
            await queue.fail(job, BROKEN, again=False)
            (picture,) = (await queue.get(job.id)).pictures
            waiting = await queue.retry(job.id, held=False)
            assert (waiting.state, waiting.attempts, waiting.error, waiting.pictures) == (State.QUEUED, 0, None, ())
            assert (waiting.started, waiting.finished, queue.position(job.id)) == (None, None, 1)
            with pytest.raises(PictureNotFound):
                queue.read_picture(picture.file)
            again = await queue.claim()
            await queue.picture(again, make_painted())
            await queue.finish(again)
            assert (await queue.get(job.id)).state is State.COMPLETED

    @run_async
    async def test_a_cancelled_job_may_be_tried_again_and_its_first_worker_is_not_heard(self, opening: Opening) -> None:
        async with opening() as queue:
            await queue.submit(make_job())
            first = await queue.claim()
            await queue.cancel(first.id)
            await queue.retry(first.id, held=False)
            second = await queue.claim()
            with pytest.raises(JobConflict):
                await queue.finish(first)
            await queue.finish(second)

    @run_async
    async def test_only_failed_and_cancelled_jobs_are_tried_again(self, opening: Opening) -> None:
        async with opening() as queue:
            done = await complete_job(queue, b"picture")
            running = await queue.submit(make_job())
            await queue.claim()
            waiting = await queue.submit(make_job())
            for job in (done, running, waiting):
                with pytest.raises(JobConflict):
                    await queue.retry(job.id, held=False)
            assert queue.read_picture(done.pictures[0].file) == b"picture"

    @run_async
    async def test_a_retry_needs_room_in_the_queue(self, opening: Opening) -> None:
        async with opening(limit=1) as queue:
            job = await fail_job(queue)
            await queue.submit(make_job())
            with pytest.raises(QueueFull):
                await queue.retry(job.id, held=False)
            assert (await queue.get(job.id)).state is State.FAILED

    # Order of the queue

    @run_async
    async def test_positions_follow_priority_and_submission(self, opening: Opening) -> None:
        async with opening() as queue:
            jobs = [await queue.submit(make_job(priority=priority)) for priority in (0, 5, -1, 5)]
            assert await positions(queue, jobs) == [3, 1, 4, 2]
            assert [job.id for job in await queue.waiting_jobs(3)] == [jobs[index].id for index in (1, 3, 0)]
            await queue.claim()
            assert await positions(queue, jobs) == [2, 0, 3, 1]
            await queue.cancel(jobs[3].id)
            assert await positions(queue, jobs) == [1, 0, 2, None]
        async with opening() as queue:
            assert await positions(queue, jobs) == [2, 1, 3, None]

    @run_async
    async def test_a_paused_queue_starts_nothing_until_it_is_resumed(self, opening: Opening) -> None:
        async with opening() as queue:
            heard = asyncio.create_task(next_event(queue, "paused"))
            assert await is_waiting(heard)
            queue.pause()
            assert (await heard).data == {"paused": True}
            claim = asyncio.create_task(queue.claim())
            job = await queue.submit(make_job())
            assert await is_waiting(claim)
            queue.resume()
            assert (await claim).id == job.id

    @run_async
    async def test_the_running_job_goes_on_while_the_queue_is_paused(self, opening: Opening) -> None:
        async with opening() as queue:
            await queue.submit(make_job())
            job = await queue.claim()
            queue.pause()
            await queue.picture(job, make_painted())
            await queue.finish(job)
            assert (await queue.get(job.id)).state is State.COMPLETED

    @run_async
    async def test_a_job_that_waits_for_its_model_lets_others_go_first(self, opening: Opening) -> None:
        async with opening() as queue:
            held = await queue.submit(make_job(held=True, model="a"))
            other = await queue.submit(make_job(model="b"))
            assert (await queue.claim()).id == other.id
            claim = asyncio.create_task(queue.claim())
            await queue.release_held(["b"])
            assert await is_waiting(claim)
            await queue.release_held(["a"])
            assert (await claim).id == held.id

    @run_async
    async def test_a_job_that_can_never_run_fails_with_the_reason(self, opening: Opening) -> None:
        async with opening() as queue:
            job = await queue.submit(make_job(held=True))
            reason = Failure("MODEL_GATED", 403, "Accept the licence.")
            await queue.refuse(job, reason)
            found = await queue.get(job.id)
            assert (found.state, found.error, queue.position(job.id)) == (State.FAILED, reason, None)
            gone = await queue.submit(make_job(held=True))
            await queue.cancel(gone.id)
            await queue.refuse(gone, reason)
            assert (await queue.get(gone.id)).state is State.CANCELLED

    # Lists

    @run_async
    async def test_pages_come_newest_first_and_go_on_below_the_last(self, opening: Opening) -> None:
        async with opening() as queue:
            jobs = [await queue.submit(make_job()) for _ in range(5)]
            newest = [job.id for job in reversed(jobs)]
            first = await queue.list_jobs(None, None, 2)
            assert ([job.id for job in first.jobs], first.total) == (newest[:2], 5)
            await queue.submit(make_job())
            second = await queue.list_jobs(None, first.jobs[-1].number, 10)
            assert ([job.id for job in second.jobs], second.total) == (newest[2:], 6)
            assert await queue.list_jobs(None, jobs[0].number, 10) == JobPage([], 6)

    @run_async
    async def test_a_page_may_be_of_one_status(self, opening: Opening) -> None:
        async with opening() as queue:
            await queue.submit(make_job())
            interrupted = await queue.claim()
            done, broken = await complete_job(queue), await fail_job(queue)
            cancelled = await queue.cancel((await queue.submit(make_job())).id)
            await queue.release(interrupted)
            waiting = await queue.submit(make_job())
            pages = {
                "queued": [waiting.id, interrupted.id],
                "generating": [],
                "completed": [done.id],
                "failed": [broken.id],
                "cancelled": [cancelled.id],
            }
            for status, expected in pages.items():
                page = await queue.list_jobs(status, None, 10)
                assert ([job.id for job in page.jobs], page.total) == (expected, len(expected))

    @run_async
    async def test_a_running_job_is_shown_as_far_as_it_is(self, opening: Opening) -> None:
        async with opening() as queue:
            assert queue.running_jobs() == []
            await queue.submit(make_job(request=replace(REQUEST, seeds=(1, 2))))
            job = await queue.claim()
            (running,) = queue.running_jobs()
            assert (running.job, running.fraction, running.preview, running.pictures) == (job, 0.0, None, ())
            await queue.progress(job, replace(PROGRESS, of=2, preview=b"preview"))
            await queue.progress(job, replace(PROGRESS, step=2, of=2))
            await queue.picture(job, make_painted())
            (running,) = queue.running_jobs()
            assert (running.fraction, running.preview, len(running.pictures)) == (0.3333, b"preview", 1)
            await queue.finish(job)
            assert queue.running_jobs() == []

    @run_async
    async def test_a_job_is_expected_to_take_as_long_as_the_last_like_it(self, opening: Opening) -> None:
        async with opening() as queue:
            await queue.submit(make_job())
            job = await queue.claim()
            assert queue.expected_seconds(job) is None
            await queue.finish(job, make_painted(diffusion=2.0, total=3.0))
            assert queue.expected_seconds(job) == 3.0
            await queue.submit(make_job())
            await queue.claim()
            (running,) = queue.running_jobs()
            assert running.seconds_left == 3.0
        async with opening() as queue:
            assert queue.expected_seconds(job) == 3.0

    @run_async
    async def test_held_jobs_are_those_that_wait_for_their_model(self, opening: Opening) -> None:
        async with opening() as queue:
            held = [await queue.submit(make_job(held=True, model=model)) for model in ("a", "b")]
            await queue.submit(make_job())
            assert await queue.held_jobs() == held
            await queue.release_held(["a"])
            assert await queue.held_jobs() == held[1:]

    # Wait for the end

    @run_async
    async def test_whoever_waits_for_a_job_hears_its_end(self, opening: Opening) -> None:
        async with opening() as queue:
            job = await queue.submit(make_job())
            waiters = [asyncio.create_task(queue.wait_ended(job)) for _ in range(3)]
            await queue.claim()
            assert await is_waiting(waiters[0])
            await queue.finish(await queue.get(job.id))
            assert [(await waiter).state for waiter in waiters] == [State.COMPLETED] * 3
            assert (await queue.wait_ended(job)).state is State.COMPLETED

    @pytest.mark.parametrize("end", ["cancel", "fail"])
    @run_async
    async def test_every_end_is_heard(self, opening: Opening, end: str) -> None:
        async with opening(tries=1) as queue:
            await queue.submit(make_job())
            job = await queue.claim()
            waiter = asyncio.create_task(queue.wait_ended(job))
            assert await is_waiting(waiter)
            if end == "cancel":
                await queue.cancel(job.id)
            else:
                await queue.fail(job, BROKEN, again=True)
            assert (await waiter).is_final

    @run_async
    async def test_a_stop_wakes_those_whose_job_waits_and_lets_the_running_one_end(self, opening: Opening) -> None:
        async with opening() as queue:
            running, waiting = [await queue.submit(make_job()) for _ in range(2)]
            job = await queue.claim()
            waits_for_running = asyncio.create_task(queue.wait_ended(running))
            waits_for_waiting = asyncio.create_task(queue.wait_ended(waiting))
            assert await is_waiting(waits_for_waiting)
            queue.drain()
            assert (await waits_for_waiting).state is State.QUEUED
            assert (await queue.wait_ended(waiting)).state is State.QUEUED
            assert await is_waiting(waits_for_running)
            await queue.finish(job)
            assert (await waits_for_running).state is State.COMPLETED

    @run_async
    async def test_a_stopping_queue_accepts_and_starts_nothing(self, opening: Opening) -> None:
        async with opening() as queue:
            claim = asyncio.create_task(queue.claim())
            await queue.submit(make_job())
            await claim
            job = await queue.submit(make_job())
            queue.drain()
            with pytest.raises(ShuttingDown):
                await queue.submit(make_job())
            claim = asyncio.create_task(queue.claim())
            assert await is_waiting(claim)
            claim.cancel()
        async with opening() as queue:
            assert {(await queue.claim()).id for _ in range(2)} >= {job.id}
