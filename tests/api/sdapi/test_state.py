"""State beyond one request: options, the chosen model, running and waiting jobs, and authentication."""

import base64
import io
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from tests.support.live_server import LiveServer, run_server

pytestmark = pytest.mark.system

API = "/sdapi/v1"
LONG: dict[str, Any] = {"prompt": "a red circle", "width": 128, "height": 128, "steps": 100, "seed": 7}
SHORT = {**LONG, "width": 64, "height": 64, "steps": 1}


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as threads:
        yield threads


def options(live: LiveServer) -> dict[str, Any]:
    found: dict[str, Any] = live.get(f"{API}/options").json()
    return found


def order(
    pool: ThreadPoolExecutor, live: LiveServer, path: str = "txt2img", /, **fields: object
) -> Future[requests.Response]:
    return pool.submit(live.post, f"{API}/{path}", {**LONG, **fields})


def wait_until_idle(live: LiveServer, busy: bool = True) -> dict[str, Any]:
    """Wait until a first step is done, or with `busy=False` until nothing runs; return the progress."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        progress: dict[str, Any] = live.get(f"{API}/progress").json()
        if bool(progress["state"]["sampling_step"]) == busy:
            return progress
        time.sleep(0.02)
    raise AssertionError(progress)


# Options


@pytest.mark.slow
def test_options_and_the_model_outlive_the_server(tmp_path: Path) -> None:
    with run_server(tmp_path / "output") as live:
        changed = {"send_seed": False, "sd_model_checkpoint": "flux2-tiny-4-bit", "CLIP_stop_at_last_layers": 2}
        assert live.post(f"{API}/options", changed).json() is None
        # Like SD-WebUI, the server answers after the model was loaded.
        assert "flux2-tiny-4-bit" in live.get("/api/v1/system").text
    with run_server(tmp_path / "output") as live:
        assert changed.items() <= options(live).items()
        assert live.post(f"{API}/txt2img", SHORT).json()["parameters"]["model"] == "flux2-tiny-4-bit"
        # The documented default is unchanged.
        assert live.wait_for_status(live.submit())["model"] == "flux2-tiny"


def test_options_may_be_sent_back_whole(server: LiveServer) -> None:
    before = options(server)
    assert server.post(f"{API}/options", before).json() is None
    assert options(server) == before


@pytest.mark.parametrize("name", ["flux2-tiny", "FLUX2-TINY.safetensors", "hash", "sha256"])
def test_a_checkpoint_goes_by_all_its_names(server: LiveServer, name: str) -> None:
    row = server.get(f"{API}/sd-models").json()[0]
    assert server.post(f"{API}/options", {"sd_model_checkpoint": row.get(name, name)}).status_code == 200
    assert options(server)["sd_model_checkpoint"] == row["title"] == "flux2-tiny"


def test_an_unknown_checkpoint_changes_nothing(server: LiveServer) -> None:
    before = options(server)
    reply = server.post(f"{API}/options", {"send_seed": not before["send_seed"], "sd_model_checkpoint": "nobody"})
    assert (reply.status_code, reply.json()["error"]) == (500, "RuntimeError")
    assert reply.json()["errors"] == "model 'nobody' not found"
    assert options(server) == before


@pytest.mark.parametrize("wrong", [{"send_seed": "perhaps"}, {"jpeg_quality": [1]}, [1], "text"])
def test_a_wrong_option_is_refused(server: LiveServer, wrong: object) -> None:
    before = options(server)
    assert server.post(f"{API}/options", wrong).status_code == 422
    assert options(server) == before


def test_unknown_options_are_ignored(server: LiveServer) -> None:
    assert server.post(f"{API}/options", {"forge_additional_modules": [], "api_enable_requests": True}).json() is None
    assert not {"forge_additional_modules", "api_enable_requests", "forge_preset"} & set(options(server))


def test_override_settings_are_for_one_request(server: LiveServer) -> None:
    wanted = {"sd_model_checkpoint": "flux2-tiny-8-bit", "sd_vae": "none", "nobody_knows": 1}
    reply = server.post(f"{API}/txt2img", {**SHORT, "override_settings": wanted}).json()
    assert reply["parameters"]["model"] == "flux2-tiny-8-bit"
    assert options(server)["sd_model_checkpoint"] == "flux2-tiny"
    unknown = {"override_settings": {"sd_model_checkpoint": "nobody"}}
    assert server.post(f"{API}/txt2img", {**SHORT, **unknown}).json()["parameters"]["model"] == "flux2-tiny"


def test_override_settings_are_kept_on_request(server: LiveServer) -> None:
    kept = {"override_settings": {"send_size": False}, "override_settings_restore_afterwards": False}
    assert server.post(f"{API}/txt2img", {**SHORT, **kept}).status_code == 200
    assert options(server)["send_size"] is False
    server.post(f"{API}/options", {"send_size": True})


# Running jobs


def test_an_interrupt_is_answered_with_what_there_is(server: LiveServer, pool: ThreadPoolExecutor) -> None:
    running_one = order(pool, server, n_iter=3)
    wait_until_idle(server)
    waiting_one = order(pool, server, **SHORT)
    assert server.post(f"{API}/interrupt").json() == {}
    reply = running_one.result()
    assert reply.status_code == 200
    assert len(reply.json()["images"]) == 1
    # Only the running one.
    assert len(waiting_one.result().json()["images"]) == 1


def test_a_skip_goes_on_with_the_next_picture(server: LiveServer, pool: ThreadPoolExecutor) -> None:
    both = order(pool, server, n_iter=2)
    wait_until_idle(server)
    assert server.post(f"{API}/skip").json() is None
    while wait_until_idle(server)["state"]["job_no"] == 0:
        time.sleep(0.02)
    server.post(f"{API}/interrupt")
    assert len(both.result().json()["images"]) == 2


@pytest.mark.parametrize("fields", [{"enable_hr": True}, {"script_name": "sd upscale", "steps": 20}])
def test_an_interrupt_ends_longer_work_too(
    server: LiveServer, pool: ThreadPoolExecutor, fields: dict[str, Any]
) -> None:
    source = io.BytesIO()
    Image.effect_noise((128, 128), 60).save(source, "PNG")
    picture = {"init_images": [base64.b64encode(source.getvalue()).decode()]}
    path = "img2img" if "script_name" in fields else "txt2img"
    work = order(pool, server, path, **fields, **(picture if path == "img2img" else {}))
    wait_until_idle(server)
    server.post(f"{API}/interrupt")
    assert len(work.result().json()["images"]) == 1


def test_an_idle_interrupt_is_forgotten(server: LiveServer) -> None:
    wait_until_idle(server, busy=False)
    server.post(f"{API}/interrupt")
    server.post(f"{API}/skip")
    first, again = (server.post(f"{API}/txt2img", SHORT).json()["images"] for _ in range(2))
    assert first == again


def test_progress_tells_how_far_it_is(server: LiveServer, pool: ThreadPoolExecutor) -> None:
    work = order(pool, server, n_iter=2, enable_hr=True, hr_scale=1.5)
    progress = wait_until_idle(server)
    state = progress["state"]
    assert 0 < progress["progress"] < 1
    assert (state["job"], state["job_count"], state["job_no"]) == ("scripts_txt2img", 4, 0)
    assert 0 < state["sampling_step"] < state["sampling_steps"]
    # The first preview comes after the first step.
    previews = (server.get(f"{API}/progress?skip_current_image=false").json()["current_image"] for _ in range(100))
    preview = next(filter(None, previews))
    assert Image.open(io.BytesIO(base64.b64decode(preview))).format == "PNG"
    assert server.get(f"{API}/progress?skip_current_image=true").json()["current_image"] is None
    server.post(f"{API}/interrupt")
    work.result()
    idle = wait_until_idle(server, busy=False)
    assert (idle["progress"], idle["eta_relative"], idle["current_image"]) == (0, 0, None)
    assert (idle["state"]["job"], idle["state"]["job_count"]) == ("", 0)


def test_who_polls_is_shown_every_step(server: LiveServer, pool: ThreadPoolExecutor) -> None:
    work = order(pool, server)
    wait_until_idle(server)
    shown: dict[int, str | None] = {}
    while len(shown) < 10 and not work.done():
        time.sleep(0.03)
        progress = server.get(f"{API}/progress").json()
        shown[progress["state"]["sampling_step"]] = progress["current_image"]
    server.post(f"{API}/interrupt")
    work.result()
    # A preview may come after its step. Without a viewer there is one a second, which is some twenty steps.
    assert len(set(shown.values())) > len(shown) / 2 > 2


def test_previews_obey_the_options(server: LiveServer, pool: ThreadPoolExecutor) -> None:
    server.post(f"{API}/options", {"live_previews_enable": False})
    work = order(pool, server)
    wait_until_idle(server)
    # A preview would come with one of the next steps.
    time.sleep(0.2)
    assert server.get(f"{API}/progress").json()["current_image"] is None
    server.post(f"{API}/options", {"live_previews_enable": True})
    server.post(f"{API}/interrupt")
    work.result()


def test_a_task_is_followed_by_the_name_its_client_gave_it(server: LiveServer, pool: ThreadPoolExecutor) -> None:
    def task(name: str) -> dict[str, Any]:
        asked = {"id_task": name, "id_live_preview": -1, "live_preview": True}
        found: dict[str, Any] = server.post("/internal/progress", asked).json()
        return found

    first = order(pool, server, force_task_id="task(one)")
    wait_until_idle(server)
    second = order(pool, server, **{**SHORT, "force_task_id": "task(two)"})
    while server.get("/internal/pending-tasks").json() != {"size": 1, "tasks": ["task(two)"]}:
        time.sleep(0.02)
    one, two = task("task(one)"), task("task(two)")
    assert (one["active"], one["queued"], one["completed"]) == (True, False, False)
    assert one["live_preview"].startswith("data:image/png;base64,")
    assert (two["active"], two["queued"], two["textinfo"]) == (False, True, "In queue...")
    server.post(f"{API}/interrupt")
    first.result()
    second.result()
    assert task("task(one)")["completed"]
    assert task("nobody's") == {**task("task(one)"), "completed": False, "textinfo": "Waiting..."}


def test_a_model_let_go_of_is_loaded_again_with_the_next_picture(server: LiveServer) -> None:
    assert server.post(f"{API}/unload-checkpoint", "").json() == {}
    assert server.post(f"{API}/txt2img", SHORT).status_code == 200
    assert server.post(f"{API}/reload-checkpoint").json() == {}


# Authentication


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with run_server(tmp_path_factory.mktemp("guarded") / "output", "--api-auth", "me:secret,you:o:ther") as live:
        yield live


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({}, "Not authenticated"),
        ({"Authorization": ""}, "Not authenticated"),
        ({"Authorization": "Basic "}, "Not authenticated"),
        ({"Authorization": "Bearer None"}, "Not authenticated"),
        ({"Authorization": "Basic " + base64.b64encode(b"me:wrong").decode()}, "Incorrect username or password"),
        ({"Authorization": "Basic " + base64.b64encode(b"you:secret").decode()}, "Incorrect username or password"),
        ({"Authorization": "Basic " + base64.b64encode(b"nobody:").decode()}, "Incorrect username or password"),
    ],
)
def test_without_the_password_nothing_is_answered(guarded: LiveServer, headers: dict[str, str], words: str) -> None:
    for path in (f"{API}/options", f"{API}/progress", "/internal/pending-tasks"):
        reply = guarded.get(path, headers=headers)
        assert (reply.status_code, reply.json()["detail"], reply.json()["error"]) == (401, words, "HTTPException")
    assert guarded.get("/api/v1/jobs", headers=headers).status_code == 401


@pytest.mark.parametrize("user", [("me", "secret"), ("you", "o:ther")])
def test_a_user_with_the_password_is_let_in(guarded: LiveServer, user: tuple[str, str]) -> None:
    assert guarded.get(f"{API}/cmd-flags", auth=user).status_code == 200
    assert guarded.post(f"{API}/txt2img", SHORT, auth=user).status_code == 200
    assert guarded.get("/api/v1/jobs", auth=user).status_code == 200
    # Neither the flags nor the options contain a secret.
    assert (
        "secret" not in guarded.get(f"{API}/cmd-flags", auth=user).text + guarded.get(f"{API}/options", auth=user).text
    )


def test_a_client_that_asks_for_the_page_finds_no_login(guarded: LiveServer) -> None:
    found = {part["props"]["elem_id"]: part["props"]["choices"] for part in guarded.get("/config").json()["components"]}
    assert {"Latent", "None", "Lanczos"} <= set(found["txt2img_hr_upscaler"])
    assert guarded.get("/internal/ping").json() == {}


@pytest.mark.parametrize("header", ["", "Basic ", "Basic dW5kZWZpbmVk", "Bearer None", "nonsense"])
def test_where_no_password_is_set_none_is_looked_at(server: LiveServer, header: str) -> None:
    assert server.get(f"{API}/options", headers={"Authorization": header}).status_code == 200


def test_lists_answer_while_a_picture_is_painted(server: LiveServer, pool: ThreadPoolExecutor) -> None:
    work = order(pool, server)
    wait_until_idle(server)
    for path in ("options", "sd-models", "samplers", "upscalers", "loras", "memory", "progress", "scripts"):
        assert server.get(f"{API}/{path}").status_code == 200
    assert not work.done()
    server.post(f"{API}/interrupt")
    work.result()


@pytest.mark.parametrize("path", ["png-info", "extra-batch-images"])
def test_a_form_without_what_it_is_about_is_refused_as_sd_webui_does(server: LiveServer, path: str) -> None:
    reply = server.post(f"{API}/{path}", {})
    assert (reply.status_code, reply.json()["detail"][0]["type"]) == (422, "missing")
