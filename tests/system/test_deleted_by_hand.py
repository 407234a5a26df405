"""Pictures that were deleted in the Finder: every door shows what is left, and nothing breaks."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.live_server import LiveServer, run_server

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with run_server(tmp_path_factory.mktemp("deleted") / "output") as live:
        yield live


def paint(live: LiveServer, count: int, **fields: object) -> str:
    job_id = live.submit(num_images=count, **fields)
    live.wait_for_status(job_id, "completed")
    return job_id


def find_files(live: LiveServer, job_id: str) -> list[Path]:
    return sorted(live.output.glob(f"*/{job_id}-*.png"))


@pytest.fixture
def halved(live: LiveServer) -> str:
    """Return a job whose first of two pictures is gone."""
    job_id = paint(live, 2, prompt="halved")
    find_files(live, job_id)[0].unlink()
    return job_id


def test_the_job_shows_the_other_picture(live: LiveServer, halved: str) -> None:
    job: Any = live.get_job(halved)
    kept = find_files(live, halved)[0].read_bytes()
    assert [base64.b64decode(image) for image in job["result"]["images"]] == [kept]
    assert len(job["result"]["seeds"]) == 1
    assert job["images"] == [f"/api/v1/jobs/{halved}/images/1"]
    assert live.get(job["images"][0]).content == kept
    assert live.get(f"/api/v1/jobs/{halved}/images/0").status_code == 404


def test_the_stream_tells_its_end(live: LiveServer, halved: str) -> None:
    text = live.get(f"/api/v1/jobs/{halved}/stream").text
    assert "event: complete" in text
    (line,) = [line for line in text.splitlines() if line.startswith("data:") and "images" in line]
    assert len(json.loads(line.removeprefix("data:"))["result"]["images"]) == 1


def test_the_gallery_lists_what_is_left(live: LiveServer, halved: str) -> None:
    before = live.get("/api/v1/pictures").json()
    rows = [row for row in before["pictures"] if row["job_id"] == halved]
    assert [row["index"] for row in rows] == [1]
    find_files(live, halved)[0].unlink()
    after = live.get("/api/v1/pictures").json()
    assert all(row["job_id"] != halved for row in after["pictures"])
    assert after["total"] == before["total"] - 1 == len(after["pictures"])


def test_a_page_whose_pictures_are_all_gone_is_passed_over(live: LiveServer) -> None:
    oldest = paint(live, 1, prompt="pages")
    for _ in range(3):
        (file,) = find_files(live, paint(live, 1, prompt="pages"))
        file.unlink()
    page = live.get("/api/v1/pictures?limit=1&search=pages").json()
    assert [row["job_id"] for row in page["pictures"]] == [oldest]
    assert page["total"] == 1


def test_a_file_that_comes_back_is_shown_again(live: LiveServer) -> None:
    job_id = paint(live, 1)
    (file,) = find_files(live, job_id)
    file.rename(live.output / "elsewhere.png")
    assert live.get_job(job_id)["images"] == []
    (live.output / "elsewhere.png").rename(file)
    assert live.get_job(job_id)["images"] == [f"/api/v1/jobs/{job_id}/images/0"]


def test_tasks_and_predictions_have_the_other_picture(live: LiveServer, halved: str) -> None:
    task = live.get(f"/v1/get_result?id={halved}").json()
    assert task["status"] == "Ready"
    assert live.get(task["result"]["sample"].removeprefix(live.url)).status_code == 200
    prediction = live.get(f"/replicate/v1/predictions/{halved}").json()
    assert len(prediction["output"]) == 1
    rows = live.get("/replicate/v1/predictions").json()["results"]
    assert [len(row["output"]) for row in rows if row["id"] == halved] == [1]
    text = live.get(f"/replicate/v1/predictions/{halved}/stream").text
    assert text.count("event: output") == 1
    assert "event: done" in text


def test_a_job_without_any_picture_left_is_still_answered(live: LiveServer) -> None:
    job_id = paint(live, 1)
    find_files(live, job_id)[0].unlink()
    job: Any = live.get_job(job_id)
    assert (job["status"], job["result"]["images"], job["images"]) == ("completed", [], [])
    assert "event: complete" in live.get(f"/api/v1/jobs/{job_id}/stream").text
    assert live.get(f"/replicate/v1/predictions/{job_id}").json()["data_removed"] is True
    assert live.get(f"/v1/get_result?id={job_id}").status_code in {404, 410}
    assert live.get("/api/v1/jobs").status_code == 200


def test_a_missing_picture_can_still_be_deleted(live: LiveServer, halved: str) -> None:
    assert live.delete(f"/api/v1/jobs/{halved}/images/0").status_code in {200, 404}
    assert live.delete(f"/api/v1/jobs/{halved}/images/1").status_code == 200
    assert live.get_job(halved)["images"] == []


@pytest.mark.parametrize("name", ["source", "reference-0"])
def test_an_input_that_is_gone_fails_its_job_with_a_reason(live: LiveServer, name: str) -> None:
    picture = base64.b64encode(find_files(live, paint(live, 1))[0].read_bytes()).decode()
    field = "init_images" if name == "source" else "extra_images"
    live.post("/api/v1/queue/pause")
    try:
        job_id = live.submit(**{field: [picture]})
        (live.output / "inputs" / job_id / name).unlink()
    finally:
        live.post("/api/v1/queue/resume")
    job = live.wait_for_status(job_id)
    assert (job["status"], job["code"]) == ("failed", "INVALID_IMAGE")
    assert live.get(f"/api/v1/jobs/{job_id}/inputs/{name}").status_code == 404
