"""Pages and files of finished pictures, for random series of jobs."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mflux_api.errors import PictureNotFound
from mflux_api.jobs.database import jobs as job_rows
from mflux_api.jobs.job import Job, PictureFile, find_picture
from mflux_api.jobs.queue import PicturePage, PictureSearch, Retention
from mflux_api.jobs.sqlite_queue import SQLiteQueue
from tests.support.jobs import (
    complete_job,
    list_files,
    open_queue,
    run_async,
)

LETTERS = st.text(st.characters(codec="utf-8"), max_size=8)


def ids(page: PicturePage) -> list[str]:
    return [job.id for job in page.jobs]


@asynccontextmanager
async def open_queue_with_three(tmp_path: Path) -> AsyncIterator[tuple[SQLiteQueue, Job]]:
    """Open a queue with one completed job of three pictures."""
    async with open_queue(tmp_path) as queue:
        yield queue, await complete_job(queue, b"zero", b"one", b"two")


# Pages


@given(st.lists(st.integers(0, 4), max_size=8), st.integers(1, 10))
def test_all_pages_together_hold_every_picture_once_and_in_order(counts: list[int], limit: int) -> None:
    @run_async
    async def turn_pages() -> None:
        with tempfile.TemporaryDirectory() as folder:
            async with open_queue(Path(folder)) as queue:
                jobs = [await complete_job(queue, *[b"picture"] * count) for count in counts]
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


# One picture


@run_async
async def test_a_picture_whose_file_is_gone_already_can_be_deleted(tmp_path: Path) -> None:
    async with open_queue_with_three(tmp_path) as (queue, job):
        (tmp_path / job.pictures[0].file).unlink()
        await queue.delete_picture(job.id, "0")
        assert list((await queue.get(job.id)).present) == [1, 2]


@run_async
async def test_a_deleted_picture_takes_no_bytes_of_those_that_may_be_kept(tmp_path: Path) -> None:
    async with open_queue(tmp_path) as queue:
        jobs = [await complete_job(queue, b"x" * 100, b"x" * 100) for _ in range(2)]
        await queue.delete_picture(jobs[1].id, "0")
        assert await queue.prune(Retention(days=0, bytes=300)) == 0
        assert await queue.prune(Retention(days=0, bytes=299)) == 1
        assert await queue.store.run(job_rows.ids) == {jobs[1].id}
        assert await queue.prune(Retention(days=0, bytes=1)) == 1
        assert list_files(tmp_path) == set()


@given(LETTERS)
def test_no_name_but_the_index_itself_picks_a_picture(name: str) -> None:
    picture = PictureFile(file="f", text="", seed=1, width=64, height=64, guidance=1.0, timings={}, size=1)
    if name == "0":
        assert find_picture((picture,), name) == (0, picture)
    else:
        with pytest.raises(PictureNotFound):
            find_picture((picture,), name)
