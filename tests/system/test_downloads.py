"""The server downloads missing models from a hub on loopback, with Hugging Face's own client."""

import json
import shutil
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from mflux_api.models.registry import EMBEDDED_MODELS_DIR, load_registry
from tests.support import hub as hubs
from tests.support.hub import FakeHub, read_files
from tests.support.live_server import LiveServer, run_server
from tests.support.waiting import wait_until

pytestmark = pytest.mark.system

MODEL = "flux2-klein-4b"
QUANTIZED = f"{MODEL}-8-bit"
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
DOWNLOAD = f"/api/v1/models/{MODEL}/download"
STATUS = f"/api/v1/models/{MODEL}/status"
Start = Callable[..., AbstractContextManager[LiveServer]]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """Run a hub that serves the embedded model under the name of a published one, the large file first."""
    spec = load_registry()[MODEL]
    monkeypatch.setattr(hubs, "REPOSITORY", spec.repository)
    monkeypatch.setattr(hubs, "COMMIT", spec.revision)
    files = read_files(EMBEDDED_MODELS_DIR / "flux2-tiny")
    with hubs.run_hub({WEIGHTS: files[WEIGHTS], **files}) as hub:
        yield hub


@pytest.fixture
def start(hub: FakeHub, tmp_path: Path) -> Start:
    """A function that starts a server with this hub only, without the user's token, cache or proxy."""

    def begin(*arguments: str, endpoint: str = hub.url) -> AbstractContextManager[LiveServer]:
        home = tmp_path / "home"
        alone = {"HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1"}
        # The client must not retry while a test holds the hub.
        alone |= {"HF_TOKEN": "", "HUGGING_FACE_HUB_TOKEN": "", "HF_HUB_DOWNLOAD_TIMEOUT": "60"}
        alone |= {"HF_HOME": str(home), "HF_TOKEN_PATH": str(home / "token"), "HF_HUB_CACHE": str(home / "hub")}
        folder = str(tmp_path / "models")
        return run_server(tmp_path / "output", "--models-dir", folder, *arguments, environ=alone)

    return begin


def wait_until_half_way(hub: FakeHub, live: LiveServer) -> None:
    """Wait until the hub holds back the rest of the weights and the server has written every complete chunk.

    If a chunk were still to come, the server would notice a stop when it arrives: at an unpredictable moment.
    """
    assert hub.held.wait(20)
    # Three chunks are 0.28 of the bytes of all files, two are 0.19.
    wait_until(lambda: get_status(live)["progress"] > 0.25)


def resume_download(hub: FakeHub) -> None:
    hub.hold = False
    hub.resume.set()


def get_status(live: LiveServer) -> Any:
    return live.get(STATUS).json()


class Listener(threading.Thread):
    """Reads a stream in a thread. `events`: (name, data) of each event so far."""

    def __init__(self, live: LiveServer, path: str) -> None:
        super().__init__(daemon=True)
        self.live = live
        self.path = path
        self.events: list[tuple[str, Any]] = []
        self.last_id = ""
        self.start()

    def run(self) -> None:
        with self.live.get(self.path, stream=True) as reply:
            fields: dict[str, str] = {}
            for line in reply.iter_lines(decode_unicode=True):
                name, _, value = line.partition(": ")
                fields[name] = value
                if not line and "data" in fields:
                    self.last_id = fields["id"]
                    self.events.append((fields["event"], json.loads(fields["data"])))
                    fields = {}

    def has_ended(self) -> list[tuple[str, Any]]:
        self.join(60)
        assert not self.is_alive()
        return self.events


def test_a_job_brings_its_model_first_and_others_are_painted_meanwhile(hub: FakeHub, start: Start) -> None:
    hub.hold = True
    with start() as live:
        job_id = live.submit(model=MODEL)
        listener = Listener(live, f"/api/v1/jobs/{job_id}/stream")
        wait_until_half_way(hub, live)
        assert live.get_job(job_id)["status"] == "queued"
        assert (get_status(live)["status"], get_status(live)["downloaded"]) == ("downloading", False)
        # This model needs the same files; the embedded model below needs no download.
        sharing = live.submit(model=QUANTIZED)
        assert live.wait_for_status(live.submit(model="flux2-tiny"))["status"] == "completed"
        assert live.get_job(job_id)["status"] == "queued"
        resume_download(hub)
        assert live.wait_for_status(job_id)["status"] == "completed"
        assert live.wait_for_status(sharing)["status"] == "completed"
        events = listener.has_ended()
    shares = [data["download"] for name, data in events if name == "progress" and data.get("stage") == "downloading"]
    assert shares == sorted(shares)
    assert 0 < shares[-1] <= 1
    assert events[-1][0] == "complete"
    assert "painting" in [data.get("stage") for _, data in events]
    assert hub.ranges_asked(WEIGHTS) == [None]


