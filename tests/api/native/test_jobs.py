"""States, results and cancellation of jobs over HTTP."""

import base64
import io
import json
import re
import signal
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from mflux_api.pixels import infotext
from tests.support.live_server import LiveServer, run_server
from tests.support.waiting import wait_until

pytestmark = pytest.mark.system

LONG = {"width": 256, "height": 256, "steps": 100}
USER_COMMENT, EXIF = 0x9286, 0x8769


def encode_base64(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def noise(side: int = 64) -> Image.Image:
    return Image.effect_noise((side, side), 60).convert("RGB")


def pixels(job: dict[str, Any], index: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    data = base64.b64decode(job["result"]["images"][index])
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.fixture
def paused_server(server: LiveServer) -> Any:
    """Pause the queue during the test, then cancel the waiting jobs and resume."""
    server.post("/api/v1/queue/pause")
    yield server
    for job in server.get("/api/v1/jobs?status=queued&limit=200").json()["jobs"]:
        server.delete(f"/api/v1/jobs/{job['id']}")
    server.post("/api/v1/queue/resume")


def test_the_line_is_by_priority_and_then_by_submission(paused_server: LiveServer) -> None:
    first, second, urgent = (paused_server.submit(priority=priority) for priority in (0, 0, 5))
    queued = paused_server.get("/api/v1/queue").json()["queued"]
    assert [row["job_id"] for row in queued] == [urgent, first, second]
    assert [row["position"] for row in queued] == [1, 2, 3]
    assert paused_server.get_job(second)["position"] == 3


def test_a_waiting_job_is_moved_in_the_line_and_everybody_sees_the_same_order(paused_server: LiveServer) -> None:
    jobs = [paused_server.submit() for _ in range(4)]
    reply = paused_server.post(f"/api/v1/jobs/{jobs[3]}/move", {"position": 1})
    assert reply.json() == {"job_id": jobs[3], "status": "queued", "position": 1}
    assert paused_server.post(f"/api/v1/jobs/{jobs[0]}/move", {"position": 100}).json()["position"] == 4
    queued = paused_server.get("/api/v1/queue").json()["queued"]
    expected = [jobs[3], jobs[1], jobs[2], jobs[0]]
    assert [row["job_id"] for row in queued] == expected
    assert [paused_server.get_job(job_id)["position"] for job_id in expected] == [1, 2, 3, 4]
    paused_server.post("/api/v1/queue/resume")
    ended = [str(paused_server.wait_for_status(job_id)["started_at"]) for job_id in expected]
    assert ended == sorted(ended)


@pytest.mark.slow
def test_a_moved_job_is_told_of_and_stays_there_over_a_restart(tmp_path: Path) -> None:
    with run_server(tmp_path / "output") as live:
        live.post("/api/v1/queue/pause")
        jobs = [live.submit() for _ in range(3)]
        with live.get("/api/v1/events", stream=True) as stream:
            lines = stream.iter_lines(decode_unicode=True)
            next(lines)
            live.post(f"/api/v1/jobs/{jobs[2]}/move", {"position": 1})
            assert next(line for line in lines if line.startswith("event:")) == "event: moved"
            data = next(lines).removeprefix("data: ")
            assert json.loads(data) == {"job_id": jobs[2], "position": 1}
        live.stop(signal.SIGKILL)
    with run_server(tmp_path / "output") as live:
        started = [str(live.wait_for_status(job_id)["completed_at"]) for job_id in (jobs[2], jobs[0], jobs[1])]
        assert started == sorted(started)


@pytest.mark.parametrize("body", [{}, {"position": 0}, {"position": -1}, {"position": "x"}, {"position": None}, []])
def test_a_position_that_cannot_be_is_refused(paused_server: LiveServer, body: object) -> None:
    job_id = paused_server.submit()
    reply = paused_server.post(f"/api/v1/jobs/{job_id}/move", body)
    assert (reply.status_code, reply.json()["code"]) == (400, "INVALID_REQUEST")
    assert paused_server.get_job(job_id)["position"] == 1


def test_only_a_waiting_job_can_be_moved(server: LiveServer) -> None:
    job_id = server.submit()
    server.wait_for_status(job_id)
    for name, status, code in ((job_id, 409, "CONFLICT"), ("nothing", 404, "JOB_NOT_FOUND")):
        reply = server.post(f"/api/v1/jobs/{name}/move", {"position": 1})
        assert (reply.status_code, reply.json()["code"]) == (status, code)


def test_the_line_says_of_each_job_what_it_is(server: LiveServer) -> None:
    running_one, waiting = server.submit(**LONG), server.submit(prompt="x" * 300, num_images=2, width=128)
    server.wait_for_status(running_one, "generating")
    queue = server.get("/api/v1/queue").json()
    active, (queued,) = queue["active"], queue["queued"]
    common = {"job_id", "prompt", "model", "width", "height", "num_images", "created_at", "eta_seconds"}
    assert (set(active), set(queued)) == (common | {"progress"}, common | {"position"})
    assert (active["width"], active["height"], active["num_images"]) == (256, 256, 1)
    assert (queued["width"], queued["height"], queued["num_images"], len(queued["prompt"])) == (128, 64, 2, 200)
    assert {row["model"] for row in (active, queued)} == {"flux2-tiny"}
    assert queued["created_at"] == server.get_job(waiting)["created_at"]
    server.delete(f"/api/v1/jobs/{running_one}")
    server.wait_for_status(waiting)


def test_a_full_queue_takes_no_more_and_says_when_to_come_back(tmp_path: Path) -> None:
    with run_server(tmp_path / "output", "--set", "queue.limit=2") as live:
        live.post("/api/v1/queue/pause")
        with ThreadPoolExecutor(8) as clients:
            replies = clients.map(lambda _: live.post("/api/v1/generate", {"prompt": "x"}).status_code, range(8))
        assert Counter(replies) == {200: 2, 503: 6}
        assert live.get("/api/v1/queue").json()["length"] == live.get("/api/v1/jobs").json()["total"] == 2
        for path in ("/api/v1/generate", "/sdapi/v1/txt2img"):
            reply = live.post(path, {"prompt": "x"})
            assert (reply.status_code, reply.json()["code"]) == (503, "QUEUE_FULL")
            assert int(reply.headers["Retry-After"]) > 0


def test_an_order_with_a_key_is_made_once(paused_server: LiveServer) -> None:
    body = {"prompt": "x", "width": 64, "height": 64}
    headers = {"Idempotency-Key": "mine"}
    replies = [paused_server.post("/api/v1/generate", body, headers=headers).json()["job_id"] for _ in range(3)]
    assert len(set(replies)) == 1
    other = paused_server.post("/api/v1/generate", {**body, "prompt": "y"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (409, "CONFLICT")


def test_a_pause_lets_the_running_job_end_and_starts_no_other(server: LiveServer) -> None:
    running_one, waiting = server.submit(**{**LONG, "steps": 10}), server.submit()
    server.wait_for_status(running_one, "generating")
    assert server.post("/api/v1/queue/pause").json() == {"paused": True}
    assert server.wait_for_status(running_one)["status"] == "completed"
    assert server.get("/api/v1/queue").json()["paused"] is True
    assert server.get_job(waiting)["status"] == "queued"
    assert server.post("/api/v1/queue/resume").json() == {"paused": False}
    assert server.wait_for_status(waiting)["status"] == "completed"


def test_a_job_says_what_each_of_its_pictures_took(server: LiveServer) -> None:
    job: Any = server.wait_for_status(server.submit(num_images=2))
    assert len(job["result"]["timings"]) == 2
    for took in job["result"]["timings"]:
        assert took.keys() == {"encoding", "diffusion", "decoding", "total"}
        assert 0 < took["diffusion"] + took["decoding"] <= took["total"]


def test_a_job_tried_again_paints_the_seeds_that_were_drawn_for_it(paused_server: LiveServer) -> None:
    job_id = paused_server.submit(num_images=2)
    drawn: Any = paused_server.get_job(job_id)["parameters"]
    paused_server.delete(f"/api/v1/jobs/{job_id}")
    paused_server.post(f"/api/v1/jobs/{job_id}/retry")
    paused_server.post("/api/v1/queue/resume")
    job: dict[str, Any] = paused_server.wait_for_status(job_id)
    assert job["result"]["seeds"] == [drawn["seed"], drawn["seed"] + 1]


def test_a_cancelled_job_keeps_the_pictures_it_had_finished(server: LiveServer) -> None:
    job_id = server.submit(**{**LONG, "steps": 8}, num_images=4)
    wait_until(lambda: server.get(f"/api/v1/jobs/{job_id}/images/0").status_code == 200)
    server.delete(f"/api/v1/jobs/{job_id}")
    job: dict[str, Any] = server.wait_for_status(job_id)
    assert job["status"] == "cancelled"
    assert 1 <= len(job["result"]["images"]) < 4
    assert pixels(job).shape == (256, 256, 3)


def test_a_queued_job_is_cancelled_at_once_and_can_be_tried_again(paused_server: LiveServer) -> None:
    job_id = paused_server.submit(seed=3)
    assert paused_server.delete(f"/api/v1/jobs/{job_id}").json() == {"status": "cancelled"}
    assert paused_server.delete(f"/api/v1/jobs/{job_id}").json() == {"status": "cancelled"}
    assert paused_server.post(f"/api/v1/jobs/{job_id}/retry").json()["status"] == "queued"
    paused_server.post("/api/v1/queue/resume")
    assert paused_server.wait_for_status(job_id)["result"] == {**paused_server.get_job(job_id)["result"], "seeds": [3]}  # type: ignore[dict-item]
    reply = paused_server.delete(f"/api/v1/jobs/{job_id}")
    assert (reply.status_code, reply.json()["details"]) == (409, {"status": "completed"})
    assert paused_server.post(f"/api/v1/jobs/{job_id}/retry").status_code == 409


def count_steps(live: LiveServer) -> float:
    """Return how many steps the server has painted."""
    return sum(map(float, re.findall(r"^mflux_step_seconds_count{.*} (.*)$", live.get("/metrics").text, re.MULTILINE)))


def test_a_running_job_is_cancelled_within_a_step_and_the_next_one_painted(server: LiveServer) -> None:
    job_id, following = server.submit(**LONG), server.submit()
    before = count_steps(server)
    wait_until(lambda: float(str(server.get_job(job_id)["progress"])) > 0)
    server.delete(f"/api/v1/jobs/{job_id}")
    assert server.get_job(job_id)["status"] == "cancelled"
    assert server.wait_for_status(following)["status"] == "completed"
    assert count_steps(server) - before < LONG["steps"]


def test_a_picture_can_be_had_as_a_file_in_three_formats(server: LiveServer) -> None:
    job_id = server.submit()
    job: dict[str, Any] = server.wait_for_status(job_id)
    png, jpeg, webp = (server.get(f"/api/v1/jobs/{job_id}/images/0?format={form}") for form in ("png", "jpeg", "webp"))
    assert png.content == base64.b64decode(job["result"]["images"][0])
    for reply, form in ((jpeg, "JPEG"), (webp, "WEBP")):
        image = Image.open(io.BytesIO(reply.content))
        assert (image.format, image.size) == (form, (64, 64))
        text = image.getexif().get_ifd(EXIF)[USER_COMMENT]
        assert "Steps: 1, Sampler: Euler" in text.removeprefix(b"UNICODE\0").decode("utf-16-be")


@pytest.mark.parametrize("prompt", ["a fox, 狐\nin snow", ""])
def test_a_picture_carries_the_same_text_in_every_format(server: LiveServer, prompt: str) -> None:
    job_id = server.submit(prompt=prompt)
    server.wait_for_status(job_id)
    files = [server.get(f"/api/v1/jobs/{job_id}/images/0?format={form}").content for form in ("png", "jpeg", "webp")]
    text, *others = [infotext.read_infotext(data)[0] for data in files]
    assert infotext.parse_infotext(text)["Prompt"] == prompt
    assert others == [text, text]


@pytest.mark.parametrize("index", ["1", "-1", "00", "0x0", "9" * 30, "first"])
def test_a_picture_that_there_is_not_is_not_found(server: LiveServer, index: str) -> None:
    job_id = server.submit()
    server.wait_for_status(job_id)
    missing = server.get(f"/api/v1/jobs/{job_id}/images/{index}")
    assert (missing.status_code, missing.json()["code"]) == (404, "PICTURE_NOT_FOUND")


def test_strength_0_gives_the_source_back(server: LiveServer) -> None:
    source = noise()
    job = server.wait_for_status(server.submit(init_images=[encode_base64(source)], image_strength=0))
    assert (pixels(job) == np.asarray(source)).all()


def test_a_mask_leaves_what_is_black_as_it_was(server: LiveServer) -> None:
    source, mask = noise(), Image.new("L", (64, 64))
    mask.paste(255, (32, 0, 64, 64))
    order = {"init_images": [encode_base64(source)], "mask": encode_base64(mask), "image_strength": 1, "steps": 2}
    made = pixels(server.wait_for_status(server.submit(**order)))
    assert (made[:, :32] == np.asarray(source)[:, :32]).all()
    assert (made[:, 32:] != np.asarray(source)[:, 32:]).any()


def test_references_are_looked_at(server: LiveServer) -> None:
    plain, referring = (
        server.wait_for_status(server.submit(seed=1, extra_images=extra)) for extra in ([], [encode_base64(noise())])
    )
    assert (pixels(plain) != pixels(referring)).any()


def test_a_seed_paints_the_same_picture_again_and_in_a_batch(server: LiveServer) -> None:
    batch = server.wait_for_status(server.submit(seed=10, num_images=3))
    assert batch["result"]["seeds"] == [10, 11, 12]  # type: ignore[index]
    assert (pixels(server.wait_for_status(server.submit(seed=11))) == pixels(batch, 1)).all()


def test_the_list_is_paged_and_filtered_and_never_holds_pictures(server: LiveServer) -> None:
    made = [server.submit() for _ in range(3)]
    server.wait_for_status(made[-1])
    page = server.get("/api/v1/jobs?limit=2").json()
    assert [row["id"] for row in page["jobs"]] == made[:0:-1]
    following = server.get(f"/api/v1/jobs?limit=2&before={page['next']}").json()
    assert following["jobs"][0]["id"] == made[0]
    assert {row["status"] for row in server.get("/api/v1/jobs?status=completed").json()["jobs"]} == {"completed"}
    assert not {"result", "images"} & set(page["jobs"][0])
    assert server.get(f"/api/v1/jobs/{made[0]}?images=false").json()["result"]["images"] == []


def test_a_job_that_fails_says_why_through_either_door(server: LiveServer) -> None:
    broken = base64.b64encode(base64.b64decode(encode_base64(noise()))[:200]).decode()
    job = server.wait_for_status(server.submit(init_images=[broken]))
    assert (job["status"], job["code"], job["result"]) == ("failed", "INVALID_IMAGE", None)
    reply = server.post("/sdapi/v1/img2img", {"prompt": "x", "init_images": [broken]})
    assert (reply.status_code, reply.json()["code"], reply.json()["error"]) == (400, "INVALID_IMAGE", job["error"])


def send_and_wait_unread(live: LiveServer) -> socket.socket:
    """Send an order to txt2img without reading the reply, and return the connection."""
    address = urlsplit(live.url)
    body = json.dumps({"prompt": "nobody waits", **LONG}).encode()
    head = f"POST /sdapi/v1/txt2img HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: application/json\r\n"
    sock = socket.create_connection((str(address.hostname), int(address.port or 0)))
    sock.sendall(head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return sock


def test_a_client_that_hangs_up_before_its_turn_takes_its_job_out_of_the_line(paused_server: LiveServer) -> None:
    with send_and_wait_unread(paused_server):
        wait_until(lambda: paused_server.get("/api/v1/queue").json()["length"] == 1)
        (row,) = paused_server.get("/api/v1/queue").json()["queued"]
    assert paused_server.wait_for_status(row["job_id"])["status"] == "cancelled"
    assert paused_server.get("/api/v1/queue").json()["length"] == 0


def test_a_client_that_hangs_up_cancels_its_job(server: LiveServer) -> None:
    with send_and_wait_unread(server):
        wait_until(lambda: server.get("/api/v1/queue").json()["active"] is not None)
    (row,) = server.get("/api/v1/jobs?limit=1").json()["jobs"]
    assert server.wait_for_status(row["id"])["status"] == "cancelled"
    assert server.wait_for_status(server.submit())["status"] == "completed"


def test_a_restart_keeps_jobs_pictures_keys_and_sums(tmp_path: Path) -> None:
    output = tmp_path / "output"
    headers = {"Idempotency-Key": "mine"}
    with run_server(output) as live:
        done = live.submit(seed=5)
        before = live.wait_for_status(done)
        live.post("/api/v1/queue/pause")
        waiting = live.submit()
        keyed = live.post("/api/v1/generate", {"prompt": "x", "width": 64, "height": 64}, headers=headers).json()
        live.stop(signal.SIGKILL)
    with run_server(output) as live:
        assert live.wait_for_status(done)["result"] == before["result"]
        assert live.wait_for_status(waiting)["status"] == "completed"
        again = live.post("/api/v1/generate", {"prompt": "x", "width": 64, "height": 64}, headers=headers).json()
        assert again["job_id"] == keyed["job_id"]
        live.wait_for_status(keyed["job_id"])
        stats = live.get("/api/v1/stats").json()
        assert (stats["total_generations"], stats["total_images"]) == (3, 3)


@pytest.mark.slow
def test_a_job_that_was_running_whenever_the_server_was_killed_fails_at_last(tmp_path: Path) -> None:
    output, once = tmp_path / "output", ("--set", "queue.tries=1")
    with run_server(output, *once) as live:
        job_id = live.submit(**LONG)
        live.wait_for_status(job_id, "generating")
        live.stop(signal.SIGKILL)
    with run_server(output, *once) as live:
        job = live.wait_for_status(job_id)
        assert (job["status"], job["code"], job["attempts"]) == ("failed", "INTERRUPTED", 1)
        assert live.wait_for_status(live.submit())["status"] == "completed"


def test_the_time_left_is_learned(server: LiveServer) -> None:
    order = {"width": 128, "height": 128, "steps": 4}
    server.wait_for_status(server.submit(**order))
    server.post("/api/v1/queue/pause")
    job_id = server.submit(**order)
    queued = server.get("/api/v1/queue").json()["queued"]
    server.post("/api/v1/queue/resume")
    assert 0 < queued[0]["eta_seconds"] < 60
    server.wait_for_status(job_id)
