import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from mflux_api.errors import JobConflict, JobNotFound, PictureNotFound, QueueFull, ShuttingDown, StorageFailed
from mflux_api.jobs.database import jobs as job_rows
from mflux_api.jobs.job import Failure, Job, State
from mflux_api.jobs.queue import DAY, InputPictures, JobPage, JobQueue, Retention, Totals
from mflux_api.jobs.sqlite_queue import SQLiteQueue
from tests.jobs.making import (
    BROKEN,
    PROGRESS,
    REQUEST,
    asynchronous,
    completed,
    crashing,
    failed,
    files,
    is_waiting,
    make_job,
    make_painted,
    opened,
)

FOREVER = Retention(days=0, bytes=0)


@asynccontextmanager
async def busy_disk(queue: SQLiteQueue) -> AsyncIterator[None]:
    """Inside, the database answers nobody."""
    begun, gate = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def hold(_: sqlite3.Connection) -> None:
        loop.call_soon_threadsafe(begun.set)
        gate.wait()

    holding = asyncio.create_task(queue.store.run(hold))
    await begun.wait()
    try:
        yield
    finally:
        gate.set()
        await holding


async def abandoned(queue: SQLiteQueue, call: Awaitable[object]) -> None:
    """Begin a call and go away before the database has answered."""
    async with busy_disk(queue):
        caller = asyncio.ensure_future(call)
        assert await is_waiting(caller)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller


async def positions(queue: SQLiteQueue, jobs: list[Job]) -> list[int | None]:
    return [queue.position(job.id) for job in jobs]


def backdate(db: sqlite3.Connection, job_id: str, days: float) -> None:
    db.execute("UPDATE jobs SET finished = ? WHERE id = ?", (time.time() - days * DAY, job_id))


# Accepting


@asynchronous
async def test_a_job_is_on_disk_and_announced_when_it_is_accepted(tmp_path: Path) -> None:
    async with opened(tmp_path) as queue:
        with queue.job_events.events.listen(None) as box:
            job = await queue.submit(make_job())
            assert await queue.get(job.id) == job
            event = await anext(box)
    assert (job.state, job.attempts, job.pictures) == (State.QUEUED, 0, ())
    assert (event.job, event.name) == (job.id, "queued")
    assert event.data == {"job_id": job.id, "status": "queued", "position": 1}


@asynchronous
async def test_a_full_queue_says_when_to_come_again(tmp_path: Path) -> None:
    async with opened(tmp_path, limit=2) as queue:
        first, _ = [await queue.submit(make_job()) for _ in range(2)]
        with pytest.raises(QueueFull) as caught:
            await queue.submit(make_job())
        assert caught.value.details == {"limit": 2, "retry_after": 10}
        assert caught.value.status == 503
        await queue.cancel(first.id)
        await queue.submit(make_job())


@asynchronous
async def test_the_running_job_does_not_wait(tmp_path: Path) -> None:
    async with opened(tmp_path, limit=1) as queue:
        await queue.submit(make_job())
        await queue.claim()
        await queue.submit(make_job())
        with pytest.raises(QueueFull):
            await queue.submit(make_job())


@asynchronous
async def test_many_at_once_never_exceed_the_limit(tmp_path: Path) -> None:
    async with opened(tmp_path, limit=10) as queue:
        dead = [await failed(queue) for _ in range(5)]
        offers = [queue.submit(make_job()) for _ in range(50)] + [queue.retry(job.id, held=False) for job in dead]
        results = await asyncio.gather(*offers, return_exceptions=True)
        refused = [result for result in results if isinstance(result, QueueFull)]
        assert len(results) - len(refused) == queue.count_waiting() == len(await queue.waiting_jobs(100)) == 10


@asynchronous
async def test_a_full_disk_refuses_jobs_and_the_line_does_not_count_them(tmp_path: Path) -> None:
    def limit_pages(db: sqlite3.Connection, count: int) -> None:
        db.execute(f"PRAGMA max_page_count = {count}")

    async with opened(tmp_path, limit=1) as queue:
        await queue.store.run(limit_pages, 1)
        with pytest.raises(StorageFailed):
            await queue.submit(make_job(key="x" * 100_000))
        assert queue.count_waiting() == 0
        await queue.store.run(limit_pages, 1_000_000)
        await queue.submit(make_job())


