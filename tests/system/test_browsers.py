"""What browsers and proxies need: origins and hosts in every spelling, private networks, errors, closed connections."""

import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from mflux_api.web.static_files import PATHS
from tests.support.live_server import LiveServer, run_server

pytestmark = pytest.mark.system

# As people write them, and as browsers send them.
ORIGINS = {
    "https://Pages.Example/": "https://pages.example",
    "HTTP://LOCALHOST:3000": "http://localhost:3000",
    "https://secure.example:443": "https://secure.example",
    "http://plain.example:80/": "http://plain.example",
    "https://path.example/app/": "https://path.example",
    "https://bücher.example": "https://xn--bcher-kva.example",
    "Chrome-Extension://abcdef/": "chrome-extension://abcdef",
    "app://obsidian.md": "app://obsidian.md",
    "null": "null",
}
FOREIGN = ("https://evil.example", "https://pages.example.evil.example", "http://pages.example", "http://localhost")
DOORS = (
    *("/api/v1/generate", "/sdapi/v1/txt2img", "/v1/images/generations", "/replicate/v1/predictions"),
    *("/flux/v1/flux-dev", "/klein/generate", "/flux2-web/generate", "/edge", "/api/v1/health", "/"),
)


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server for the pages of some origins and two hosts."""
    origins = f"server.cors_origins={','.join(ORIGINS)}"
    hosts = "server.allowed_hosts=Pictures.Test:8080,nas.test."
    output = Path(tmp_path_factory.mktemp("chosen")) / "output"
    with run_server(output, "--set", origins, "--set", hosts) as live:
        yield live


def preflight(live: LiveServer, path: str, origin: str, method: str = "POST") -> requests.Response:
    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": "content-type"}
    headers = {"Origin": origin, "Access-Control-Request-Private-Network": "true", **asked}
    return requests.options(live.url + path, headers=headers, timeout=60)


@pytest.mark.parametrize("path", DOORS)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE"])
def test_a_page_of_the_internet_may_ask_a_server_in_a_private_network(
    server: LiveServer, path: str, method: str
) -> None:
    reply = preflight(server, path, "https://app.example", method)
    assert reply.status_code == 200
    assert reply.headers["Access-Control-Allow-Private-Network"] == "true"


@pytest.mark.parametrize("origin", ORIGINS.values())
def test_an_origin_is_known_however_the_settings_spell_it(chosen: LiveServer, origin: str) -> None:
    reply = preflight(chosen, DOORS[0], origin)
    assert (reply.status_code, reply.headers["Access-Control-Allow-Origin"]) == (200, origin)
    assert reply.headers["Access-Control-Allow-Private-Network"] == "true"
    headers = {"Origin": origin, "Sec-Fetch-Site": "cross-site"}
    assert chosen.post("/api/v1/queue/resume", headers=headers).status_code == 200


@pytest.mark.parametrize("origin", FOREIGN)
def test_other_origins_are_not_let_in(chosen: LiveServer, origin: str) -> None:
    reply = preflight(chosen, DOORS[0], origin)
    assert reply.status_code == 400
    assert not {"Access-Control-Allow-Origin", "Access-Control-Allow-Private-Network"} & set(reply.headers)
    assert chosen.post("/api/v1/queue/resume", headers={"Origin": origin}).status_code == 403


@pytest.mark.parametrize("host", ["pictures.test", "PICTURES.test:7861", "pictures.test.", "nas.test", "nas.test.:80"])
def test_a_host_is_known_in_every_spelling(chosen: LiveServer, host: str) -> None:
    assert chosen.get("/api/v1/health", headers={"Host": host}).status_code == 200


def test_a_page_behind_a_proxy_that_renames_the_host_is_the_servers_own(chosen: LiveServer) -> None:
    headers = {"Origin": "http://nas:8080", "X-Forwarded-Host": "nas:8080"}
    assert chosen.post("/api/v1/queue/resume", headers=headers).status_code == 200


# The page


@pytest.mark.parametrize("path", ["/flux2-web", "/flux2-web/"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_root_of_the_web_servers_api_leads_to_the_page(guarded: LiveServer, path: str, method: str) -> None:
    reply = requests.request(method, guarded.url + path, timeout=60)
    assert (reply.status_code, urlsplit(reply.url).path) == (200, "/")
    assert reply.headers["Content-Type"].startswith("text/html")


def test_the_page_works_on_the_port_of_the_web_servers_api(tmp_path: Path, free_tcp_port: int) -> None:
    ports = f"dialects.ports=flux2-web:{free_tcp_port}"
    with run_server(tmp_path / "output", "--root-dialect", "flux2-web", "--set", ports):
        url = f"http://127.0.0.1:{free_tcp_port}"
        for path in [*PATHS, "/openapi.json", "/api/v1/health", "/status"]:
            assert requests.get(url + path, timeout=60).status_code == 200, path
        assert "/studio/app.js" in requests.get(f"{url}/flux2-web/", timeout=60).text


# Closed connections


def test_a_client_that_waits_to_send_its_body_is_told_that_the_connection_closes(guarded: LiveServer) -> None:
    address = urlsplit(guarded.url)
    connection = HTTPConnection(address.hostname or "", address.port or 0, timeout=30)
    headers = {"Expect": "100-continue", "Content-Type": "application/json", "Content-Length": "10"}
    connection.request("POST", DOORS[0], headers=headers)
    reply = connection.getresponse()
    assert (reply.status, reply.getheader("Connection")) == (401, "close")
    reply.read()
    connection.close()


def test_replies_of_a_server_that_stops_close_their_connections(tmp_path: Path) -> None:
    with run_server(tmp_path / "output") as live, requests.Session() as session:
        live.post("/api/v1/queue/pause")
        order = {"prompt": "a red circle", "width": 64, "height": 64, "steps": 1}
        replies: list[requests.Response] = []
        waiting = threading.Thread(
            target=lambda: replies.append(session.post(f"{live.url}/sdapi/v1/txt2img", json=order, timeout=60))
        )
        waiting.start()
        while not live.get("/api/v1/queue").json()["length"]:
            time.sleep(0.05)
        live.stop()
        waiting.join()
    assert (replies[0].status_code, replies[0].headers.get("Connection")) == (503, "close")
