"""The contract that every implementation of `ClientQueue` keeps about events.

Subclass it like `ClientQueueContract`.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace

import pytest

from mflux_api.errors import JobNotFound
from mflux_api.events import MAX_PENDING_EVENTS, Event
from mflux_api.jobs.job import Job
from mflux_api.jobs.queue import JobQueue
from tests.support.jobs import BROKEN, PROGRESS, complete_job, fail_job, is_waiting, make_job, run_async
from tests.unit.jobs.client_contract import Opening


async def watched(queue: JobQueue, job_id: str, last_id: str | None = None) -> list[Event]:
    return [event async for event in queue.watch(job_id, last_id, previews=False)]


def names(events: list[Event]) -> list[str]:
    return [event.name for event in events]


async def next_preview(events: AsyncGenerator[Event, None]) -> bytes | None:
    return await anext(event.preview async for event in events if event.preview is not None)


class WatchContract:
    @pytest.fixture
    def opening(self) -> Opening:
        raise NotImplementedError

    @run_async
    async def test_a_job_is_watched_from_where_it_stands_to_its_end(self, opening: Opening) -> None:
        async with opening() as queue:
            await queue.submit(make_job())
            job = await queue.submit(make_job(priority=-1))
            watching = asyncio.create_task(watched(queue, job.id))
            assert await is_waiting(watching)
            await queue.claim()
            mine = await queue.claim()
            await queue.progress(mine, PROGRESS)
            await queue.finish(mine)
            events = await watching
        assert names(events) == ["progress", "started", "progress", "complete"]
        assert events[0].data == {"job_id": job.id, "status": "queued", "progress": 0.0, "position": 2}
        assert (events[2].data["status"], events[2].data["progress"]) == ("generating", pytest.approx(1 / 3, abs=1e-4))
        assert events[3].data == {"job_id": job.id, "status": "completed"}

    @run_async
    async def test_whoever_comes_while_it_is_painted_begins_with_the_latest_progress(self, opening: Opening) -> None:
        async with opening() as queue:
            await queue.submit(make_job())
            job = await queue.claim()
            await queue.progress(job, PROGRESS)
            latest = queue.current_event(job)
            events = queue.watch(job.id, None, previews=False)
            assert await anext(events) is latest
            await queue.cancel(job.id)
            assert names([event async for event in events]) == ["cancelled"]

    @pytest.mark.parametrize(("end", "name"), [(complete_job, "complete"), (fail_job, "failed")])
    @pytest.mark.parametrize("last_id", [None, "unknown-7"])
    @run_async
    async def test_whoever_comes_late_gets_the_end_at_once(
        self, opening: Opening, end: Callable[[JobQueue], Awaitable[Job]], name: str, last_id: str | None
    ) -> None:
        async with opening() as queue:
            job = await end(queue)
            for _ in range(2):
                assert names(await watched(queue, job.id, last_id)) == [name]

    @run_async
    async def test_the_end_is_told_after_a_restart(self, opening: Opening) -> None:
        async with opening() as queue:
            job = await complete_job(queue)
        async with opening() as queue:
            assert names(await watched(queue, job.id)) == ["complete"]

    @run_async
    async def test_a_broken_stream_goes_on_after_the_last_event_that_was_heard(self, opening: Opening) -> None:
        async with opening() as queue:
            await queue.submit(make_job())
            job = await queue.claim()
            await queue.progress(job, PROGRESS)
            latest = queue.current_event(job)
            await queue.progress(job, PROGRESS)
            resumed = queue.watch(job.id, latest.id, previews=False)
            following = await anext(resumed)
            await queue.finish(job)
            assert names([following, *[event async for event in resumed]]) == ["progress", "complete"]
            assert names(await watched(queue, job.id, latest.id)) == ["progress", "complete"]
            assert names(await watched(queue, job.id, following.id)) == ["complete"]

    @run_async
    async def test_no_event_is_told_twice_or_lost_when_it_happens_while_somebody_comes(self, opening: Opening) -> None:
        async with opening() as queue:
            await queue.submit(make_job())
            job = await queue.claim()
            watching = [asyncio.create_task(watched(queue, job.id)) for _ in range(20)]
            for _ in range(20):
                await queue.progress(job, PROGRESS)
                await asyncio.sleep(0)
            await queue.finish(job)
            for events in await asyncio.gather(*watching):
                ids = [event.id for event in events]
                assert len(ids) == len(set(ids))
                assert names(events).count("complete") == 1
                assert events[-1].name == "complete"

    @run_async
    async def test_a_listener_that_is_too_slow_is_dropped_and_the_others_hear_the_end(self, opening: Opening) -> None:
        async with opening() as queue:
            await queue.submit(make_job())
            job = await queue.claim()
            slow = queue.watch(job.id, None, previews=False)
            await anext(slow)
            for _ in range(MAX_PENDING_EVENTS + 1):
                await queue.progress(job, PROGRESS)
            others = [asyncio.create_task(watched(queue, job.id)) for _ in range(5)]
            assert await is_waiting(others[0])
            await queue.finish(job)
            assert "complete" not in names([event async for event in slow])
            assert [names(await other)[-1] for other in others] == ["complete"] * 5

    @run_async
    async def test_streams_end_when_the_server_stops(self, opening: Opening) -> None:
        async with opening() as queue:
            job = await queue.submit(make_job())
            watching = asyncio.create_task(watched(queue, job.id))
            assert await is_waiting(watching)
            queue.drain()
            assert names(await watching) == ["progress", "closing"]

    @run_async
    async def test_a_job_that_waits_again_stands_as_queued(self, opening: Opening) -> None:
        async with opening() as queue:
            await queue.submit(make_job())
            job = await queue.claim()
            await queue.progress(job, PROGRESS)
            await queue.fail(job, BROKEN, again=True)
            first = await anext(queue.watch(job.id, None, previews=False))
            assert first.data == {"job_id": job.id, "status": "queued", "progress": 0.0, "position": 1}

    @run_async
    async def test_an_unknown_job_cannot_be_watched(self, opening: Opening) -> None:
        async with opening() as queue:
            with pytest.raises(JobNotFound):
                await watched(queue, "nothing")

    @run_async
    async def test_a_job_that_waits_again_is_not_shown_as_it_was_before(self, opening: Opening) -> None:
        async with opening() as queue:
            await queue.submit(make_job())
            job = await queue.claim()
            await queue.progress(job, PROGRESS)
            assert queue.current_event(job).data["step"] == PROGRESS.step
            await queue.fail(job, BROKEN, again=True)
            assert "step" not in queue.current_event(await queue.get(job.id)).data

    @run_async
    async def test_the_end_has_the_same_id_whenever_it_is_asked_for(self, opening: Opening) -> None:
        async with opening() as queue:
            job = await complete_job(queue)
            last = queue.current_event(job)
        async with opening() as queue:
            assert queue.current_event(await queue.get(job.id)).id == last.id

    @run_async
    async def test_all_jobs_are_watched_from_now_on_or_from_the_last_event_that_was_heard(
        self, opening: Opening
    ) -> None:
        async with opening() as queue:
            await complete_job(queue)
            heard = [asyncio.create_task(anext(queue.watch_all(last, previews=False))) for last in (None, "unknown")]
            assert await is_waiting(heard[0])
            await queue.submit(make_job())
            first, same = await asyncio.gather(*heard)
            assert (first.name, same) == ("queued", first)
            await queue.claim()
            following = await anext(queue.watch_all(first.id, previews=False))
            assert following.name == "started"

    @run_async
    async def test_those_who_watch_a_waiting_job_hear_of_its_models_download(self, opening: Opening) -> None:
        async with opening() as queue:
            job = await queue.submit(make_job(held=True))
            queue.report_download(job, 0.25)
            event = await anext(queue.watch(job.id, None, previews=False))
            assert (event.name, event.data["stage"], event.data["download"]) == ("progress", "downloading", 0.25)

    @pytest.mark.parametrize("viewer", ["of the job", "of all jobs", "now and then"])
    @run_async
    async def test_a_worker_hears_of_viewers_and_its_previews_are_sent(self, opening: Opening, viewer: str) -> None:
        async with opening() as queue:
            await queue.submit(make_job())
            job = await queue.claim()
            seen = asyncio.create_task(queue.wait_for_viewer(job))
            others = [queue.watch(job.id, None, previews=False), queue.watch_all(None, previews=False)]
            waiting = [asyncio.create_task(next_preview(events)) for events in others]
            assert await is_waiting(seen)
            views = {
                "of the job": queue.watch(job.id, None, previews=True),
                "of all jobs": queue.watch_all(None, previews=True),
            }
            if viewer in views:
                waiting.append(asyncio.create_task(next_preview(views[viewer])))
            else:
                queue.request_previews()
            await seen
            await queue.progress(job, replace(PROGRESS, preview=b"preview"))
            assert await asyncio.gather(*waiting) == [b"preview"] * len(waiting)