# Idempotency


@asynchronous
async def test_the_same_key_is_the_same_job(tmp_path: Path) -> None:
    async with opened(tmp_path, limit=1) as queue:
        job = await queue.submit(make_job(owner="alice", key="k", digest="d"))
        again = await queue.submit(make_job(owner="alice", key="k", digest="d"))
        assert again == job
        assert queue.count_waiting() == 1
        await queue.cancel(job.id)
        assert (await queue.submit(make_job(owner="alice", key="k", digest="d"))).state is State.CANCELLED


@asynchronous
async def test_the_same_key_at_the_same_time_is_one_job(tmp_path: Path) -> None:
    async with opened(tmp_path) as queue:
        jobs = await asyncio.gather(*(queue.submit(make_job(key="k", digest="d")) for _ in range(20)))
        assert len({job.id for job in jobs}) == queue.count_waiting() == 1


@pytest.mark.parametrize("limit", [1, 100])
@asynchronous
async def test_a_key_used_for_something_else_is_refused(tmp_path: Path, limit: int) -> None:
    async with opened(tmp_path, limit=limit) as queue:
        job = await queue.submit(make_job(key="k", digest="d"))
        with pytest.raises(JobConflict) as caught:
            await queue.submit(make_job(key="k", digest="other"))
        assert caught.value.details == {"job_id": job.id}


@asynchronous
async def test_keys_belong_to_their_owners(tmp_path: Path) -> None:
    async with opened(tmp_path) as queue:
        jobs = [await queue.submit(make_job(owner=owner, key="k", digest=owner)) for owner in ("alice", "bob")]
        assert jobs[0].id != jobs[1].id
        assert len({(await queue.submit(make_job())).id for _ in range(2)}) == 2


# Changing one's mind


@asynchronous
async def test_a_waiting_job_is_cancelled_at_once(tmp_path: Path) -> None:
    async with opened(tmp_path) as queue:
        job = await queue.submit(make_job())
        with queue.job_events.events.listen(job.id) as box:
            cancelled = await queue.cancel(job.id)
            assert (await anext(box)).name == "cancelled"
        assert (cancelled.state, cancelled.finished is None) == (State.CANCELLED, False)
        assert queue.position(job.id) is None


@asynchronous
async def test_a_running_job_keeps_the_pictures_it_has_when_it_is_cancelled(tmp_path: Path) -> None:
    async with opened(tmp_path) as queue:
        await queue.submit(make_job(request=replace(REQUEST, seeds=(1, 2))))
        job = await queue.claim()
        await queue.picture(job, make_painted())
        cancelled = await queue.cancel(job.id)
        assert (cancelled.state, len(cancelled.pictures)) == (State.CANCELLED, 1)
        assert queue.read_picture(cancelled.pictures[0].file) == b"picture"


@asynchronous
async def test_a_second_cancel_changes_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as queue:
        job = await queue.submit(make_job())
        assert await queue.cancel(job.id) == await queue.cancel(job.id)


@pytest.mark.parametrize(("end", "past"), [(completed, "completed"), (failed, "failed")])
@asynchronous
async def test_a_job_that_is_over_cannot_be_cancelled(
    tmp_path: Path, end: Callable[[JobQueue], Awaitable[Job]], past: str
) -> None:
    async with opened(tmp_path) as queue:
        job = await end(queue)
        with pytest.raises(JobConflict, match=f"already {past}") as caught:
            await queue.cancel(job.id)
        assert caught.value.details == {"status": past}
        assert await queue.get(job.id) == job


@asynchronous
async def test_an_unknown_job_is_not_found_and_its_name_not_echoed_at_length(tmp_path: Path) -> None:
    async with opened(tmp_path) as queue:
        for call in (queue.get, queue.cancel, lambda name: queue.retry(name, held=False)):
            with pytest.raises(JobNotFound) as caught:
                await call("x" * 1000)
            assert len(caught.value.message) < 100


