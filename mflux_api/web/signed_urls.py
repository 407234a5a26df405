"""Addresses of pictures that work without a key, for a while: signed, so that nobody can make one up."""

import functools
import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request

from mflux_api.errors import LinkExpired, StorageFailed
from mflux_api.pixels.formats import Format

PREFIX = "/files"
SECRET_BYTES = 32
NEW, OWNER_ONLY = os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600


@dataclass(frozen=True)
class Links:
    """`file` holds the secret, made when it is first needed: links outlive the server. `public`: the server's address
    as clients see it; None for the one each of them used. `seconds`: how long a link is good."""

    file: Path
    public: str | None
    seconds: float

    @functools.cached_property
    def secret(self) -> bytes:
        """Raises StorageFailed."""
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError), os.fdopen(os.open(self.file, NEW, OWNER_ONLY), "wb") as stream:
                stream.write(secrets.token_bytes(SECRET_BYTES))
            return self.file.read_bytes()
        except OSError as error:
            raise StorageFailed("The secret of the links cannot be kept: is the disk full?") from error

    def base(self, request: Request) -> str:
        """Where this server is, as the client sees it, without a slash at the end."""
        return (self.public or f"{request.url.scheme}://{request.url.netloc}").rstrip("/")

    def at(self, base: str, job_id: str, index: int, form: Format) -> str:
        """The address of a picture of a job."""
        path = f"{PREFIX}/{job_id}/{index}.{form}"
        expires = str(int(time.time() + self.seconds))
        return f"{base}{path}?expires={expires}&signature={self._sign(path, expires)}"

    def check(self, path: str, query: Mapping[str, str]) -> None:
        """Raises LinkExpired for a link that is too old or that this server has not made."""
        expires, signature = query.get("expires", ""), query.get("signature", "")
        # Compared in constant time, and before anything is made of the rest.
        genuine = hmac.compare_digest(self._sign(path, expires).encode(), signature.encode())
        if not genuine or not expires.isdecimal() or int(expires) < time.time():
            raise LinkExpired("This address has expired, or was changed.")

    def _sign(self, path: str, expires: str) -> str:
        return hmac.new(self.secret, f"{path}?{expires}".encode(), hashlib.sha256).hexdigest()
