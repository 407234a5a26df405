import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest

from mflux_api.errors import JobConflict, JobNotFound, PictureNotFound, StorageFailed
from mflux_api.jobs.database import jobs as job_rows
from mflux_api.jobs.job import Failure, Job, State
from mflux_api.jobs.queue import DAY, InputPictures, Retention
from mflux_api.jobs.sqlite_queue import SQLiteQueue
from tests.support.jobs import (
    BROKEN,
    complete_job,
    fail_job,
    is_waiting,
    list_files,
    make_job,
    make_painted,
    open_crashing_queue,
    open_queue,
    run_async,
)

FOREVER = Retention(days=0, bytes=0)


@asynccontextmanager
async def busy_disk(queue: SQLiteQueue) -> AsyncIterator[None]:
    """Block the database's thread during the block."""
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


async def abandon_call(queue: SQLiteQueue, call: Awaitable[object]) -> None:
    """Start a call and cancel it while the database is blocked."""
    async with busy_disk(queue):
        caller = asyncio.ensure_future(call)
        assert await is_waiting(caller)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller


def backdate(db: sqlite3.Connection, job_id: str, days: float) -> None:
    db.execute("UPDATE jobs SET finished = ? WHERE id = ?", (time.time() - days * DAY, job_id))


# A full disk


@run_async
async def test_a_full_disk_refuses_jobs_and_the_line_does_not_count_them(tmp_path: Path) -> None:
    def limit_pages(db: sqlite3.Connection, count: int) -> None:
        db.execute(f"PRAGMA max_page_count = {count}")

    async with open_queue(tmp_path, limit=1) as queue:
        await queue.store.run(limit_pages, 1)
        with pytest.raises(StorageFailed):
            await queue.submit(make_job(key="x" * 100_000))
        assert queue.count_waiting() == 0
        await queue.store.run(limit_pages, 1_000_000)
        await queue.submit(make_job())


# Concurrency


@run_async
async def test_a_picture_kept_while_its_job_is_cancelled_is_named_or_deleted(tmp_path: Path) -> None:
    async with open_queue(tmp_path) as queue:
        await queue.submit(make_job())
        job = await queue.claim()
        async with busy_disk(queue):
            cancel = asyncio.create_task(queue.cancel(job.id))
            assert await is_waiting(cancel)
            await queue.picture(job, make_painted())
        assert {picture.file for picture in (await cancel).pictures} == list_files(tmp_path)


@run_async
async def test_finishing_and_cancelling_at_once_have_one_outcome(tmp_path: Path) -> None:
    async with open_queue(tmp_path) as queue:
        for first in ("finish", "cancel"):
            await queue.submit(make_job())
            job = await queue.claim()
            calls: list[Awaitable[object]] = [queue.finish(job, make_painted()), queue.cancel(job.id)]
            results = await asyncio.gather(*(calls if first == "finish" else calls[::-1]), return_exceptions=True)
            assert [isinstance(result, JobConflict) for result in results] == [False, True]
            expected = State.COMPLETED if first == "finish" else State.CANCELLED
            ended = await queue.get(job.id)
            assert ended.state is expected
            assert {picture.file for picture in ended.pictures} == {
                file for file in list_files(tmp_path) if job.id in file
            }
            assert not queue.running_jobs()


@run_async
async def test_a_last_picture_whose_row_finds_the_disk_full_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> Job:
        assert len(list_files(tmp_path)) == 2
        raise sqlite3.OperationalError("database or disk is full")

    async with open_queue(tmp_path) as queue:
        await queue.submit(make_job())
        job = await queue.claim()
        await queue.picture(job, make_painted(0))
        with monkeypatch.context() as patched:
            patched.setattr(job_rows, "change_state", full)
            with pytest.raises(StorageFailed):
                await queue.finish(job, make_painted(1))
        assert len(list_files(tmp_path)) == 1
        await queue.finish(job, make_painted(1))
        assert {picture.file for picture in (await queue.get(job.id)).pictures} == list_files(tmp_path)


# Cancelled callers


@run_async
async def test_a_job_whose_sender_went_away_is_painted_all_the_same(tmp_path: Path) -> None:
    async with open_queue(tmp_path) as queue:
        claim = asyncio.create_task(queue.claim())
        assert await is_waiting(claim)
        new = make_job()
        await abandon_call(queue, queue.submit(new))
        assert (await claim).id == new.id


VERBS: dict[str, Callable[[SQLiteQueue, Job], Awaitable[object]]] = {
    "finish": lambda queue, job: queue.finish(job),
    "fail": lambda queue, job: queue.fail(job, BROKEN, again=False),
    "release": lambda queue, job: queue.release(job),
    "cancel": lambda queue, job: queue.cancel(job.id),
}


