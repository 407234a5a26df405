"""What `doctor` says of the bucket that pictures are handed out from."""

import asyncio
from collections.abc import Iterator

from mflux_api.app.making import make_bucket
from mflux_api.commands.doctor import Finding
from mflux_api.errors import InvalidSetting
from mflux_api.net.bucket import BucketFailed, BucketRefused
from mflux_api.settings import Settings

SUBJECT = "storage"


def bucket(settings: Settings) -> Iterator[Finding]:
    """Nothing where pictures are handed out from this server."""
    if settings.storage.kind == "local":
        return
    try:
        found = make_bucket(settings)
        assert found is not None
        asyncio.run(found.check())
    except InvalidSetting as error:
        yield Finding(SUBJECT, "fail", error.message)
    except BucketRefused as error:
        yield Finding(SUBJECT, "fail", error.message, "Look at storage.bucket, its region, the keys and their rights.")
    except BucketFailed as error:
        yield Finding(SUBJECT, "warn", error.message, "Is storage.endpoint_url right, and the network up?")
    else:
        yield Finding(SUBJECT, "ok", f"bucket {settings.storage.bucket}: written to and read")