@pytest.mark.slow
def test_a_client_that_waits_for_its_picture_waits_for_the_model(start: Start) -> None:
    with start() as live:
        reply = live.post("/sdapi/v1/txt2img", {"prompt": "x", "model": MODEL, "width": 64, "height": 64, "steps": 1})
        assert (reply.status_code, reply.json()["parameters"]["model"]) == (200, MODEL)


def test_the_progress_of_a_download_is_told_to_its_end(hub: FakeHub, start: Start) -> None:
    hub.hold = True
    with start() as live:
        assert get_status(live)["status"] == "not_downloaded"
        assert live.get(DOWNLOAD).json()["code"] == "CONFLICT"
        assert live.post(DOWNLOAD).json()["status"] == "downloading"
        first = Listener(live, DOWNLOAD)
        wait_until_half_way(hub, live)
        second = Listener(live, DOWNLOAD)
        wait_until(lambda: bool(second.events))
        resume_download(hub)
        for events in (first.has_ended(), second.has_ended()):
            assert {name for name, _ in events[:-1]} == {"download"}
            shares = [data["progress"] for _, data in events]
            assert shares == sorted(shares)
            name, data = events[-1]
            assert (name, data["model"], data["progress"]) == ("downloaded", MODEL, 1.0)
            assert data["done_bytes"] == data["total_bytes"] > len(hub.files[WEIGHTS])
        assert (get_status(live)["status"], get_status(live)["downloaded"]) == ("ready", True)
        rows = live.get("/api/v1/models").json()["models"]
        assert [row["downloaded"] for row in rows if row["title"] in {MODEL, QUANTIZED}] == [True, True]
        # A late client gets the last event; one that has seen it gets 204, which stops its reconnects.
        assert Listener(live, DOWNLOAD).has_ended() == [first.events[-1]]
        assert live.get(DOWNLOAD, headers={"Last-Event-ID": first.last_id}).status_code == 204
        assert live.post(DOWNLOAD).json()["status"] == "ready"
    assert hub.ranges_asked(WEIGHTS) == [None]


def test_a_download_that_is_stopped_goes_on_where_it_was(hub: FakeHub, start: Start) -> None:
    hub.hold = True
    with start() as live:
        job_id = live.submit(model=MODEL)
        listener = Listener(live, DOWNLOAD)
        wait_until_half_way(hub, live)
        assert live.delete(DOWNLOAD).status_code == 200
        resume_download(hub)
        job = live.wait_for_status(job_id)
        assert (job["status"], job["code"]) == ("failed", "MODEL_DOWNLOAD_FAILED")
        assert "goes on where it stopped" in str(job["error"])
        name, data = listener.has_ended()[-1]
        assert (name, data["code"]) == ("download_failed", "MODEL_DOWNLOAD_FAILED")
        assert live.delete(DOWNLOAD).status_code == 409
        assert get_status(live)["status"] == "not_downloaded"
        assert live.post(f"/api/v1/jobs/{job_id}/retry").json()["status"] == "queued"
        assert live.wait_for_status(job_id)["status"] == "completed"
    assert_continued(hub)


def assert_continued(hub: FakeHub) -> None:
    first, *rest = hub.ranges_asked(WEIGHTS)
    assert first is None
    assert [asked is not None and asked.startswith("bytes=") and asked != "bytes=0-" for asked in rest] == [True]


@pytest.mark.slow
def test_a_download_may_be_started_again_before_it_has_stopped(hub: FakeHub, start: Start) -> None:
    hub.hold = True
    with start() as live:
        job_id = live.submit(model=MODEL)
        wait_until_half_way(hub, live)
        live.delete(DOWNLOAD)
        assert live.post(DOWNLOAD).json()["status"] == "downloading"
        resume_download(hub)
        assert live.wait_for_status(job_id)["status"] == "completed"
    assert_continued(hub)


def test_what_is_missing_for_a_gated_model_is_said_and_once_it_is_there_the_job_is_painted(
    hub: FakeHub, start: Start, tmp_path: Path
) -> None:
    hub.gate = True
    with start() as live:
        job_id = live.submit(model=MODEL)
        job = live.wait_for_status(job_id)
        assert (job["status"], job["code"]) == ("failed", "MODEL_GATED")
        assert "HF_TOKEN" in str(job["error"])
        assert "Accept its licence" in str(job["error"])
        (end,) = Listener(live, f"/api/v1/jobs/{job_id}/stream").has_ended()
        assert (end[0], end[1]["code"]) == ("failed", "MODEL_GATED")
        reply = live.post("/sdapi/v1/txt2img", {"prompt": "x", "model": MODEL})
        assert (reply.status_code, reply.json()["code"]) == (403, "MODEL_GATED")
        (tmp_path / "home").mkdir(exist_ok=True)
        (tmp_path / "home" / "token").write_text(hub.token)
        live.post(f"/api/v1/jobs/{job_id}/retry")
        assert live.wait_for_status(job_id)["status"] == "completed"
        # The log must not contain the token.
        assert not [line for line in live.lines if hub.token in line]


