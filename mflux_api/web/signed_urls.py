"""Signed URLs of pictures, which work without an API key until they expire."""

import functools
import hashlib
import hmac
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from starlette.requests import Request

from mflux_api.errors import LinkExpired
from mflux_api.pixels.formats import PictureFormat
from mflux_api.web.secret_file import load_secret

FILES_PREFIX = "/files"
PICTURE_PATH = re.compile(rf"{FILES_PREFIX}/(?P<job>[0-9a-f]+)/(?P<index>\d{{1,4}})\.[a-z]+")


@dataclass(frozen=True)
class SignedUrls:
    """Make and check signed URLs.

    `file` stores the signing secret, so that URLs stay valid across restarts; it is created on first use. `public`: URL
    of the server as clients see it; None to take it from each request. `seconds`: lifetime of a URL.
    """

    file: Path
    public: str | None
    seconds: float

    @functools.cached_property
    def secret(self) -> bytes:
        """The signing secret. Raises StorageFailed when it cannot be read or written."""
        return load_secret(self.file)

    def base_url(self, request: Request) -> str:
        """Return the server's URL as the client sees it, without a trailing slash."""
        return (self.public or f"{request.url.scheme}://{request.url.netloc}").rstrip("/")

    def sign_picture_url(self, base: str, job_id: str, index: int, form: PictureFormat) -> str:
        """Return the signed URL of a picture of a job."""
        return self.sign_path(base, f"{FILES_PREFIX}/{job_id}/{index}.{form}")

    def sign_path(self, base: str, path: str) -> str:
        """Return the signed URL of a path of this server."""
        expires = str(int(time.time() + self.seconds))
        return f"{base}{path}?expires={expires}&signature={self._sign(path, expires)}"

    def find_picture(self, url: str) -> tuple[str, int] | None:
        """Return the (job id, index) of a picture whose valid URL this is, whatever name the server was reached by."""
        try:
            parts = urlsplit(url)
            match = PICTURE_PATH.fullmatch(parts.path)
            if match is None:
                return None
            self.verify(parts.path, dict(parse_qsl(parts.query)))
        except (ValueError, LinkExpired):
            return None
        return match["job"], int(match["index"])

    def verify(self, path: str, query: Mapping[str, str]) -> None:
        """Check the signature and expiry of a URL. Raises LinkExpired."""
        expires, signature = query.get("expires", ""), query.get("signature", "")
        # Compared in constant time, and before `expires` is parsed.
        genuine = hmac.compare_digest(self._sign(path, expires).encode(), signature.encode())
        if not genuine or not expires.isdecimal() or int(expires) < time.time():
            raise LinkExpired("This address has expired or its signature is wrong.")

    def _sign(self, path: str, expires: str) -> str:
        return hmac.new(self.secret, f"{path}?{expires}".encode(), hashlib.sha256).hexdigest()