@asynchronous
async def test_a_picture_kept_while_its_job_is_cancelled_is_named_or_deleted(tmp_path: Path) -> None:
    async with opened(tmp_path) as queue:
        await queue.submit(make_job())
        job = await queue.claim()
        async with busy_disk(queue):
            cancel = asyncio.create_task(queue.cancel(job.id))
            assert await is_waiting(cancel)
            await queue.picture(job, make_painted())
        assert {picture.file for picture in (await cancel).pictures} == files(tmp_path)


@asynchronous
async def test_finishing_and_cancelling_at_once_have_one_outcome(tmp_path: Path) -> None:
    async with opened(tmp_path) as queue:
        for first in ("finish", "cancel"):
            await queue.submit(make_job())
            job = await queue.claim()
            calls: list[Awaitable[object]] = [queue.finish(job, make_painted()), queue.cancel(job.id)]
            results = await asyncio.gather(*(calls if first == "finish" else calls[::-1]), return_exceptions=True)
            assert [isinstance(result, JobConflict) for result in results] == [False, True]
            expected = State.COMPLETED if first == "finish" else State.CANCELLED
            ended = await queue.get(job.id)
            assert ended.state is expected
            assert {picture.file for picture in ended.pictures} == {file for file in files(tmp_path) if job.id in file}
            assert not queue.running_jobs()


@asynchronous
async def test_a_last_picture_whose_row_finds_the_disk_full_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> Job:
        assert len(files(tmp_path)) == 2
        raise sqlite3.OperationalError("database or disk is full")

    async with opened(tmp_path) as queue:
        await queue.submit(make_job())
        job = await queue.claim()
        await queue.picture(job, make_painted(0))
        with monkeypatch.context() as patched:
            patched.setattr(job_rows, "change_state", full)
            with pytest.raises(StorageFailed):
                await queue.finish(job, make_painted(1))
        assert len(files(tmp_path)) == 1
        await queue.finish(job, make_painted(1))
        assert {picture.file for picture in (await queue.get(job.id)).pictures} == files(tmp_path)


@asynchronous
async def test_a_failed_job_is_tried_again_as_if_it_were_new(tmp_path: Path) -> None:
    async with opened(tmp_path) as queue:
        await queue.submit(make_job())
        job = await queue.claim()
        await queue.picture(job, make_painted())
        await queue.fail(job, BROKEN, again=False)
        waiting = await queue.retry(job.id, held=False)
        assert (waiting.state, waiting.attempts, waiting.error, waiting.pictures) == (State.QUEUED, 0, None, ())
        assert (waiting.started, waiting.finished, queue.position(job.id)) == (None, None, 1)
        assert files(tmp_path) == set()
        again = await queue.claim()
        await queue.picture(again, make_painted())
        await queue.finish(again)
        assert (await queue.get(job.id)).state is State.COMPLETED


@asynchronous
async def test_a_cancelled_job_may_be_tried_again_and_its_first_worker_is_not_heard(tmp_path: Path) -> None:
    async with opened(tmp_path) as queue:
        await queue.submit(make_job())
        first = await queue.claim()
        await queue.cancel(first.id)
        await queue.retry(first.id, held=False)
        second = await queue.claim()
        with pytest.raises(JobConflict):
            await queue.finish(first)
        await queue.finish(second)


@asynchronous
async def test_only_failed_and_cancelled_jobs_are_tried_again(tmp_path: Path) -> None:
    async with opened(tmp_path) as queue:
        done = await completed(queue, b"picture")
        running = await queue.submit(make_job())
        await queue.claim()
        waiting = await queue.submit(make_job())
        for job in (done, running, waiting):
            with pytest.raises(JobConflict):
                await queue.retry(job.id, held=False)
        assert queue.read_picture(done.pictures[0].file) == b"picture"


@asynchronous
async def test_a_retry_needs_room_in_the_queue(tmp_path: Path) -> None:
    async with opened(tmp_path, limit=1) as queue:
        job = await failed(queue)
        await queue.submit(make_job())
        with pytest.raises(QueueFull):
            await queue.retry(job.id, held=False)
        assert (await queue.get(job.id)).state is State.FAILED


