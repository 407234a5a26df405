"""Finished pictures across jobs: pages, searches, and one picture deleted."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mflux_api.errors import JobConflict, JobNotFound, PictureNotFound
from mflux_api.jobs.database import jobs as job_rows
from mflux_api.jobs.job import Job, PictureFile, State, find_picture
from mflux_api.jobs.queue import PicturePage, PictureSearch, Retention
from mflux_api.jobs.sqlite_queue import SQLiteQueue
from tests.jobs.making import (
    BROKEN,
    REQUEST,
    asynchronous,
    completed,
    failed,
    files,
    make_job,
    make_painted,
    opened,
)

LETTERS = st.text(st.characters(codec="utf-8"), max_size=8)


async def about(queue: SQLiteQueue, prompt: str, *pictures: bytes, **changes: Any) -> Job:
    return await completed(queue, *(pictures or (b"picture",)), request=replace(REQUEST, prompt=prompt), **changes)


async def found(queue: SQLiteQueue, words: str, model: str | None = None) -> list[str]:
    page = await queue.search_pictures(PictureSearch(words=frozenset(words.split()), model=model), None, 100)
    assert page.total == sum(len(job.present) for job in page.jobs)
    return [job.id for job in page.jobs]


def ids(page: PicturePage) -> list[str]:
    return [job.id for job in page.jobs]


@asynccontextmanager
async def with_three(tmp_path: Path) -> AsyncIterator[tuple[SQLiteQueue, Job]]:
    """A completed job of three pictures."""
    async with opened(tmp_path) as queue:
        yield queue, await completed(queue, b"zero", b"one", b"two")


# Pages


@asynchronous
async def test_pages_count_pictures_and_never_cut_a_job_in_two(tmp_path: Path) -> None:
    async with opened(tmp_path) as queue:
        jobs = [await completed(queue, *[b"picture"] * count) for count in (1, 3, 2)]
        newest = [job.id for job in reversed(jobs)]
        first = await queue.search_pictures(PictureSearch(), None, 3)
        assert (ids(first), first.total) == (newest[:2], 6)
        second = await queue.search_pictures(PictureSearch(), first.following, 3)
        assert (ids(second), second.following, second.total) == (newest[2:], None, 6)
        assert ids(await queue.search_pictures(PictureSearch(), None, 2)) == newest[:1]


@asynchronous
async def test_a_page_that_holds_the_last_picture_says_that_no_other_follows(tmp_path: Path) -> None:
    async with opened(tmp_path) as queue:
        assert await queue.search_pictures(PictureSearch(), None, 1) == PicturePage([], None, 0)
        jobs = [await completed(queue, b"picture") for _ in range(2)]
        assert (await queue.search_pictures(PictureSearch(), None, 2)).following is None
        first = await queue.search_pictures(PictureSearch(), None, 1)
        assert first.following == jobs[1].number
        assert (await queue.search_pictures(PictureSearch(), first.following, 1)).following is None


@pytest.mark.slow
@given(st.lists(st.integers(0, 4), max_size=8), st.integers(1, 10))
def test_all_pages_together_hold_every_picture_once_and_in_order(counts: list[int], limit: int) -> None:
    @asynchronous
    async def turn_pages() -> None:
        with tempfile.TemporaryDirectory() as folder:
            async with opened(Path(folder)) as queue:
                jobs = [await completed(queue, *[b"picture"] * count) for count in counts]
                seen: list[str] = []
                following: int | None = None
                while True:
                    page = await queue.search_pictures(PictureSearch(), following, limit)
                    seen += ids(page)
                    assert page.total == sum(counts)
                    assert sum(len(job.present) for job in page.jobs[:-1]) < limit
                    following = page.following
                    if following is None:
                        break
                assert seen == [job.id for job in reversed(jobs) if job.pictures]

    turn_pages()


@asynchronous
async def test_pictures_kept_of_a_failed_or_cancelled_job_are_listed_and_jobs_without_any_are_not(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as queue:
        await failed(queue)
        kept = []
        for end in ("fail", "cancel"):
            await queue.submit(make_job(request=replace(REQUEST, seeds=(1, 2))))
            job = await queue.claim()
            await queue.picture(job, make_painted())
            await (queue.fail(job, BROKEN, again=False) if end == "fail" else queue.cancel(job.id))
            kept.append(job.id)
        await queue.submit(make_job())
        assert await found(queue, "") == kept[::-1]


@asynchronous
async def test_a_job_painted_again_is_listed_again_when_it_is_done(tmp_path: Path) -> None:
    async with opened(tmp_path) as queue:
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


@asynchronous
async def test_pruned_pictures_are_not_listed(tmp_path: Path) -> None:
    async with opened(tmp_path) as queue:
        await completed(queue, b"picture")
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
@asynchronous
async def test_every_word_occurs_somewhere_in_the_prompt_and_stands_for_itself(
    tmp_path: Path, words: str, is_found: bool
) -> None:
    async with opened(tmp_path) as queue:
        job = await about(queue, "A red Fox's Höhle, 100% in the SNOW_man\\ Straße,\n狐 🌅")
        assert await found(queue, words) == ([job.id] if is_found else [])


@asynchronous
async def test_a_search_counts_and_pages_only_what_it_finds(tmp_path: Path) -> None:
    async with opened(tmp_path) as queue:
        foxes = [await about(queue, f"fox {index}") for index in range(3)]
        await about(queue, "a wolf")
        first = await queue.search_pictures(PictureSearch(words=frozenset({"fox"})), None, 2)
        assert (ids(first), first.total) == ([foxes[2].id, foxes[1].id], 3)
        second = await queue.search_pictures(PictureSearch(words=frozenset({"fox"})), first.following, 2)
        assert (ids(second), second.following, second.total) == ([foxes[0].id], None, 3)


@asynchronous
async def test_a_model_is_meant_exactly(tmp_path: Path) -> None:
    async with opened(tmp_path) as queue:
        four, nine = [await about(queue, "a fox", model=model) for model in ("klein-4b", "klein-9b")]
        assert await found(queue, "fox", "klein-4b") == [four.id]
        assert await found(queue, "", "klein-9b") == [nine.id]
        for other in ("klein", "KLEIN-4B", "klein-_b", ""):
            assert await found(queue, "", other) == []


@asynchronous
async def test_a_search_of_very_many_words_is_answered(tmp_path: Path) -> None:
    async with opened(tmp_path) as queue:
        words = [f"{index:x}" for index in range(500)]
        job = await about(queue, " ".join(words))
        assert await found(queue, " ".join(words)) == [job.id]


# One picture


@asynchronous
async def test_a_deleted_picture_is_gone_and_the_others_keep_their_index(tmp_path: Path) -> None:
    async with with_three(tmp_path) as (queue, job):
        await queue.delete_picture(job.id, "1")
        left = await queue.get(job.id)
        assert list(left.present) == [0, 2]
        assert {queue.read_picture(picture.file) for picture in left.present.values()} == {b"zero", b"two"}
        assert files(tmp_path) == {job.pictures[0].file, job.pictures[2].file}
        assert find_picture(left.pictures, "2") == (2, job.pictures[2])
        assert (await queue.search_pictures(PictureSearch(), None, 10)).total == 2
    async with opened(tmp_path) as queue:
        assert await queue.get(job.id) == left


@asynchronous
async def test_a_picture_is_deleted_once_and_only_where_there_is_one(tmp_path: Path) -> None:
    async with with_three(tmp_path) as (queue, job):
        await queue.delete_picture(job.id, "1")
        for name in ("1", "3", "-1", "01", "one", "", "9" * 30):
            with pytest.raises(PictureNotFound):
                await queue.delete_picture(job.id, name)
        with pytest.raises(JobNotFound):
            await queue.delete_picture("nothing", "0")
        assert list((await queue.get(job.id)).present) == [0, 2]


@asynchronous
async def test_a_job_whose_pictures_are_all_deleted_is_not_listed_and_stays(tmp_path: Path) -> None:
    async with with_three(tmp_path) as (queue, job):
        for index in range(3):
            await queue.delete_picture(job.id, str(index))
        assert await queue.search_pictures(PictureSearch(), None, 10) == PicturePage([], None, 0)
        left = await queue.get(job.id)
        assert (left.state, left.present, files(tmp_path)) == (State.COMPLETED, {}, set())


@asynchronous
async def test_pictures_of_a_job_that_is_being_painted_cannot_be_deleted(tmp_path: Path) -> None:
    async with opened(tmp_path) as queue:
        await queue.submit(make_job())
        job = await queue.claim()
        await queue.picture(job, make_painted())
        with pytest.raises(JobConflict):
            await queue.delete_picture(job.id, "0")
        await queue.finish(job)
        assert queue.read_picture((await queue.get(job.id)).pictures[0].file) == b"picture"


@asynchronous
async def test_a_picture_whose_file_is_gone_already_can_be_deleted(tmp_path: Path) -> None:
    async with with_three(tmp_path) as (queue, job):
        (tmp_path / job.pictures[0].file).unlink()
        await queue.delete_picture(job.id, "0")
        assert list((await queue.get(job.id)).present) == [1, 2]


@asynchronous
async def test_a_deleted_picture_takes_no_bytes_of_those_that_may_be_kept(tmp_path: Path) -> None:
    async with opened(tmp_path) as queue:
        jobs = [await completed(queue, b"x" * 100, b"x" * 100) for _ in range(2)]
        await queue.delete_picture(jobs[1].id, "0")
        assert await queue.prune(Retention(days=0, bytes=300)) == 0
        assert await queue.prune(Retention(days=0, bytes=299)) == 1
        assert await queue.store.run(job_rows.ids) == {jobs[1].id}
        assert await queue.prune(Retention(days=0, bytes=1)) == 1
        assert files(tmp_path) == set()


@given(LETTERS)
def test_no_name_but_the_index_itself_picks_a_picture(name: str) -> None:
    picture = PictureFile(file="f", text="", seed=1, width=64, height=64, guidance=1.0, timings={}, size=1)
    if name == "0":
        assert find_picture((picture,), name) == (0, picture)
    else:
        with pytest.raises(PictureNotFound):
            find_picture((picture,), name)
