"""Input pictures of a request."""

from mflux_api.request import Upload
from mflux_api.web.context import HttpContext
from mflux_api.web.pictures import is_url


async def picture_or_url(context: HttpContext, text: str, *, field: str) -> Upload:
    """Read a picture that was sent in base64 or as a URL.

    Raises InvalidImage, FetchFailed, AddressForbidden.
    """
    return await context.fetch_picture(text, field) if is_url(text) else await context.pictures.read_base64(text, field)
