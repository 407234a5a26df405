"""URLs of a job's pictures, on this server or in a bucket."""

import asyncio

from mflux_api.errors import PictureNotFound
from mflux_api.jobs.job import Job
from mflux_api.jobs.service import JobService
from mflux_api.net.s3 import Bucket, BucketFailed
from mflux_api.pixels.formats import PictureFormat, convert_png
from mflux_api.web.context import HttpContext


async def get_picture_urls(
    service: JobService, context: HttpContext, job: Job, base: str, form: PictureFormat
) -> list[str]:
    """Return a temporary URL for each picture that a completed job still has. `base`: the URL of this server.

    Raises BucketFailed if the storage refuses an upload, and PictureNotFound if all pictures are deleted.
    """
    if context.bucket is None:
        found = [context.signed_urls.sign_picture_url(base, job.id, index, form) for index in job.present]
    else:
        found = await _get_bucket_urls(service, context.bucket, job, form)
    if not found:
        raise PictureNotFound("The pictures of this job were deleted.", job_id=job.id)
    return found


async def _get_bucket_urls(service: JobService, bucket: Bucket, job: Job, form: PictureFormat) -> list[str]:
    """Return the URLs of the pictures that are in the bucket or can be uploaded. Raises BucketFailed."""
    try:
        found = await asyncio.gather(*(_upload(service, bucket, job, index, form) for index in job.kept_pictures))
    except BucketFailed as error:
        # The reply of the storage is in the log. Clients do not see it.
        message = f"Job {job.id} is painted and kept, but the storage did not take its pictures. Ask again later."
        raise BucketFailed(message, job_id=job.id) from error
    return [address for address in found if address is not None]


async def _upload(service: JobService, bucket: Bucket, job: Job, index: int, form: PictureFormat) -> str | None:
    """Return a picture's URL; None if it is neither in the bucket nor here."""
    file = job.pictures[index].file

    async def encode() -> bytes:
        return await asyncio.to_thread(lambda: convert_png(service.queue.read_picture(file), form))

    try:
        return await bucket.get_url(f"{file.removesuffix('.png')}.{form}", encode, f"image/{form}")
    except PictureNotFound:
        return None