# Callers that go away


@asynchronous
async def test_a_job_whose_sender_went_away_is_painted_all_the_same(tmp_path: Path) -> None:
    async with opened(tmp_path) as queue:
        claim = asyncio.create_task(queue.claim())
        assert await is_waiting(claim)
        new = make_job()
        await abandoned(queue, queue.submit(new))
        assert (await claim).id == new.id


VERBS: dict[str, Callable[[SQLiteQueue, Job], Awaitable[object]]] = {
    "finish": lambda queue, job: queue.finish(job),
    "fail": lambda queue, job: queue.fail(job, BROKEN, again=False),
    "release": lambda queue, job: queue.release(job),
    "cancel": lambda queue, job: queue.cancel(job.id),
}


@pytest.mark.parametrize("verb", VERBS)
@asynchronous
async def test_a_verb_whose_caller_went_away_is_done_to_its_end(tmp_path: Path, verb: str) -> None:
    async with opened(tmp_path) as queue:
        await queue.submit(make_job())
        job = await queue.claim()
        await abandoned(queue, VERBS[verb](queue, job))
        await queue.wait_idle()
        await queue.wait_cancelled(job)
        assert (await queue.get(job.id)).state is not State.GENERATING


@asynchronous
async def test_a_verdict_on_its_way_does_not_keep_the_queue_from_closing(tmp_path: Path) -> None:
    async with opened(tmp_path) as queue:
        await queue.submit(make_job())
        job = await queue.claim()
        await abandoned(queue, queue.finish(job))
    async with opened(tmp_path) as queue:
        assert (await queue.get(job.id)).state is State.COMPLETED


# Order


@asynchronous
async def test_positions_follow_priority_and_submission(tmp_path: Path) -> None:
    async with opened(tmp_path) as queue:
        jobs = [await queue.submit(make_job(priority=priority)) for priority in (0, 5, -1, 5)]
        assert await positions(queue, jobs) == [3, 1, 4, 2]
        assert [job.id for job in await queue.waiting_jobs(3)] == [jobs[index].id for index in (1, 3, 0)]
        await queue.claim()
        assert await positions(queue, jobs) == [2, 0, 3, 1]
        await queue.cancel(jobs[3].id)
        assert await positions(queue, jobs) == [1, 0, 2, None]
    async with opened(tmp_path) as queue:
        assert await positions(queue, jobs) == [2, 1, 3, None]


@asynchronous
async def test_a_paused_queue_starts_nothing_until_it_is_resumed(tmp_path: Path) -> None:
    async with opened(tmp_path) as queue:
        with queue.job_events.events.listen(None) as box:
            queue.pause()
            assert (await anext(box)).data == {"paused": True}
            claim = asyncio.create_task(queue.claim())
            job = await queue.submit(make_job())
            assert await is_waiting(claim)
            queue.resume()
            assert (await claim).id == job.id


@asynchronous
async def test_the_running_job_goes_on_while_the_queue_is_paused(tmp_path: Path) -> None:
    async with opened(tmp_path) as queue:
        await queue.submit(make_job())
        job = await queue.claim()
        queue.pause()
        await queue.picture(job, make_painted())
        await queue.finish(job)
        assert (await queue.get(job.id)).state is State.COMPLETED


@asynchronous
async def test_a_job_that_waits_for_its_model_lets_others_go_first(tmp_path: Path) -> None:
    async with opened(tmp_path) as queue:
        held = await queue.submit(make_job(held=True, model="a"))
        other = await queue.submit(make_job(model="b"))
        assert (await queue.claim()).id == other.id
        claim = asyncio.create_task(queue.claim())
        await queue.release_held(["b"])
        assert await is_waiting(claim)
        await queue.release_held(["a"])
        assert (await claim).id == held.id


@asynchronous
async def test_a_job_that_can_never_run_fails_with_the_reason(tmp_path: Path) -> None:
    async with opened(tmp_path) as queue:
        job = await queue.submit(make_job(held=True))
        reason = Failure("MODEL_GATED", 403, "Accept the licence.")
        await queue.refuse(job, reason)
        found = await queue.get(job.id)
        assert (found.state, found.error, queue.position(job.id)) == (State.FAILED, reason, None)
        gone = await queue.submit(make_job(held=True))
        await queue.cancel(gone.id)
        await queue.refuse(gone, reason)
        assert (await queue.get(gone.id)).state is State.CANCELLED