@pytest.mark.parametrize("verb", VERBS)
@run_async
async def test_a_verb_whose_caller_went_away_is_done_to_its_end(tmp_path: Path, verb: str) -> None:
    async with open_queue(tmp_path) as queue:
        await queue.submit(make_job())
        job = await queue.claim()
        await abandon_call(queue, VERBS[verb](queue, job))
        await queue.wait_idle()
        await queue.wait_cancelled(job)
        assert (await queue.get(job.id)).state is not State.GENERATING


@run_async
async def test_a_verdict_on_its_way_does_not_keep_the_queue_from_closing(tmp_path: Path) -> None:
    async with open_queue(tmp_path) as queue:
        await queue.submit(make_job())
        job = await queue.claim()
        await abandon_call(queue, queue.finish(job))
    async with open_queue(tmp_path) as queue:
        assert (await queue.get(job.id)).state is State.COMPLETED


# Restart


@run_async
async def test_waiting_jobs_survive_a_crash_in_their_order(tmp_path: Path) -> None:
    async with open_crashing_queue(tmp_path) as queue:
        jobs = [await queue.submit(make_job(priority=priority)) for priority in (0, 1, 0)]
    async with open_queue(tmp_path) as queue:
        assert [(await queue.claim()).id for _ in jobs] == [jobs[index].id for index in (1, 0, 2)]


@run_async
async def test_the_job_that_was_running_at_a_crash_runs_again_and_the_try_counts(tmp_path: Path) -> None:
    async with open_crashing_queue(tmp_path) as queue:
        first, _ = [await queue.submit(make_job()) for _ in range(2)]
        await queue.claim()
    async with open_queue(tmp_path) as queue:
        assert (await queue.get(first.id)).state is State.INTERRUPTED
        assert queue.position(first.id) == 1
        again = await queue.claim()
        assert (again.id, again.attempts) == (first.id, 2)
        await queue.finish(again)
        assert (await queue.get(first.id)).state is State.COMPLETED


@pytest.mark.parametrize("tries", [1, 3])
@run_async
async def test_a_job_that_crashes_the_server_too_often_fails(tmp_path: Path, tries: int) -> None:
    async with open_queue(tmp_path) as queue:
        job = await queue.submit(make_job())
    for _ in range(tries):
        async with open_crashing_queue(tmp_path, tries=tries) as queue:
            assert (await queue.claim()).id == job.id
            await queue.picture(await queue.get(job.id), make_painted())
    async with open_queue(tmp_path, tries=tries) as queue:
        found = await queue.get(job.id)
        assert found.state is State.FAILED
        assert found.error == Failure("INTERRUPTED", 500, f"The server stopped {tries} times in it.")
        assert queue.position(job.id) is None
        assert list_files(tmp_path) == set()


@run_async
async def test_an_orderly_stop_does_not_count_as_a_try(tmp_path: Path) -> None:
    for _ in range(3):
        async with open_queue(tmp_path, tries=1) as queue:
            if not queue.count_waiting():
                await queue.submit(make_job())
            assert (await queue.claim()).attempts == 1


@run_async
async def test_what_an_interrupted_run_left_is_deleted_and_nothing_else(tmp_path: Path) -> None:
    async with open_crashing_queue(tmp_path) as queue:
        done = await complete_job(queue, b"finished")
        await queue.submit(make_job())
        job = await queue.claim()
        await queue.picture(job, make_painted(0, b"left"))
    kept = done.pictures[0].file
    day = (tmp_path / kept).parent
    (day / f"{job.id}-1.png.partial").write_bytes(b"half")
    own = {str(day.relative_to(tmp_path) / name) for name in ("holiday.png", "0123456789ab-0.png", f"{job.id}.txt")}
    for name in own:
        (tmp_path / name).write_bytes(b"a person's own")
    async with open_queue(tmp_path) as queue:
        assert list_files(tmp_path) == {kept, *own}
        assert queue.read_picture((await queue.get(done.id)).pictures[0].file) == b"finished"


@run_async
async def test_finished_jobs_are_as_they_were_after_a_crash(tmp_path: Path) -> None:
    async with open_crashing_queue(tmp_path) as queue:
        jobs = [await complete_job(queue, b"picture"), await fail_job(queue)]
        jobs.append(await queue.cancel((await queue.submit(make_job())).id))
    async with open_queue(tmp_path) as queue:
        assert [await queue.get(job.id) for job in jobs] == jobs


@run_async
async def test_the_files_of_a_broken_try_are_deleted(tmp_path: Path) -> None:
    async with open_queue(tmp_path) as queue:
        await queue.submit(make_job())
        job = await queue.claim()
        await queue.picture(job, make_painted())
        await queue.fail(job, BROKEN, again=False)
        await queue.retry(job.id, held=False)
        assert list_files(tmp_path) == set()


@run_async
async def test_who_waits_for_a_job_hears_that_its_last_worker_was_lost(tmp_path: Path) -> None:
    async with open_queue(tmp_path, tries=1) as queue:
        queue.running.lease = 0.0
        await queue.submit(make_job())
        job = await queue.claim()
        waiter = asyncio.create_task(queue.wait_ended(job))
        assert await is_waiting(waiter)
        claim = asyncio.create_task(queue.claim())
        assert (await waiter).is_final
        claim.cancel()


