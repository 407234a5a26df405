"""Services that all dialects use to read requests and to send replies."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import Request

from mflux_api.net.fetching import Fetcher
from mflux_api.net.s3 import Bucket
from mflux_api.request import Upload
from mflux_api.web.auth import ApiKeys
from mflux_api.web.body import BodyReader
from mflux_api.web.pictures import PictureReader
from mflux_api.web.signed_urls import SignedUrls
from mflux_api.web.sse import EventStreamer
from mflux_api.web.uploaded_files import UploadedFiles


@dataclass(frozen=True, kw_only=True)
class HttpContext:
    """The shared services. `bucket`: the storage of pictures; None: this server serves them at `signed_urls`.

    `read_painted`: returns the PNG of a job's picture.
    """

    body: BodyReader
    pictures: PictureReader
    streamer: EventStreamer
    keys: ApiKeys
    signed_urls: SignedUrls
    fetcher: Fetcher
    uploads: UploadedFiles
    read_painted: Callable[[str, int], Awaitable[bytes]]
    bucket: Bucket | None = None

    async def fetch_picture(self, url: str, field: str) -> Upload:
        """Fetch a picture from a URL. Pictures and uploads of this server are read without asking for them.

        Raises InvalidImage, FetchFailed, AddressForbidden, JobNotFound, PictureNotFound.
        """
        return await asyncio.to_thread(self.pictures.read_bytes, await self._fetch_bytes(url), field)

    async def _fetch_bytes(self, url: str) -> bytes:
        uploaded = await asyncio.to_thread(self.uploads.find_by_url, url)
        if uploaded is not None:
            return await asyncio.to_thread(self.uploads.read, uploaded)
        painted = self.signed_urls.find_picture(url)
        return await (self.fetcher.get(url, self.body.limit) if painted is None else self.read_painted(*painted))


def get_owner(request: Request) -> str:
    """Return the name of the request's API key; empty when no key is required."""
    found: str = request.scope.get("state", {}).get("owner", "")
    return found
