"""A bucket of an S3-compatible store: a picture goes in when it is first asked for, and is at a signed address then."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from mflux_api.errors import InvalidSetting, MfluxError
from mflux_api.logs import event, warning

if TYPE_CHECKING:
    from obstore.store import S3Store

T = TypeVar("T")

# Written at every start, to know that it can be; it stays, so that no right to delete is needed.
PROBE = ".mflux-api"
CHECK_SECONDS = 20.0
CONNECT_SECONDS = 5.0
RETRIES = 6
FIRST_WAIT, LONGEST_WAIT = timedelta(seconds=0.2), timedelta(seconds=5)
AT_ONCE = 8
LONGEST_REASON = 300
WITHOUT_KEYS = " No storage.access_key is set: keys come from AWS_ACCESS_KEY_ID, or are asked of the machine's cloud."
CODE, MESSAGE = re.compile(r"<Code>([\w.-]+)</Code>"), re.compile(r"<Message>([^<]*)</Message>")
# What the store itself refused; 408 and 429 ask to come again.
REFUSED = re.compile(r"status code: 4(?!08|29)\d\d")


class BucketFailed(MfluxError):
    """The storage that pictures are handed out from did not take one. It is kept, and can be asked for again."""

    code, status = "STORAGE_FAILED", 502


class BucketRefused(BucketFailed):
    """The storage answered, and said no: its bucket, its keys or their rights are wrong."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Which bucket, and how to reach it.

    `endpoint`, `public`: the store's address as this server and as clients see it; None for Amazon's, and for the same.
    `path_style`: the bucket is in the path of addresses, not in the host's name. Without keys the client's usual chain
    finds some. `seconds`: for one picture, tries included. `link_seconds`: the life of an address.
    """

    bucket: str
    endpoint: str | None
    public: str | None
    region: str | None
    prefix: str | None
    access_key: str | None
    secret_key: str | None
    path_style: bool
    seconds: float
    link_seconds: float


class Bucket:
    """Objects are never deleted here: how long they stay is the bucket's own business."""

    def __init__(self, place: Place) -> None:
        """Raises InvalidSetting where the client is not installed or cannot be set up so."""
        self.place = place
        self._client = _client()
        self._store = self._made(place.endpoint)
        self._signer = self._made(place.public or place.endpoint)
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def check(self) -> None:
        """Raises BucketRefused when the bucket, the keys or their rights are wrong, BucketFailed when none answers."""
        await self._within(min(CHECK_SECONDS, self.place.seconds), self._probe())

    async def address(self, key: str, make: Callable[[], Awaitable[bytes]], media_type: str) -> str:
        """Where an object can be had for a while. It is made and uploaded unless it is there. Raises BucketFailed."""
        async with self._turns:
            try:
                return await self._within(self.place.seconds, self._address(key, make, media_type))
            except BucketFailed as error:
                warning("storage.failed", key=key, reason=error.message)
                raise

    async def _address(self, key: str, make: Callable[[], Awaitable[bytes]], media_type: str) -> str:
        # Asked each time: what the bucket's owner has deleted meanwhile goes in again.
        if not await self._has(key):
            data = await make()
            await self._put(key, data, media_type)
            event("storage.stored", key=key, bytes=len(data))
        life = timedelta(seconds=self.place.link_seconds)
        return str(await self._client.sign_async(self._signer, "GET", key, life))

    async def _probe(self) -> None:
        await self._put(PROBE, b"", "text/plain")
        await self._client.head_async(self._store, PROBE)

    async def _has(self, key: str) -> bool:
        try:
            await self._client.head_async(self._store, key)
        # Without the right to list, Amazon says "forbidden" of what is not there.
        except (FileNotFoundError, self._client.exceptions.PermissionDeniedError):
            return False
        return True

    async def _put(self, key: str, data: bytes, media_type: str) -> None:
        await self._client.put_async(self._store, key, data, attributes={"Content-Type": media_type})

    async def _within(self, seconds: float, work: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(seconds):
                return await work
        except TimeoutError:
            raise self._failed(BucketFailed, f"no answer within {seconds:g} seconds") from None
        except (self._client.exceptions.BaseError, OSError) as error:
            kind = BucketRefused if REFUSED.search(str(error)) else BucketFailed
            raise self._failed(kind, _reason(error)) from None

    def _failed(self, kind: type[BucketFailed], reason: str) -> BucketFailed:
        return kind(f"Bucket {self.place.bucket}: {reason}.{'' if self.place.access_key else WITHOUT_KEYS}")

    def _made(self, endpoint: str | None) -> "S3Store":
        place = self.place
        config: Any = {
            "endpoint": endpoint if endpoint is None or place.path_style else _with_host(endpoint, place.bucket),
            "region": place.region,
            "access_key_id": place.access_key,
            "secret_access_key": place.secret_key,
            "virtual_hosted_style_request": not place.path_style,
        }
        try:
            return self._client.store.S3Store(  # type: ignore[no-any-return]
                place.bucket,
                prefix=place.prefix,
                config={name: value for name, value in config.items() if value is not None},
                client_options={"allow_http": True, "connect_timeout": timedelta(seconds=CONNECT_SECONDS)},
                retry_config=_retries(place.seconds),
            )
        except (self._client.exceptions.BaseError, ValueError) as error:
            raise InvalidSetting(f"storage: {_reason(error)}.", keys=["storage.kind"]) from None


def _client() -> ModuleType:
    try:
        import obstore
        import obstore.store
    except ImportError:
        message = "storage.kind: s3 needs the package obstore: pip install obstore, or pip install '.[s3]' here."
        raise InvalidSetting(message, keys=["storage.kind"]) from None
    return obstore


def _retries(seconds: float) -> Any:
    backoff = {"init_backoff": FIRST_WAIT, "max_backoff": LONGEST_WAIT, "base": 2}
    return {"max_retries": RETRIES, "retry_timeout": timedelta(seconds=seconds), "backoff": backoff}


def _with_host(endpoint: str, bucket: str) -> str:
    parts = urlsplit(endpoint)
    return parts._replace(netloc=f"{bucket}.{parts.netloc}").geturl()


def _reason(error: Exception) -> str:
    """The store's own code and words where it has answered; the rest of its answer may hold what it was signed with."""
    text = str(error)
    code, message = CODE.search(text), MESSAGE.search(text)
    if code:
        return f"{code[1]} ({message[1].strip(' .')})" if message else code[1]
    return " ".join(text.partition("\n")[0].split()).rstrip(".")[:LONGEST_REASON]
