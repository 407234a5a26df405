"""Jobs and pages with the pictures that are here. The database knows nothing of files that were deleted by hand."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

from mflux_api.jobs.job import Job
from mflux_api.jobs.picture_files import PictureFiles
from mflux_api.jobs.queue import JobPage, PicturePage


async def mark_missing(files: PictureFiles, job: Job) -> Job:
    """Return the job with missing pictures marked."""
    return await asyncio.to_thread(files.mark_missing, job) if job.present else job


async def mark_missing_in(files: PictureFiles, page: JobPage) -> JobPage:
    """Return the page with missing pictures marked."""
    return replace(page, jobs=await asyncio.to_thread(files.mark_missing_in, page.jobs))


async def read_page(
    files: PictureFiles, before: int | None, read: Callable[[int | None], Awaitable[PicturePage]]
) -> PicturePage:
    """Return the first page from `before` on that has pictures. `total` counts missing ones of later pages."""
    gone = 0
    while True:
        page = await read(before)
        jobs = await asyncio.to_thread(files.mark_missing_in, page.jobs)
        gone += sum(len(job.kept_pictures) - len(job.present) for job in jobs)
        left = [job for job in jobs if job.present]
        if left or page.following is None:
            return PicturePage(left, page.following, page.total - gone)
        before = page.following