# Restart


@asynchronous
async def test_waiting_jobs_survive_a_crash_in_their_order(tmp_path: Path) -> None:
    async with crashing(tmp_path) as queue:
        jobs = [await queue.submit(make_job(priority=priority)) for priority in (0, 1, 0)]
    async with opened(tmp_path) as queue:
        assert [(await queue.claim()).id for _ in jobs] == [jobs[index].id for index in (1, 0, 2)]


@asynchronous
async def test_the_job_that_was_running_at_a_crash_runs_again_and_the_try_counts(tmp_path: Path) -> None:
    async with crashing(tmp_path) as queue:
        first, _ = [await queue.submit(make_job()) for _ in range(2)]
        await queue.claim()
    async with opened(tmp_path) as queue:
        assert (await queue.get(first.id)).state is State.INTERRUPTED
        assert queue.position(first.id) == 1
        again = await queue.claim()
        assert (again.id, again.attempts) == (first.id, 2)
        await queue.finish(again)
        assert (await queue.get(first.id)).state is State.COMPLETED


@pytest.mark.parametrize("tries", [1, 3])
@asynchronous
async def test_a_job_that_crashes_the_server_too_often_fails(tmp_path: Path, tries: int) -> None:
    async with opened(tmp_path) as queue:
        job = await queue.submit(make_job())
    for _ in range(tries):
        async with crashing(tmp_path, tries=tries) as queue:
            assert (await queue.claim()).id == job.id
            await queue.picture(await queue.get(job.id), make_painted())
    async with opened(tmp_path, tries=tries) as queue:
        found = await queue.get(job.id)
        assert found.state is State.FAILED
        assert found.error == Failure("INTERRUPTED", 500, f"The server stopped {tries} times in it.")
        assert queue.position(job.id) is None
        assert files(tmp_path) == set()


@asynchronous
async def test_an_orderly_stop_does_not_count_as_a_try(tmp_path: Path) -> None:
    for _ in range(3):
        async with opened(tmp_path, tries=1) as queue:
            if not queue.count_waiting():
                await queue.submit(make_job())
            assert (await queue.claim()).attempts == 1


@asynchronous
async def test_what_an_interrupted_run_left_is_deleted_and_nothing_else(tmp_path: Path) -> None:
    async with crashing(tmp_path) as queue:
        done = await completed(queue, b"finished")
        await queue.submit(make_job())
        job = await queue.claim()
        await queue.picture(job, make_painted(0, b"left"))
    kept = done.pictures[0].file
    day = (tmp_path / kept).parent
    (day / f"{job.id}-1.png.partial").write_bytes(b"half")
    own = {str(day.relative_to(tmp_path) / name) for name in ("holiday.png", "0123456789ab-0.png", f"{job.id}.txt")}
    for name in own:
        (tmp_path / name).write_bytes(b"a person's own")
    async with opened(tmp_path) as queue:
        assert files(tmp_path) == {kept, *own}
        assert queue.read_picture((await queue.get(done.id)).pictures[0].file) == b"finished"


@asynchronous
async def test_finished_jobs_are_as_they_were_after_a_crash(tmp_path: Path) -> None:
    async with crashing(tmp_path) as queue:
        jobs = [await completed(queue, b"picture"), await failed(queue)]
        jobs.append(await queue.cancel((await queue.submit(make_job())).id))
    async with opened(tmp_path) as queue:
        assert [await queue.get(job.id) for job in jobs] == jobs


@asynchronous
async def test_a_job_that_waits_again_is_not_shown_as_it_was_before(tmp_path: Path) -> None:
    async with opened(tmp_path) as queue:
        await queue.submit(make_job())
        job = await queue.claim()
        await queue.progress(job, PROGRESS)
        assert queue.job_events.events.latest(job.id) is not None
        await queue.fail(job, BROKEN, again=True)
        assert queue.job_events.events.latest(job.id) is None


