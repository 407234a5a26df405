"""Tasks of Black Forest Labs and CometAPI, and predictions of Replicate: order, poll, fetch."""

import io
import re
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import requests
from PIL import Image
from replicate.client import Client

from mflux_api.dialects.bfl.moderation import Moderation
from mflux_api.models.registry import load_cloud_names
from tests.support.live_server import LiveServer

SMALL: dict[str, Any] = {"prompt": "ein fantastisches bild", "width": 64, "height": 64, "steps": 1, "seed": 42}
DOCUMENTED = [
    *("flux-pro-1.1-ultra", "flux-pro-1.1", "flux-pro", "flux-dev", "flux-pro-1.0-fill", "flux-pro-1.0-canny"),
    *("flux-pro-1.0-depth", "flux-kontext-pro", "flux-kontext-max", "flux-2-pro", "flux-2-flex"),
]


def result(live: LiveServer, task: str, path: str = "/flux/v1") -> dict[str, Any]:
    """Poll a task until it is no longer pending and return it."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        found: dict[str, Any] = live.get(f"{path}/get_result?id={task}").json()
        if found["status"] != "Pending":
            return found
        time.sleep(0.05)
    raise AssertionError(found)


@pytest.mark.parametrize("path", ["/flux/v1", "/v1"])
def test_a_task_is_pending_and_then_ready(server: LiveServer, path: str) -> None:
    extras = {"image_prompt": "", "prompt_upsampling": False, "safety_tolerance": 2, "webhook_url": ""}
    sent = server.post(f"{path}/flux-2-flex", {**SMALL, **extras, "output_format": "jpeg", "webhook_secret": ""})
    assert sent.status_code == 200, sent.text
    assert sent.json()["status"] == "Pending"
    # The reply names the model that really paints.
    assert sent.json()["model"] == "flux2-tiny"
    ready = result(server, sent.json()["id"], path)
    assert ready["status"] == "Ready"
    told = ready["result"]
    assert (told["seed"], told["prompt"]) == (42, SMALL["prompt"])
    assert told["end_time"] - told["start_time"] == pytest.approx(told["duration"])
    with Image.open(io.BytesIO(requests.get(told["sample"], timeout=30).content)) as image:
        assert (image.format, image.size) == ("JPEG", (64, 64))


def test_every_documented_model_has_one_that_paints_here(server: LiveServer) -> None:
    assert set(DOCUMENTED) <= set(load_cloud_names())
    reply = server.post("/flux/v1/flux-9000", SMALL)
    assert (reply.status_code, reply.json()["code"]) == (404, "MODEL_NOT_FOUND")


@pytest.mark.parametrize(
    "wrong",
    [
        {"prompt": ""},
        {"width": 4096},
        {"safety_tolerance": 7},
        {"output_format": "gif"},
        {"seed": "x"},
        {"image_prompt": "http://169.254.169.254/"},
        {"input_image": "no picture"},
    ],
)
def test_a_wrong_task_is_refused(server: LiveServer, wrong: dict[str, Any]) -> None:
    reply = server.post("/flux/v1/flux-2-flex", {**SMALL, **wrong})
    assert (reply.status_code, bool(reply.json()["detail"])) == (400, True)


def test_a_model_that_cannot_put_prompts_into_more_words_says_so(server: LiveServer) -> None:
    reply = server.post("/flux/v1/flux-2-flex", {**SMALL, "prompt_upsampling": True})
    assert (reply.status_code, reply.json()["code"]) == (400, "MODEL_UNSUPPORTED")
    assert "not available with this model" in reply.json()["detail"]


def test_an_unknown_task_is_not_found(server: LiveServer) -> None:
    reply = server.get("/flux/v1/get_result?id=nobody")
    assert (reply.status_code, reply.json()["status"]) == (404, "Task not found")
    assert server.get("/flux/v1/get_result").status_code == 400


def test_a_refused_prompt_is_a_status_of_its_own(server: LiveServer) -> None:
    sent = server.post("/flux/v1/flux-2-flex", {**SMALL, "prompt": "A NUDE, sitting", "safety_tolerance": 2}).json()
    assert result(server, sent["id"]) == {"id": sent["id"], "status": "Request Moderated", "result": None}
    bold = server.post("/flux/v1/flux-2-flex", {**SMALL, "prompt": "a nude, sitting", "safety_tolerance": 3}).json()
    assert result(server, bold["id"])["status"] == "Ready"


@pytest.mark.parametrize(
    ("prompt", "tolerance", "refused"),
    [
        ("a naked man", 2, True),
        ("a naked man", 3, False),
        ("a snake", 0, False),
        ("Weapon!", 0, True),
        ("weapons", 0, False),
        ("child  abuse", 6, True),
    ],
)
def test_words_are_refused_whole_and_up_to_their_level(prompt: str, tolerance: int, refused: bool) -> None:
    assert Moderation.load().refuses(prompt, tolerance) is refused


# Replicate


@pytest.fixture
def client(server: LiveServer) -> Iterator[Client]:
    client = Client(api_token="any", base_url=f"{server.url}/replicate")
    with closing(client._client):
        yield client


INPUT = {"prompt": "a red circle", "width": 64, "height": 64, "num_inference_steps": 1, "seed": 7}


def test_replicates_client_runs_a_model(client: Client) -> None:
    output: Any = client.run("black-forest-labs/flux-dev", input={**INPUT, "num_outputs": 2}, use_file_output=False)
    assert len(output) == 2
    with Image.open(io.BytesIO(requests.get(output[1], timeout=30).content)) as image:
        assert (image.format, image.size) == ("WEBP", (64, 64))


def test_a_prediction_is_created_waited_for_and_found_as_a_task(client: Client, server: LiveServer) -> None:
    prediction = client.predictions.create(
        model="black-forest-labs/flux-schnell", input={**INPUT, "output_format": "png"}
    )
    prediction.wait()
    assert prediction.status == "succeeded"
    again: Any = client.predictions.get(prediction.id).output
    assert [url.partition("?")[0] for url in again] == [url.partition("?")[0] for url in prediction.output or ()]
    assert prediction.id in [each.id for each in client.predictions.list().results]
    # The other API has the same task, as documented.
    assert result(server, prediction.id)["status"] == "Ready"


def test_replicates_client_streams_a_model(client: Client) -> None:
    events = list(client.stream("black-forest-labs/flux-dev", input={**INPUT, "num_outputs": 2}))
    assert [event.event.value for event in events] == ["output", "output", "done"]
    assert events[-1].data == "{}"
    with Image.open(io.BytesIO(requests.get(str(events[1]), timeout=30).content)) as image:
        assert image.format == "WEBP"


def test_a_stream_says_how_it_ended_and_ends_for_who_has_heard_it(server: LiveServer) -> None:
    path = "/replicate/v1/models/black-forest-labs/flux-dev/predictions"
    sent = server.post(path, {"input": {**INPUT, "num_inference_steps": 100, "width": 512, "height": 512}}).json()
    stream = sent["urls"]["stream"].removeprefix(server.url)
    server.post(f"/replicate/v1/predictions/{sent['id']}/cancel")
    reply = server.get(stream)
    assert reply.headers["Content-Type"].startswith("text/event-stream")
    assert 'event: done\r\ndata: {"reason": "canceled"}' in reply.text
    last = re.findall(r"id: (\S+)", reply.text)[-1]
    assert server.get(stream, headers={"Last-Event-ID": last}).status_code == 204
    assert server.get("/replicate/v1/predictions/nobody/stream").status_code == 404


def test_a_prediction_is_cancelled(client: Client) -> None:
    prediction = client.predictions.create(
        model="black-forest-labs/flux-schnell", input={**INPUT, "num_inference_steps": 100, "width": 512, "height": 512}
    )
    prediction.cancel()
    assert client.predictions.get(prediction.id).status == "canceled"


def test_prefer_wait_answers_with_the_picture(server: LiveServer) -> None:
    path = "/replicate/v1/models/black-forest-labs/flux-dev/predictions"
    reply = server.post(path, {"input": {**INPUT, "aspect_ratio": "1:1"}}, headers={"Prefer": "wait"})
    assert (reply.status_code, reply.json()["status"]) == (200, "succeeded")


@pytest.mark.parametrize(
    "wrong",
    [{"input": {}}, {}, {"input": {**INPUT, "output_format": "gif"}}, {"input": {"prompt": "x", "aspect_ratio": "1"}}],
)
def test_a_wrong_prediction_is_refused_as_replicate_does(server: LiveServer, wrong: dict[str, Any]) -> None:
    reply = server.post("/replicate/v1/models/black-forest-labs/flux-dev/predictions", wrong)
    assert (reply.status_code, reply.json()["status"], bool(reply.json()["detail"])) == (400, 400, True)
    assert server.get("/replicate/v1/predictions/nobody").json()["status"] == 404
