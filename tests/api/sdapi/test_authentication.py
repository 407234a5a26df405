"""--api-auth as SD-WebUI's clients use it, and credentials sent to a server without it."""

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import webuiapi
from sd_backend_client import A1111Webservice, AuthError, connect_to_backend

from tests.clients.test_webuiapi import SMALL, client
from tests.support.live_server import LiveServer, run_server
from tests.support.sdwebui_bodies import n8n

pytestmark = pytest.mark.system

OPTIONS = "/sdapi/v1/options"
SECRET, OTHER = ("me", "secret"), ("you", "other")


def basic(text: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = Path(tmp_path_factory.mktemp("locked"))
    with run_server(folder / "output", "--api-auth", "me:secret,you:other") as live:
        yield live


@pytest.mark.parametrize("pair", [SECRET, OTHER])
def test_webuiapi_is_let_in_with_a_name_and_its_password(locked: LiveServer, pair: tuple[str, str]) -> None:
    api = client(locked)
    assert api.get_options()["detail"] == "Not authenticated"
    api.set_auth(*pair)
    assert api.util_get_current_model() == "flux2-tiny"
    assert api.txt2img(**SMALL).image.size == (64, 64)
    api.session.close()


@pytest.mark.parametrize("pair", [("me", "other"), ("you", "secret"), ("nobody", "secret"), ("me", "Secret")])
def test_webuiapi_is_kept_out_with_another(locked: LiveServer, pair: tuple[str, str]) -> None:
    api = client(locked, username=pair[0], password=pair[1])
    assert api.get_options()["detail"] == "Incorrect username or password"
    with pytest.raises(RuntimeError, match="Incorrect username or password") as caught:
        api.txt2img(**SMALL)
    assert caught.value.args[0] == 401
    api.session.close()


def test_sd_backend_client_asks_for_credentials_until_they_are_right(locked: LiveServer) -> None:
    pairs = iter([("me", "wrong"), SECRET])
    backend = connect_to_backend(locked.url, credentials_provider=lambda: next(pairs))
    assert isinstance(backend, A1111Webservice)
    assert backend.progress_check().state.job_count == 0
    backend.disconnect()


@pytest.mark.parametrize("pair", [None, ("me", "wrong")])
def test_sd_backend_client_gives_up_without_them(locked: LiveServer, pair: tuple[str, str] | None) -> None:
    with pytest.raises(AuthError):
        connect_to_backend(locked.url, credentials_provider=lambda: pair)


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", OPTIONS), ("GET", "/sdapi/v1/cmd-flags"), ("POST", "/sdapi/v1/interrupt"), ("GET", "/sdapi/v1/nothing")],
)
def test_all_of_it_is_locked_and_says_so_in_its_own_words(locked: LiveServer, method: str, path: str) -> None:
    reply = requests.request(method, locked.url + path, timeout=60)
    expected = {"error": "HTTPException", "detail": "Not authenticated", "body": "", "errors": ""}
    assert reply.status_code == 401
    assert {name: reply.json()[name] for name in expected} == expected
    assert reply.headers["WWW-Authenticate"].startswith("Basic")


@pytest.mark.parametrize("value", ["", "Basic ", "Basic dW5kZWZpbmVk", "Bearer None", "Basic !", "Basic bWU6"])
def test_what_is_no_name_and_password_lets_nobody_in(locked: LiveServer, value: str) -> None:
    reply = locked.get(OPTIONS, headers={"Authorization": value})
    assert (reply.status_code, reply.json()["error"]) == (401, "HTTPException")


def test_an_empty_password_is_none(locked: LiveServer) -> None:
    for text in ("me", "me:", ":", ":secret", "you:secret"):
        assert locked.get(OPTIONS, headers=basic(text)).status_code == 401
    assert locked.get(OPTIONS, headers=basic("me:secret")).status_code == 200


@pytest.mark.parametrize(
    "value", ["", "Basic ", "Basic dW5kZWZpbmVk", "Bearer None", "Basic Og==", "Basic !", "nonsense", "Basic bWU6c2U="]
)
def test_where_no_password_is_needed_whatever_is_sent_is_ignored(server: LiveServer, value: str) -> None:
    headers = {"Authorization": value}
    assert server.get(OPTIONS, headers=headers).json()["sd_model_checkpoint"] == "flux2-tiny"
    reply = server.post("/sdapi/v1/txt2img", n8n(), headers=headers)
    assert (reply.status_code, len(reply.json()["images"])) == (200, 1)


def test_webuiapi_may_send_a_password_nobody_asked_for(server: LiveServer) -> None:
    api = client(server, username="me", password="secret")
    assert api.util_get_current_model() == "flux2-tiny"
    assert isinstance(api, webuiapi.WebUIApi)
    api.session.close()