# Pruning


@asynchronous
async def test_old_jobs_are_deleted_with_their_files(tmp_path: Path) -> None:
    async with opened(tmp_path) as queue:
        old, young = [await completed(queue, b"picture") for _ in range(2)]
        await queue.save_inputs(old.id, InputPictures(source=b"source"))
        await queue.store.run(backdate, old.id, 2.0)
        assert await queue.prune(Retention(days=3, bytes=0)) == 0
        assert await queue.prune(Retention(days=1, bytes=0)) == 1
        with pytest.raises(JobNotFound):
            await queue.get(old.id)
        assert files(tmp_path) == {young.pictures[0].file}


@asynchronous
async def test_the_oldest_jobs_go_when_there_are_too_many_bytes(tmp_path: Path) -> None:
    async with opened(tmp_path) as queue:
        jobs = [await completed(queue, b"x" * 100) for _ in range(4)]
        for age, job in zip((4, 3, 2, 1), jobs, strict=True):
            await queue.store.run(backdate, job.id, age / DAY)
        assert await queue.prune(Retention(days=0, bytes=400)) == 0
        assert await queue.prune(Retention(days=0, bytes=399)) == 1
        assert await queue.prune(Retention(days=0, bytes=250)) == 1
        page = await queue.list_jobs(None, None, 10)
        assert ([job.id for job in page.jobs], page.total) == ([jobs[3].id, jobs[2].id], 2)
        assert files(tmp_path) == {job.pictures[0].file for job in jobs[2:]}


@asynchronous
async def test_what_jobs_started_from_counts_as_their_pictures_do_and_goes_with_them(tmp_path: Path) -> None:
    async with opened(tmp_path) as queue:
        jobs = []
        for _ in range(2):
            new = make_job()
            pictures = InputPictures(source=b"x" * 50, references=(b"x" * 25,) * 2)
            inputs = await queue.save_inputs(new.id, pictures)
            jobs.append(await completed(queue, b"x" * 100, id=new.id, inputs=inputs))
        assert await queue.prune(Retention(days=0, bytes=400)) == 0
        await queue.delete_picture(jobs[1].id, "0")
        assert await queue.prune(Retention(days=0, bytes=300)) == 0
        assert await queue.prune(Retention(days=0, bytes=299)) == 1
        assert files(tmp_path) == set(jobs[1].inputs.files)
        assert await queue.prune(Retention(days=0, bytes=99)) == 1
        assert files(tmp_path) == set()


@asynchronous
async def test_nothing_is_deleted_without_a_limit_or_before_it_is_over(tmp_path: Path) -> None:
    async with opened(tmp_path) as queue:
        old = await completed(queue, b"picture")
        await queue.store.run(backdate, old.id, 10_000.0)
        assert await queue.prune(FOREVER) == 0
        await queue.submit(make_job(created=0.0))
        await queue.submit(make_job(created=0.0))
        running = await queue.claim()
        await queue.picture(running, make_painted())
        assert await queue.prune(Retention(days=1, bytes=1)) == 1
        assert (await queue.list_jobs(None, None, 10)).total == 2
        await queue.finish(running)


@asynchronous
async def test_a_picture_somebody_deleted_is_missing_and_its_job_can_still_be_pruned(tmp_path: Path) -> None:
    async with opened(tmp_path) as queue:
        job = await completed(queue, b"picture")
        (tmp_path / job.pictures[0].file).unlink()
        with pytest.raises(PictureNotFound):
            queue.read_picture(job.pictures[0].file)
        assert await queue.prune(Retention(days=0, bytes=1)) == 1


# Lists and sums


@asynchronous
async def test_pages_come_newest_first_and_go_on_below_the_last(tmp_path: Path) -> None:
    async with opened(tmp_path) as queue:
        jobs = [await queue.submit(make_job()) for _ in range(5)]
        newest = [job.id for job in reversed(jobs)]
        first = await queue.list_jobs(None, None, 2)
        assert ([job.id for job in first.jobs], first.total) == (newest[:2], 5)
        await queue.submit(make_job())
        second = await queue.list_jobs(None, first.jobs[-1].number, 10)
        assert ([job.id for job in second.jobs], second.total) == (newest[2:], 6)
        assert await queue.list_jobs(None, jobs[0].number, 10) == JobPage([], 6)


