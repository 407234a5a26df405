"""What every dialect gets to read requests and to stream replies."""

from dataclasses import dataclass

from starlette.requests import Request

from mflux_api.web.auth import Keys
from mflux_api.web.body import BodyReader
from mflux_api.web.pictures import PictureReader
from mflux_api.web.sse import Streamer


@dataclass(frozen=True, kw_only=True)
class Tools:
    body: BodyReader
    pictures: PictureReader
    streamer: Streamer
    keys: Keys


def owner(request: Request) -> str:
    """The name of the API key a request came with; empty where none is needed."""
    found: str = request.scope.get("state", {}).get("owner", "")
    return found
