"""The contract that every implementation of `ClientQueue` keeps about pictures, totals and webhooks.

Subclass it like `ClientQueueContract`.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from mflux_api.errors import JobConflict, JobNotFound, PictureNotFound
from mflux_api.jobs.job import Job, State, find_picture
from mflux_api.jobs.queue import InputPictures, JobQueue, PicturePage, PictureSearch, Retention, Totals
from tests.support.jobs import (
    BROKEN,
    REQUEST,
    complete_job,
    fail_job,
    is_waiting,
    make_job,
    make_painted,
    run_async,
)
from tests.unit.jobs.client_contract import Opening


async def about(queue: JobQueue, prompt: str, *pictures: bytes, **changes: Any) -> Job:
    return await complete_job(queue, *(pictures or (b"picture",)), request=replace(REQUEST, prompt=prompt), **changes)


async def found(queue: JobQueue, words: str, model: str | None = None) -> list[str]:
    page = await queue.search_pictures(PictureSearch(words=frozenset(words.split()), model=model), None, 100)
    assert page.total == sum(len(job.present) for job in page.jobs)
    return [job.id for job in page.jobs]


def ids(page: PicturePage) -> list[str]:
    return [job.id for job in page.jobs]


@asynccontextmanager
async def with_three(opening: Opening) -> AsyncIterator[tuple[JobQueue, Job]]:
    """Open a queue with one completed job of three pictures."""
    async with opening() as queue:
        yield queue, await complete_job(queue, b"zero", b"one", b"two")


class PictureContract:
    @pytest.fixture
    def opening(self) -> Opening:
        raise NotImplementedError

    # Pages

    @run_async
    async def test_pages_count_pictures_and_never_cut_a_job_in_two(self, opening: Opening) -> None:
        async with opening() as queue:
            jobs = [await complete_job(queue, *[b"picture"] * count) for count in (1, 3, 2)]
            newest = [job.id for job in reversed(jobs)]
            first = await queue.search_pictures(PictureSearch(), None, 3)
            assert (ids(first), first.total) == (newest[:2], 6)
            second = await queue.search_pictures(PictureSearch(), first.following, 3)
            assert (ids(second), second.following, second.total) == (newest[2:], None, 6)
            assert ids(await queue.search_pictures(PictureSearch(), None, 2)) == newest[:1]

    @run_async
    async def test_a_page_that_holds_the_last_picture_says_that_no_other_follows(self, opening: Opening) -> None:
        async with opening() as queue:
            assert await queue.search_pictures(PictureSearch(), None, 1) == PicturePage([], None, 0)
            jobs = [await complete_job(queue, b"picture") for _ in range(2)]
            assert (await queue.search_pictures(PictureSearch(), None, 2)).following is None
            first = await queue.search_pictures(PictureSearch(), None, 1)
            assert first.following == jobs[1].number
            assert (await queue.search_pictures(PictureSearch(), first.following, 1)).following is None

    @run_async
    async def test_pictures_kept_of_a_failed_or_cancelled_job_are_listed_and_jobs_without_any_are_not(
        self,
        opening: Opening,
    ) -> None:
        async with opening() as queue:
            await fail_job(queue)
            kept = []
            for end in ("fail", "cancel"):
                await queue.submit(make_job(request=replace(REQUEST, seeds=(1, 2))))
                job = await queue.claim()
                await queue.picture(job, make_painted())
                await (queue.fail(job, BROKEN, again=False) if end == "fail" else queue.cancel(job.id))
                kept.append(job.id)
            await queue.submit(make_job())
            assert await found(queue, "") == kept[::-1]

    @run_async
    async def test_a_job_painted_again_is_listed_again_when_it_is_done(self, opening: Opening) -> None:
        async with opening() as queue:
            await queue.submit(make_job())
            job = await queue.claim()
            await queue.picture(job, make_painted())
            await queue.cancel(job.id)
            await queue.retry(job.id, held=False)
            assert await found(queue, "") == []
            again = await queue.claim()
            await queue.picture(again, make_painted())
            await queue.finish(again)
            assert await found(queue, "") == [job.id]

    @run_async
    async def test_pruned_pictures_are_not_listed(self, opening: Opening) -> None:
        async with opening() as queue:
            await complete_job(queue, b"picture")
            await queue.prune(Retention(days=0, bytes=1))
            assert await queue.search_pictures(PictureSearch(), None, 10) == PicturePage([], None, 0)

    # Searches

    @pytest.mark.parametrize(
        ("words", "is_found"),
        [
            *(("fox", True), ("FOX snow", True), ("snow red fox", True), ("ox", True), ("", True), ("  \t", True)),
            *(("wolf", False), ("fox wolf", False), ("redfox", False)),
            *(("höhle", True), ("HÖHLE", True), ("STRASSE", True), ("straße", True), ("狐", True), ("🌅", True)),
            *(("100%", True), ("%", True), ("1%0", False), ("snow_man", True), ("snowxman", False), ("_", True)),
            *(("'", True), ('"', False), ("\\", True), ("*", False), ("?", False), ("[a-z]", False)),
        ],
    )
    @run_async
    async def test_every_word_occurs_somewhere_in_the_prompt_and_stands_for_itself(
        self, opening: Opening, words: str, is_found: bool
    ) -> None:
        async with opening() as queue:
            job = await about(queue, "A red Fox's Höhle, 100% in the SNOW_man\\ Straße,\n狐 🌅")
            assert await found(queue, words) == ([job.id] if is_found else [])

    @run_async
    async def test_a_search_counts_and_pages_only_what_it_finds(self, opening: Opening) -> None:
        async with opening() as queue:
            foxes = [await about(queue, f"fox {index}") for index in range(3)]
            await about(queue, "a wolf")
            first = await queue.search_pictures(PictureSearch(words=frozenset({"fox"})), None, 2)
            assert (ids(first), first.total) == ([foxes[2].id, foxes[1].id], 3)
            second = await queue.search_pictures(PictureSearch(words=frozenset({"fox"})), first.following, 2)
            assert (ids(second), second.following, second.total) == ([foxes[0].id], None, 3)

    @run_async
    async def test_a_model_is_meant_exactly(self, opening: Opening) -> None:
        async with opening() as queue:
            four, nine = [await about(queue, "a fox", model=model) for model in ("klein-4b", "klein-9b")]
            assert await found(queue, "fox", "klein-4b") == [four.id]
            assert await found(queue, "", "klein-9b") == [nine.id]
            for other in ("klein", "KLEIN-4B", "klein-_b", ""):
                assert await found(queue, "", other) == []

    @run_async
    async def test_a_search_of_very_many_words_is_answered(self, opening: Opening) -> None:
        async with opening() as queue:
            words = [f"{index:x}" for index in range(500)]
            job = await about(queue, " ".join(words))
            assert await found(queue, " ".join(words)) == [job.id]

    # One picture

    @run_async
    async def test_a_picture_is_deleted_once_and_only_where_there_is_one(self, opening: Opening) -> None:
        async with with_three(opening) as (queue, job):
            await queue.delete_picture(job.id, "1")
            for name in ("1", "3", "-1", "01", "one", "", "9" * 30):
                with pytest.raises(PictureNotFound):
                    await queue.delete_picture(job.id, name)
            with pytest.raises(JobNotFound):
                await queue.delete_picture("nothing", "0")
            assert list((await queue.get(job.id)).present) == [0, 2]

    @run_async
    async def test_pictures_of_a_job_that_is_being_painted_cannot_be_deleted(self, opening: Opening) -> None:
        async with opening() as queue:
            await queue.submit(make_job())
            job = await queue.claim()
            await queue.picture(job, make_painted())
            with pytest.raises(JobConflict):
                await queue.delete_picture(job.id, "0")
            await queue.finish(job)
            assert queue.read_picture((await queue.get(job.id)).pictures[0].file) == b"picture"

    @run_async
    async def test_a_deleted_picture_is_gone_and_the_others_keep_their_index(self, opening: Opening) -> None:
        async with with_three(opening) as (queue, job):
            await queue.delete_picture(job.id, "1")
            left = await queue.get(job.id)
            assert list(left.present) == [0, 2]
            assert {queue.read_picture(picture.file) for picture in left.present.values()} == {b"zero", b"two"}
            with pytest.raises(PictureNotFound):
                queue.read_picture(job.pictures[1].file)
            assert find_picture(left.pictures, "2") == (2, job.pictures[2])
            assert (await queue.search_pictures(PictureSearch(), None, 10)).total == 2
        async with opening() as queue:
            assert await queue.get(job.id) == left

    @run_async
    async def test_a_job_whose_pictures_are_all_deleted_is_not_listed_and_stays(self, opening: Opening) -> None:
        async with with_three(opening) as (queue, job):
            for index in range(3):
                await queue.delete_picture(job.id, str(index))
            assert await queue.search_pictures(PictureSearch(), None, 10) == PicturePage([], None, 0)
            left = await queue.get(job.id)
            assert (left.state, left.present) == (State.COMPLETED, {})

    # Inputs

    @run_async
    async def test_inputs_are_read_as_they_were_sent_until_they_are_deleted(self, opening: Opening) -> None:
        async with opening() as queue:
            new = make_job()
            pictures = InputPictures(source=b"source", mask=b"mask", references=(b"one", b"two"))
            inputs = await queue.save_inputs(new.id, pictures)
            assert [queue.read_picture(file) for file in inputs.files] == [b"source", b"mask", b"one", b"two"]
            assert inputs.size == len(b"sourcemaskonetwo")
            await queue.delete_inputs(new.id)
            with pytest.raises(PictureNotFound):
                queue.read_picture(inputs.files[0])

    # Statistics

    @run_async
    async def test_sums_survive_a_restart_and_pruning(self, opening: Opening) -> None:
        async with opening() as queue:
            assert await queue.totals() == Totals()
            jobs = [await complete_job(queue, b"one", b"two"), await complete_job(queue, b"three")]
            await fail_job(queue)
            await queue.delete_picture(jobs[0].id, "0")
            assert await queue.prune(Retention(days=0, bytes=1)) == 2
        async with opening() as queue:
            totals, days = await queue.totals(), await queue.history("day", 2)
        assert replace(totals, seconds=0.0) == Totals(generations=2, images=3, failures=1)
        assert totals.seconds == pytest.approx(sum(job.seconds or 0.0 for job in jobs))
        assert (sum(day.pictures for day in days), sum(day.failures for day in days)) == (3, 1)

    # Values

    @run_async
    async def test_a_value_is_there_until_another_is_saved(self, opening: Opening) -> None:
        async with opening() as queue:
            assert await queue.load_value("options") is None
            for value in ("first", "second", "日本語 🌅"):
                await queue.save_value("options", value)
            await queue.save_value("styles", "")
        async with opening() as queue:
            assert await queue.load_value("options") == "日本語 🌅"
            assert await queue.load_value("styles") == ""

    # Webhooks

    @run_async
    async def test_a_webhook_is_due_when_its_event_has_happened_until_it_was_delivered(self, opening: Opening) -> None:
        async with opening() as queue:
            note = {"webhook": "https://a.test/", "events": "start,completed"}
            await queue.submit(make_job(request=replace(REQUEST, note=note)))
            assert await queue.due_deliveries(sending=[], busy_hosts=[], limit=10) == []
            waiting = asyncio.create_task(queue.wait_for_deliveries(60))
            assert await is_waiting(waiting)
            job = await queue.claim()
            await waiting
            (start,) = await queue.due_deliveries(sending=[], busy_hosts=[], limit=10)
            assert (start.job.id, start.event, start.attempts) == (job.id, "start", 0)
            await queue.record_attempt(start.number, state="delivered", next_try=0.0, status=200, error="")
            await queue.finish(job)
            (end,) = await queue.due_deliveries(sending=[], busy_hosts=[], limit=10)
            assert end.event == "completed"
            later = time.time() + 60
            await queue.record_attempt(end.number, state="waiting", next_try=later, status=503, error="busy")
            assert await queue.due_deliveries(sending=[], busy_hosts=[], limit=10) == []
            page = await queue.list_deliveries("waiting", None, 10)
            assert ([(each.number, each.error) for each in page.deliveries], page.total) == ([(end.number, "busy")], 1)
            assert (await queue.list_deliveries(None, end.number, 10)).deliveries[0].state == "delivered"
