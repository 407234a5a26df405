"""Finished pictures: pages, thumbnails, inputs and deletion."""

import base64
import io
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.api.native.test_jobs import LONG
from tests.support.live_server import LiveServer, run_server
from tests.support.refusals import assert_refused

pytestmark = pytest.mark.system

ROW = {"job_id", "index", "url", "prompt", "model", "width", "height", "seed", "steps", "created_at"}


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Run a server with pictures of two jobs: two foxes, then one wide wolf."""
    with run_server(Path(tmp_path_factory.mktemp("gallery")) / "output") as live:
        foxes = live.submit(prompt="a red FOX " + "x" * 300, num_images=2, seed=7)
        wolf = live.submit(prompt="a wolf in 100% snow", width=128, steps=2)
        assert live.wait_for_status(foxes)["status"] == live.wait_for_status(wolf)["status"] == "completed"
        yield live


def list_pictures(live: LiveServer, **query: object) -> dict[str, Any]:
    reply = live.get("/api/v1/pictures", params=query)
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    assert set(found) == {"pictures", "next", "total"}
    return found


def picture(live: LiveServer, url: str) -> Image.Image:
    reply = live.get(url)
    assert reply.status_code == 200, reply.text
    return Image.open(io.BytesIO(reply.content))


def paint(live: LiveServer, **fields: object) -> str:
    job_id = live.submit(**fields)
    assert live.wait_for_status(job_id)["status"] == "completed"
    return job_id


# Pages


def test_every_picture_is_listed_newest_first_with_what_it_was_painted_with(gallery: LiveServer) -> None:
    found = list_pictures(gallery)
    wolf, second, first = found["pictures"]
    assert (found["next"], found["total"]) == (None, 3)
    assert all(set(row) == ROW for row in found["pictures"])
    assert (wolf["prompt"], wolf["width"], wolf["height"], wolf["steps"]) == ("a wolf in 100% snow", 128, 64, 2)
    assert [(row["index"], row["seed"], row["job_id"]) for row in (first, second)] == [
        (0, 7, first["job_id"]),
        (1, 8, first["job_id"]),
    ]
    assert (len(first["prompt"]), first["model"]) == (310, "flux2-tiny")
    assert gallery.get_job(first["job_id"])["created_at"] == first["created_at"]
    for row in found["pictures"]:
        assert picture(gallery, row["url"]).size == (row["width"], row["height"])


def test_pages_lead_to_every_picture(gallery: LiveServer) -> None:
    first = list_pictures(gallery, limit=1)
    second = list_pictures(gallery, limit=1, before=first["next"])
    assert [len(page["pictures"]) for page in (first, second)] == [1, 2]
    assert (second["next"], first["total"], second["total"]) == (None, 3, 3)


@pytest.mark.parametrize(
    ("query", "total"),
    [
        *(({"search": "fox"}, 2), ({"search": "Red a fox"}, 2), ({"search": "fox wolf"}, 0), ({"search": "100%"}, 1)),
        *(({"search": "%"}, 1), ({"search": "_"}, 0), ({"search": " "}, 3), ({"search": "\0"}, 0)),
        *(({"model": "flux2-tiny"}, 3), ({"model": "flux2"}, 0), ({"model": "flux2-tiny", "search": "snow"}, 1)),
    ],
)
def test_a_search_finds_words_of_the_prompt_and_the_model_exactly(
    gallery: LiveServer, query: dict[str, str], total: int
) -> None:
    found = list_pictures(gallery, **query)
    assert (len(found["pictures"]), found["total"]) == (total, total)


@pytest.mark.parametrize("query", ["limit=0", "limit=501", "limit=x", "before=-1", "before=x", f"search={'x' * 1001}"])
def test_a_page_that_cannot_be_is_refused(gallery: LiveServer, query: str) -> None:
    assert_refused(gallery.get(f"/api/v1/pictures?{query}"), 400, "INVALID_REQUEST")


# Thumbnails


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
def test_a_picture_comes_as_small_as_it_is_asked_for_and_never_larger_than_it_is(
    gallery: LiveServer, form: str
) -> None:
    (wolf,) = list_pictures(gallery, search="wolf")["pictures"]
    sizes = {side: picture(gallery, f"{wolf['url']}?format={form}&side={side}").size for side in (32, 100, 128, 2048)}
    assert sizes == {32: (32, 16), 100: (100, 50), 128: (128, 64), 2048: (128, 64)}


def test_a_small_picture_may_be_kept_by_browsers_for_good(gallery: LiveServer) -> None:
    (wolf,) = list_pictures(gallery, search="wolf")["pictures"]
    reply = gallery.get(f"{wolf['url']}?format=webp&side=32")
    assert reply.headers["Content-Type"] == "image/webp"
    assert "immutable" in reply.headers["Cache-Control"]


@pytest.mark.parametrize("side", ["15", "2049", "0", "-1", "x", "1.5"])
def test_a_side_out_of_bounds_is_refused(gallery: LiveServer, side: str) -> None:
    (wolf,) = list_pictures(gallery, search="wolf")["pictures"]
    assert_refused(gallery.get(f"{wolf['url']}?side={side}"), 400, "INVALID_REQUEST")


# Inputs


def make_base64(form: str, color: str) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), color).save(buffer, form)
    return base64.b64encode(buffer.getvalue()).decode()


def test_what_a_job_starts_from_comes_back_as_it_was_sent(server: LiveServer) -> None:
    source, mask = make_base64("JPEG", "red"), make_base64("PNG", "white")
    references = [make_base64("WEBP", "blue"), make_base64("BMP", "green")]
    job_id = paint(server, init_images=[f"data:image/png;base64,{source}"], mask=mask, extra_images=references)
    job: Any = server.get_job(job_id)
    assert (job["parameters"]["references"], job["parameters"]["masked"]) == (2, True)
    base = f"/api/v1/jobs/{job_id}/inputs"
    urls = [f"{base}/{name}" for name in ("source", "mask", "reference-0", "reference-1")]
    assert job["inputs"] == {"source": urls[0], "mask": urls[1], "references": urls[2:]}
    for url, data, form in zip(urls, [source, mask, *references], ["jpeg", "png", "webp", "bmp"], strict=True):
        reply = server.get(url)
        assert (reply.content, reply.headers["Content-Type"]) == (base64.b64decode(data), f"image/{form}")
        assert reply.headers["X-Content-Type-Options"] == "nosniff"
        assert "sandbox" in reply.headers["Content-Security-Policy"]


def test_a_job_that_starts_from_words_has_no_inputs(server: LiveServer) -> None:
    job_id = paint(server)
    job: Any = server.get_job(job_id)
    assert job["inputs"] == {"source": None, "mask": None, "references": []}
    assert (job["parameters"]["references"], job["parameters"]["masked"]) == (0, False)
    assert_refused(server.get(f"/api/v1/jobs/{job_id}/inputs/source"), 404, "PICTURE_NOT_FOUND")
    assert_refused(server.get("/api/v1/jobs/nothing/inputs/source"), 404, "JOB_NOT_FOUND")


@pytest.mark.parametrize(
    "name", ["mask", "reference-1", "reference-00", "reference--1", "source-0", "SOURCE", ".", "%00"]
)
def test_only_names_that_the_job_has_are_answered(server: LiveServer, name: str) -> None:
    job_id = server.submit(init_images=[make_base64("PNG", "red")], extra_images=[make_base64("PNG", "blue")])
    assert_refused(
        server.get(f"/api/v1/jobs/{job_id}/inputs/{name}"), 404, "NOT_FOUND" if name == "." else "PICTURE_NOT_FOUND"
    )
    server.wait_for_status(job_id)


@pytest.mark.slow
def test_inputs_are_had_of_waiting_and_failed_jobs_and_after_a_restart(tmp_path: Path) -> None:
    broken = base64.b64encode(base64.b64decode(make_base64("PNG", "red"))[:100]).decode()
    with run_server(tmp_path / "output") as live:
        failed = live.submit(init_images=[broken])
        assert live.wait_for_status(failed)["status"] == "failed"
        live.post("/api/v1/queue/pause")
        waiting = live.submit(extra_images=[make_base64("GIF", "blue")])
        assert live.get(f"/api/v1/jobs/{waiting}/inputs/reference-0").headers["Content-Type"] == "image/gif"
        live.stop(signal.SIGKILL)
    with run_server(tmp_path / "output") as live:
        assert live.get(f"/api/v1/jobs/{failed}/inputs/source").content == base64.b64decode(broken)
        assert live.get(f"/api/v1/jobs/{waiting}/inputs/reference-0").status_code == 200


# Deletion


def test_a_deleted_picture_is_gone_everywhere_and_the_others_keep_their_address(server: LiveServer) -> None:
    job_id = paint(server, num_images=3, seed=5)
    before: Any = server.get_job(job_id)
    total = list_pictures(server)["total"]
    stream = server.get(f"/api/v1/jobs/{job_id}/stream").text
    url = f"/api/v1/jobs/{job_id}/images/1"
    assert server.delete(url).json() == {"status": "deleted"}
    assert_refused(server.get(url), 404, "PICTURE_NOT_FOUND")
    assert_refused(server.delete(url), 404, "PICTURE_NOT_FOUND")
    assert list_pictures(server)["total"] == total - 1
    assert [row["index"] for row in list_pictures(server)["pictures"] if row["job_id"] == job_id] == [2, 0]
    left: Any = server.get_job(job_id)
    assert left["status"] == "completed"
    assert left["images"] == [before["images"][0], before["images"][2]]
    kept = [before["result"]["images"][0], before["result"]["images"][2]]
    times = [before["result"]["timings"][0], before["result"]["timings"][2]]
    assert left["result"] == {"images": kept, "seeds": [5, 7], "timings": times}
    assert before["result"]["images"][1] in stream
    assert before["result"]["images"][1] not in server.get(f"/api/v1/jobs/{job_id}/stream").text
    assert len(list(server.output.glob(f"*/{job_id}-*"))) == 2


def test_a_job_without_its_last_picture_is_still_told_of(server: LiveServer) -> None:
    job_id = paint(server)
    server.delete(f"/api/v1/jobs/{job_id}/images/0")
    job: Any = server.get_job(job_id)
    assert (job["status"], job["images"]) == ("completed", [])
    assert job["result"] == {"images": [], "seeds": [], "timings": []}
    assert server.get(f"/api/v1/jobs/{job_id}/stream").status_code == 200


@pytest.mark.parametrize("name", ["1", "-1", "00", "first", "9" * 30])
def test_a_picture_that_there_is_not_cannot_be_deleted(server: LiveServer, name: str) -> None:
    job_id = paint(server)
    assert_refused(server.delete(f"/api/v1/jobs/{job_id}/images/{name}"), 404, "PICTURE_NOT_FOUND")
    assert_refused(server.delete("/api/v1/jobs/nothing/images/0"), 404, "JOB_NOT_FOUND")
    assert len(server.get_job(job_id)["images"]) == 1  # type: ignore[arg-type]


def test_pictures_of_a_running_job_cannot_be_deleted(server: LiveServer) -> None:
    job_id = server.submit(**LONG)
    server.wait_for_status(job_id, "generating")
    assert_refused(server.delete(f"/api/v1/jobs/{job_id}/images/0"), 409, "CONFLICT")
    server.delete(f"/api/v1/jobs/{job_id}")
    server.wait_for_status(job_id)


@pytest.mark.slow
def test_a_deleted_picture_stays_deleted_after_a_restart(tmp_path: Path) -> None:
    with run_server(tmp_path / "output") as live:
        job_id = paint(live, num_images=2)
        live.delete(f"/api/v1/jobs/{job_id}/images/0")
        live.stop(signal.SIGKILL)
    with run_server(tmp_path / "output") as live:
        assert [row["index"] for row in list_pictures(live)["pictures"]] == [1]
        assert_refused(live.get(f"/api/v1/jobs/{job_id}/images/0"), 404, "PICTURE_NOT_FOUND")
        assert live.get(f"/api/v1/jobs/{job_id}/images/1").status_code == 200
