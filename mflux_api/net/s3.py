"""Picture storage in an S3-compatible bucket: upload on first request, then serve presigned URLs."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from mflux_api.errors import InvalidSetting, MfluxError
from mflux_api.logs import log_event, log_warning

if TYPE_CHECKING:
    from obstore.store import S3Store

T = TypeVar("T")

# Object written at every start to check write access. It is never removed, so no delete permission is needed.
PROBE = ".mflux-api"
CHECK_SECONDS = 20.0
CONNECT_SECONDS = 5.0
RETRIES = 6
FIRST_WAIT, LONGEST_WAIT = timedelta(seconds=0.2), timedelta(seconds=5)
AT_ONCE = 8
LONGEST_REASON = 300
WITHOUT_KEYS = " No storage.access_key is set: keys come from AWS_ACCESS_KEY_ID or the machine's cloud role."
CODE, MESSAGE = re.compile(r"<Code>([\w.-]+)</Code>"), re.compile(r"<Message>([^<]*)</Message>")
# Requests that the store refused for good. 408 and 429 mean "retry later".
REFUSED = re.compile(r"status code: 4(?!08|29)\d\d")


class BucketFailed(MfluxError):
    """A picture could not be uploaded to the bucket. The server keeps it, so the request can be repeated."""

    code, status = "STORAGE_FAILED", 502


class BucketRefused(BucketFailed):
    """The store refused the request: the bucket, the keys or their permissions are wrong."""


@dataclass(frozen=True, kw_only=True)
class BucketConfig:
    """Location and credentials of a bucket.

    `endpoint`: URL of the store as this server sees it; None for Amazon S3. `public`: the same as clients see it; None
    for `endpoint`. `path_style`: the bucket is part of the URL's path, not of its host name. Without keys, obstore's
    default credential chain is used. `timeout`: time limit for one picture, retries included. `link_seconds`: lifetime
    of a presigned URL.
    """

    bucket: str
    endpoint: str | None
    public: str | None
    region: str | None
    prefix: str | None
    access_key: str | None
    secret_key: str | None
    path_style: bool
    timeout: float
    link_seconds: float


class Bucket:
    """Client of one bucket. It never deletes objects: expiry is left to the bucket's lifecycle rules."""

    def __init__(self, config: BucketConfig) -> None:
        """Raises InvalidSetting when obstore is not installed or rejects these settings."""
        self.config = config
        self._client = _import_obstore()
        self._store = self._make_store(config.endpoint)
        self._signer = self._make_store(config.public or config.endpoint)
        self._upload_slots = asyncio.Semaphore(AT_ONCE)

    async def check(self) -> None:
        """Write and read the probe object.

        Raises BucketRefused when the bucket, the keys or their permissions are wrong, BucketFailed when the store does
        not answer.
        """
        await self._run_with_timeout(min(CHECK_SECONDS, self.config.timeout), self._write_probe())

    async def get_url(self, key: str, make: Callable[[], Awaitable[bytes]], media_type: str) -> str:
        """Return a presigned URL of an object; make and upload the object first if it is missing.

        Raises BucketFailed.
        """
        async with self._upload_slots:
            try:
                return await self._run_with_timeout(self.config.timeout, self._upload_and_sign(key, make, media_type))
            except BucketFailed as error:
                log_warning("storage.failed", key=key, reason=error.message)
                raise

    async def _upload_and_sign(self, key: str, make: Callable[[], Awaitable[bytes]], media_type: str) -> str:
        # Checked every time, because the bucket's owner may have deleted the object.
        if not await self._exists(key):
            data = await make()
            await self._put(key, data, media_type)
            log_event("storage.stored", key=key, bytes=len(data))
        life = timedelta(seconds=self.config.link_seconds)
        return str(await self._client.sign_async(self._signer, "GET", key, life))

    async def _write_probe(self) -> None:
        await self._put(PROBE, b"", "text/plain")
        await self._client.head_async(self._store, PROBE)

    async def _exists(self, key: str) -> bool:
        try:
            await self._client.head_async(self._store, key)
        # Without permission to list, Amazon answers "forbidden" for missing objects.
        except (FileNotFoundError, self._client.exceptions.PermissionDeniedError):
            return False
        return True

    async def _put(self, key: str, data: bytes, media_type: str) -> None:
        await self._client.put_async(self._store, key, data, attributes={"Content-Type": media_type})

    async def _run_with_timeout(self, seconds: float, work: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(seconds):
                return await work
        except TimeoutError:
            raise self._build_error(BucketFailed, f"no answer within {seconds:g} seconds") from None
        except (self._client.exceptions.BaseError, OSError) as error:
            kind = BucketRefused if REFUSED.search(str(error)) else BucketFailed
            raise self._build_error(kind, _describe_error(error)) from None

    def _build_error(self, kind: type[BucketFailed], reason: str) -> BucketFailed:
        return kind(f"Bucket {self.config.bucket}: {reason}.{'' if self.config.access_key else WITHOUT_KEYS}")

    def _make_store(self, endpoint: str | None) -> "S3Store":
        place = self.config
        config: Any = {
            "endpoint": endpoint
            if endpoint is None or place.path_style
            else _virtual_hosted_endpoint(endpoint, place.bucket),
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
                retry_config=_retry_config(place.timeout),
            )
        except (self._client.exceptions.BaseError, ValueError) as error:
            raise InvalidSetting(f"storage: {_describe_error(error)}.", keys=["storage.kind"]) from None


def _import_obstore() -> ModuleType:
    try:
        import obstore
        import obstore.store
    except ImportError:
        message = "storage.kind: s3 needs the package obstore: pip install obstore, or pip install '.[s3]' here."
        raise InvalidSetting(message, keys=["storage.kind"]) from None
    return obstore


def _retry_config(seconds: float) -> Any:
    backoff = {"init_backoff": FIRST_WAIT, "max_backoff": LONGEST_WAIT, "base": 2}
    return {"max_retries": RETRIES, "retry_timeout": timedelta(seconds=seconds), "backoff": backoff}


def _virtual_hosted_endpoint(endpoint: str, bucket: str) -> str:
    parts = urlsplit(endpoint)
    return parts._replace(netloc=f"{bucket}.{parts.netloc}").geturl()


def _describe_error(error: Exception) -> str:
    """Extract the store's error code and message. The rest of its reply may contain signing data."""
    text = str(error)
    code, message = CODE.search(text), MESSAGE.search(text)
    if code:
        return f"{code[1]} ({message[1].strip(' .')})" if message else code[1]
    return " ".join(text.partition("\n")[0].split()).rstrip(".")[:LONGEST_REASON]
