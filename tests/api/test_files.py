"""Pictures at signed URLs: expiry, byte ranges and invalid signatures."""

import io
import re
from typing import Any

import pytest
import requests
from PIL import Image

from tests.support.live_server import LiveServer, run_server
from tests.support.waiting import wait_until

pytestmark = pytest.mark.system

FLUX = "/flux/v1/flux-2-flex"
SMALL: dict[str, Any] = {"prompt": "a red circle", "width": 64, "height": 64, "steps": 1, "seed": 7}


def order_and_get_url(live: LiveServer, **fields: object) -> str:
    job_id = live.post(FLUX, {**SMALL, **fields}).json()["id"]
    live.wait_for_status(job_id, "completed")
    found: str = live.get(f"/flux/v1/get_result?id={job_id}").json()["result"]["sample"]
    return found


def get(url: str, **headers: str) -> requests.Response:
    return requests.get(url, headers=headers, timeout=30)


@pytest.mark.parametrize(("form", "kind"), [("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP")])
def test_a_picture_comes_in_the_format_that_was_ordered(server: LiveServer, form: str, kind: str) -> None:
    reply = get(order_and_get_url(server, output_format=form))
    assert reply.headers["Content-Type"] == f"image/{form}"
    with Image.open(io.BytesIO(reply.content)) as image:
        assert (image.format, image.size) == (kind, (64, 64))


def test_parts_and_unchanged_pictures_are_not_sent_again(server: LiveServer) -> None:
    url = order_and_get_url(server)
    whole = get(url)
    part = get(url, Range="bytes=10-19")
    assert (part.status_code, part.content) == (206, whole.content[10:20])
    assert part.headers["Content-Range"] == f"bytes 10-19/{len(whole.content)}"
    assert get(url, Range="bytes=-5").content == whole.content[-5:]
    assert get(url, Range=f"bytes={len(whole.content)}-").status_code == 416
    assert get(url, **{"If-None-Match": whole.headers["ETag"]}).status_code == 304
    assert get(url, **{"Range": "bytes=0-1", "If-Range": '"other"'}).content == whole.content


@pytest.mark.parametrize(
    "change",
    [
        lambda url: re.sub(r"signature=.", "signature=x", url),
        lambda url: re.sub(r"expires=\d+", "expires=9999999999", url),
        lambda url: re.sub(r"/0\.jpeg", "/1.jpeg", url),
        lambda url: re.sub(r"\.jpeg", ".png", url),
        lambda url: url.partition("?")[0],
        lambda url: url.replace("signature", "sig"),
    ],
)
def test_a_changed_address_is_refused(server: LiveServer, change: Any) -> None:
    reply = get(change(order_and_get_url(server)))
    assert (reply.status_code, reply.json()["code"]) == (403, "LINK_EXPIRED")


def test_an_address_expires_and_outlives_the_server(tmp_path: Any) -> None:
    with run_server(tmp_path / "output") as live:
        lasting = order_and_get_url(live)
    with run_server(tmp_path / "output", "--set", "security.link_seconds=1") as live:
        moved = live.url + lasting.partition("/files")[1] + lasting.partition("/files")[2]
        assert get(moved).status_code == 200
        short = order_and_get_url(live)
        wait_until(lambda: get(short).status_code == 403)