@asynchronous
async def test_a_page_may_be_of_one_status(tmp_path: Path) -> None:
    async with crashing(tmp_path) as queue:
        interrupted = await queue.submit(make_job())
        await queue.claim()
    async with opened(tmp_path) as queue:
        await queue.claim()
        done, broken = await completed(queue), await failed(queue)
        cancelled = await queue.cancel((await queue.submit(make_job())).id)
        await queue.release(await queue.get(interrupted.id))
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


@asynchronous
async def test_totals_survive_a_restart_and_pruning(tmp_path: Path) -> None:
    async with opened(tmp_path) as queue:
        jobs = [await completed(queue, b"one", b"two"), await completed(queue, b"three")]
        await failed(queue)
        assert await queue.prune(Retention(days=0, bytes=1)) == 2
    async with opened(tmp_path) as queue:
        totals = await queue.totals()
    seconds = sum(job.seconds or 0.0 for job in jobs)
    assert replace(totals, seconds=0.0) == Totals(generations=2, images=3, failures=1)
    assert totals.seconds == pytest.approx(seconds)


# Waiting for the end


@asynchronous
async def test_whoever_waits_for_a_job_hears_its_end(tmp_path: Path) -> None:
    async with opened(tmp_path) as queue:
        job = await queue.submit(make_job())
        waiters = [asyncio.create_task(queue.wait_ended(job)) for _ in range(3)]
        await queue.claim()
        assert await is_waiting(waiters[0])
        await queue.finish(await queue.get(job.id))
        assert [(await waiter).state for waiter in waiters] == [State.COMPLETED] * 3
        assert (await queue.wait_ended(job)).state is State.COMPLETED


@pytest.mark.parametrize("end", ["cancel", "fail", "lose"])
@asynchronous
async def test_every_end_is_heard(tmp_path: Path, end: str) -> None:
    async with opened(tmp_path, tries=1) as queue:
        queue.running.lease = 0.0
        await queue.submit(make_job())
        job = await queue.claim()
        waiter = asyncio.create_task(queue.wait_ended(job))
        assert await is_waiting(waiter)
        if end == "cancel":
            await queue.cancel(job.id)
        elif end == "fail":
            await queue.fail(job, BROKEN, again=True)
        else:
            claim = asyncio.create_task(queue.claim())
        assert (await waiter).is_final
        if end == "lose":
            claim.cancel()


@asynchronous
async def test_a_stop_wakes_those_whose_job_waits_and_lets_the_running_one_end(tmp_path: Path) -> None:
    async with opened(tmp_path) as queue:
        running, waiting = [await queue.submit(make_job()) for _ in range(2)]
        job = await queue.claim()
        waits_for_running = asyncio.create_task(queue.wait_ended(running))
        waits_for_waiting = asyncio.create_task(queue.wait_ended(waiting))
        assert await is_waiting(waits_for_waiting)
        with queue.job_events.events.listen(running.id) as box:
            queue.drain()
            assert [event.name async for event in box] == ["closing"]
        assert (await waits_for_waiting).state is State.QUEUED
        assert (await queue.wait_ended(waiting)).state is State.QUEUED
        assert await is_waiting(waits_for_running)
        await queue.finish(job)
        assert (await waits_for_running).state is State.COMPLETED


@asynchronous
async def test_a_stopping_queue_accepts_and_starts_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as queue:
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
    async with opened(tmp_path) as queue:
        assert {(await queue.claim()).id for _ in range(2)} >= {job.id}


@asynchronous
async def test_those_who_wait_for_the_running_job_are_woken_when_the_queue_closes(tmp_path: Path) -> None:
    async with opened(tmp_path) as queue:
        await queue.submit(make_job())
        job = await queue.claim()
        stack = ExitStack()
        end = stack.enter_context(queue.end_waiters.expect(job.id))
    assert end.done()
    assert end.result() is None
    stack.close()