@pytest.mark.slow
def test_a_hub_that_is_ill_fails_the_job_and_a_later_attempt_succeeds(hub: FakeHub, start: Start) -> None:
    hub.error = (500, "Ill", "Internal error of the hub")
    with start() as live:
        job_id = live.submit(model=MODEL)
        job = live.wait_for_status(job_id)
        assert (job["status"], job["code"]) == ("failed", "MODEL_DOWNLOAD_FAILED")
        assert "Internal error of the hub" not in str(job["error"])
        hub.error = None
        live.post(f"/api/v1/jobs/{job_id}/retry")
        assert live.wait_for_status(job_id)["status"] == "completed"


@pytest.mark.slow
def test_without_a_hub_the_job_fails_and_others_are_painted(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with start(endpoint=nobody) as live:
        job = live.wait_for_status(live.submit(model=MODEL))
        assert (job["status"], job["code"]) == ("failed", "MODEL_DOWNLOAD_FAILED")
        assert "cannot be reached" in str(job["error"])
        ((name, data),) = Listener(live, DOWNLOAD).has_ended()
        assert (name, data["code"]) == ("download_failed", "MODEL_DOWNLOAD_FAILED")
        assert live.wait_for_status(live.submit())["status"] == "completed"


@pytest.mark.slow
def test_a_server_that_was_killed_goes_on_with_the_download_and_paints_the_job(hub: FakeHub, start: Start) -> None:
    hub.hold = True
    with start() as live:
        job_id = live.submit(model=MODEL)
        wait_until_half_way(hub, live)
        live.stop(signal.SIGKILL)
    resume_download(hub)
    with start() as live:
        assert live.wait_for_status(job_id)["status"] == "completed"
    assert_continued(hub)


def test_without_downloads_only_what_is_here_is_painted(start: Start, tmp_path: Path) -> None:
    with start("--set", "models.auto_download=false") as live:
        for path in ("/api/v1/generate", "/sdapi/v1/txt2img"):
            reply = live.post(path, {"prompt": "x", "model": MODEL})
            assert (reply.status_code, reply.json()["code"]) == (404, "MODEL_NOT_DOWNLOADED")
            assert str(tmp_path) not in reply.text
        assert live.get("/api/v1/jobs").json()["total"] == 0
        # An explicit download still works.
        live.post(DOWNLOAD)
        assert Listener(live, DOWNLOAD).has_ended()[-1][0] == "downloaded"
        assert live.wait_for_status(live.submit(model=MODEL))["status"] == "completed"


@pytest.mark.slow
def test_a_folder_among_the_models_is_a_model_of_its_own(start: Start, tmp_path: Path) -> None:
    with start() as live:
        shutil.copytree(EMBEDDED_MODELS_DIR / "flux2-tiny", tmp_path / "models" / "my-own")
        job = live.wait_for_status(live.submit(model="my-own"))
        assert (job["status"], job["model"]) == ("completed", "my-own")
        # The list of models is refreshed every ten seconds, and after each download.
        live.post(DOWNLOAD)
        Listener(live, DOWNLOAD).has_ended()
        rows = [row for row in live.get("/api/v1/models").json()["models"] if row["title"] == "my-own"]
        assert [row["downloaded"] for row in rows] == [True]
        found = live.get("/api/v1/models/my-own/status").json()
        assert (found["status"], found["path"]) == ("ready", str((tmp_path / "models" / "my-own").resolve()))


def test_a_model_is_loaded_and_unloaded(server: LiveServer) -> None:
    loaded = [server.post(f"/api/v1/models/flux2-tiny/{verb}").json()["loaded"] for verb in ("load", "load", "unload")]
    assert loaded == [True, True, False]
    assert server.get("/api/v1/models/flux2-tiny/status").json()["loaded"] is False
    assert "flux2-tiny" not in server.get("/api/v1/system").json()["loaded_models"]
    assert server.wait_for_status(server.submit())["status"] == "completed"
    assert server.get("/api/v1/models/flux2-tiny/status").json()["loaded"] is True


def test_what_cannot_come_is_not_asked_for(server: LiveServer) -> None:
    assert server.post("/api/v1/models/no-such-model/download").json()["code"] == "MODEL_NOT_FOUND"
    assert server.post(f"/api/v1/models/{MODEL}/load").json()["code"] == "MODEL_NOT_DOWNLOADED"
