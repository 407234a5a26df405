"""Pages of the pictures whose files are here. The database knows nothing of files that were deleted by hand."""

import asyncio
from collections.abc import Awaitable, Callable

from mflux_api.jobs.picture_files import PictureFiles
from mflux_api.jobs.queue import PicturePage


async def read_present_page(
    read_page: Callable[[int | None], Awaitable[PicturePage]], files: PictureFiles, before: int | None
) -> PicturePage:
    """Return the first page from `before` on that has pictures. `total` counts missing ones of later pages."""
    gone = 0
    while True:
        page = await read_page(before)
        jobs = await asyncio.to_thread(files.mark_missing_in, page.jobs)
        gone += sum(len(job.undeleted) - len(job.present) for job in jobs)
        left = [job for job in jobs if job.present]
        if left or page.following is None:
            return PicturePage(left, page.following, page.total - gone)
        before = page.following