@run_async
async def test_streams_hear_that_the_server_stops(tmp_path: Path) -> None:
    async with open_queue(tmp_path) as queue:
        job = await queue.submit(make_job())
        with queue.job_events.events.listen(job.id) as box:
            queue.drain()
            assert [event.name async for event in box] == ["closing"]


@run_async
async def test_a_job_interrupted_by_a_crash_is_shown_as_queued(tmp_path: Path) -> None:
    async with open_crashing_queue(tmp_path) as queue:
        interrupted = await queue.submit(make_job())
        await queue.claim()
    async with open_queue(tmp_path) as queue:
        assert [job.id for job in (await queue.list_jobs("queued", None, 10)).jobs] == [interrupted.id]


# Pruning


@run_async
async def test_old_jobs_are_deleted_with_their_files(tmp_path: Path) -> None:
    async with open_queue(tmp_path) as queue:
        old, young = [await complete_job(queue, b"picture") for _ in range(2)]
        await queue.save_inputs(old.id, InputPictures(source=b"source"))
        await queue.store.run(backdate, old.id, 2.0)
        assert await queue.prune(Retention(days=3, bytes=0)) == 0
        assert await queue.prune(Retention(days=1, bytes=0)) == 1
        with pytest.raises(JobNotFound):
            await queue.get(old.id)
        assert list_files(tmp_path) == {young.pictures[0].file}


@run_async
async def test_the_oldest_jobs_go_when_there_are_too_many_bytes(tmp_path: Path) -> None:
    async with open_queue(tmp_path) as queue:
        jobs = [await complete_job(queue, b"x" * 100) for _ in range(4)]
        for age, job in zip((4, 3, 2, 1), jobs, strict=True):
            await queue.store.run(backdate, job.id, age / DAY)
        assert await queue.prune(Retention(days=0, bytes=400)) == 0
        assert await queue.prune(Retention(days=0, bytes=399)) == 1
        assert await queue.prune(Retention(days=0, bytes=250)) == 1
        page = await queue.list_jobs(None, None, 10)
        assert ([job.id for job in page.jobs], page.total) == ([jobs[3].id, jobs[2].id], 2)
        assert list_files(tmp_path) == {job.pictures[0].file for job in jobs[2:]}


@run_async
async def test_what_jobs_started_from_counts_as_their_pictures_do_and_goes_with_them(tmp_path: Path) -> None:
    async with open_queue(tmp_path) as queue:
        jobs = []
        for _ in range(2):
            new = make_job()
            pictures = InputPictures(source=b"x" * 50, references=(b"x" * 25,) * 2)
            inputs = await queue.save_inputs(new.id, pictures)
            jobs.append(await complete_job(queue, b"x" * 100, id=new.id, inputs=inputs))
        assert await queue.prune(Retention(days=0, bytes=400)) == 0
        await queue.delete_picture(jobs[1].id, "0")
        assert await queue.prune(Retention(days=0, bytes=300)) == 0
        assert await queue.prune(Retention(days=0, bytes=299)) == 1
        assert list_files(tmp_path) == set(jobs[1].inputs.files)
        assert await queue.prune(Retention(days=0, bytes=99)) == 1
        assert list_files(tmp_path) == set()


@run_async
async def test_nothing_is_deleted_without_a_limit_or_before_it_is_over(tmp_path: Path) -> None:
    async with open_queue(tmp_path) as queue:
        old = await complete_job(queue, b"picture")
        await queue.store.run(backdate, old.id, 10_000.0)
        assert await queue.prune(FOREVER) == 0
        await queue.submit(make_job(created=0.0))
        await queue.submit(make_job(created=0.0))
        running = await queue.claim()
        await queue.picture(running, make_painted())
        assert await queue.prune(Retention(days=1, bytes=1)) == 1
        assert (await queue.list_jobs(None, None, 10)).total == 2
        await queue.finish(running)


@run_async
async def test_a_picture_somebody_deleted_is_missing_and_its_job_can_still_be_pruned(tmp_path: Path) -> None:
    async with open_queue(tmp_path) as queue:
        job = await complete_job(queue, b"picture")
        (tmp_path / job.pictures[0].file).unlink()
        with pytest.raises(PictureNotFound):
            queue.read_picture(job.pictures[0].file)
        assert await queue.prune(Retention(days=0, bytes=1)) == 1


@run_async
async def test_those_who_wait_for_the_running_job_are_woken_when_the_queue_closes(tmp_path: Path) -> None:
    async with open_queue(tmp_path) as queue:
        await queue.submit(make_job())
        job = await queue.claim()
        stack = ExitStack()
        end = stack.enter_context(queue.end_waiters.expect(job.id))
    assert end.done()
    assert end.result() is None
    stack.close()
