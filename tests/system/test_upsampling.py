"""Prompt upsampling over HTTP, with a random checkpoint as the model."""

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support.live_server import LiveServer, run_server
from tests.support.paths import CHECKPOINTS

pytestmark = pytest.mark.system

KLEIN = CHECKPOINTS / "klein"
PROMPT = "a red circle"
ORDER: dict[str, Any] = {"prompt": PROMPT, "width": 64, "height": 64, "steps": 2, "seed": 7}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = Path(tmp_path_factory.mktemp("upsampling"))
    shutil.copytree(KLEIN, folder / "models" / "random-klein")
    with run_server(folder / "output", "--model", "random-klein", "--set", f"models.cache_dir={folder}/models") as live:
        yield live


@pytest.fixture(scope="module")
def watched_job(live: LiveServer) -> tuple[dict[str, Any], str]:
    """A finished job and the text of its event stream."""
    job_id = live.submit(**ORDER, prompt_upsampling=True)
    with live.get(f"/api/v1/jobs/{job_id}/stream", stream=True) as reply:
        said = reply.text
    return live.wait_for_status(job_id), said


@pytest.fixture(scope="module")
def job(watched_job: tuple[dict[str, Any], str]) -> dict[str, Any]:
    return watched_job[0]


def test_the_new_prompt_is_kept_with_the_job_and_in_the_picture(live: LiveServer, job: dict[str, Any]) -> None:
    asked, written = job["prompt"], job["parameters"]["upsampled_prompt"]
    assert (job["status"], asked) == ("completed", PROMPT)
    assert job["parameters"]["prompt_upsampling"] is True
    assert written not in {None, "", PROMPT}
    with Image.open(io.BytesIO(live.get(job["images"][0]).content)) as picture:
        text = str(picture.info["parameters"])
    assert text.startswith(written)
    assert f"Original prompt: {PROMPT}" in text


def test_the_picture_is_that_of_the_new_prompt(live: LiveServer, job: dict[str, Any]) -> None:
    again = live.wait_for_status(live.submit(**{**ORDER, "prompt": job["parameters"]["upsampled_prompt"]}))
    one, other = (Image.open(io.BytesIO(live.get(each["images"][0]).content)) for each in (job, again))  # type: ignore[index]
    assert one.tobytes() == other.tobytes()
    assert "prompt_upsampling" not in again["parameters"]  # type: ignore[operator]


def test_who_watches_sees_it_write(watched_job: tuple[dict[str, Any], str]) -> None:
    assert '"stage":"upsampling"' in watched_job[1].replace(" ", "")
    assert "event: complete" in watched_job[1]


def test_a_job_that_writes_can_be_cancelled(live: LiveServer) -> None:
    job_id = live.submit(**{**ORDER, "prompt": "a green star"}, prompt_upsampling=True)
    with live.get(f"/api/v1/jobs/{job_id}/stream", stream=True) as reply:
        for line in reply.iter_lines():
            if b"upsampling" in line:
                assert live.delete(f"/api/v1/jobs/{job_id}").status_code == 200
                break
    assert live.wait_for_status(job_id)["status"] == "cancelled"
    assert live.wait_for_status(live.submit(**ORDER))["status"] == "completed"


def test_tasks_of_black_forest_labs_answer_with_the_new_prompt(live: LiveServer, job: dict[str, Any]) -> None:
    sent = live.post("/flux/v1/flux-2-pro", {**ORDER, "prompt_upsampling": True})
    assert sent.status_code == 200, sent.text
    live.wait_for_status(sent.json()["id"])
    found = live.get(f"/flux/v1/get_result?id={sent.json()['id']}").json()
    assert found["status"] == "Ready", found
    assert found["result"]["prompt"] == job["parameters"]["upsampled_prompt"]


def test_predictions_of_replicate_take_the_word_too(live: LiveServer, job: dict[str, Any]) -> None:
    body = {"version": "random-klein", "input": {**ORDER, "num_inference_steps": 2, "prompt_upsampling": True}}
    sent = live.post("/replicate/v1/predictions", body)
    assert sent.status_code == 201, sent.text
    done = live.wait_for_status(sent.json()["id"])
    assert done["parameters"]["upsampled_prompt"] == job["parameters"]["upsampled_prompt"]  # type: ignore[index]
