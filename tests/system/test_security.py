"""API keys, tokens, allowed hosts and origins, rate limits, paths and security headers."""

import base64
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests

from mflux_api.web.static_files import PATHS
from tests.support.live_server import LiveServer, run_server
from tests.support.paths import ROOT
from tests.support.waiting import wait_until

pytestmark = pytest.mark.system

ALICE, BOB = "alice-key-1", "bob-key-2"
OPEN = {"/api/v1/health", "/openapi.json", "/config", "/internal/ping", *PATHS}
GENERATE = "/api/v1/generate"
TXT2IMG = "/sdapi/v1/txt2img"
# Streams that do not end: their bodies must not be read to the end.
STREAMS = ("/stream", "/events", "/download")
EVIL = "http://evil.test"
ORDER: dict[str, object] = {"prompt": "a red circle", "width": 64, "height": 64, "steps": 1}


def setting(*values: str) -> list[str]:
    return [part for value in values for part in ("--set", value)]


def basic(user: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(user.encode()).decode()}"}


def routes(server: LiveServer) -> list[tuple[str, str]]:
    """Every method and path, with 0 for each parameter of a path."""
    paths: dict[str, dict[str, object]] = server.get("/openapi.json").json()["paths"]
    listed = [(method.upper(), re.sub(r"\{\w+\}", "0", path)) for path, found in paths.items() for method in found]
    return [*listed, *(("GET", path) for path in sorted(OPEN - set(paths)))]


def status_of(server: LiveServer, method: str, path: str, headers: dict[str, str] | None = None) -> int:
    """Request the path and return the status without reading the body, which may be an endless stream."""
    with requests.request(
        method, server.url + path, headers=headers, timeout=60, allow_redirects=False, stream=True
    ) as reply:
        return reply.status_code


def raw(method: str, url: str, **headers: str) -> requests.Response:
    """Send a request to exactly this address, without normalising dots or quoting again."""
    prepared = requests.Request(method, url, headers=headers).prepare()
    prepared.url = url
    with requests.Session() as session:
        return session.send(prepared, timeout=60, allow_redirects=False)


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Run a server with two API keys."""
    folder = Path(tmp_path_factory.mktemp("locked"))
    chosen = setting(f"security.api_keys=alice:{ALICE},bob:{BOB}")
    with run_server(folder / "output", *chosen) as live:
        yield live


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Run a server that allows one host and two origins."""
    folder = Path(tmp_path_factory.mktemp("narrow"))
    origins = "server.cors_origins=http://pages.test,http://localhost:3000"
    with run_server(folder / "output", *setting("server.allowed_hosts=pictures.test", origins)) as live:
        yield live


# Keys


def test_every_route_but_the_open_ones_needs_a_key(locked: LiveServer) -> None:
    listed = routes(locked)
    assert len(listed) >= 25
    for method, path in listed:
        status = status_of(locked, method, path)
        assert (status == 401) == (path not in OPEN), (method, path, status)


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PUT"])
@pytest.mark.parametrize("path", ["/nothing", "/api/v1/jobs/", "//api/v1/jobs", "/api/v1/health/../jobs", "/docs/x"])
def test_addresses_that_are_no_routes_need_a_key_as_well(locked: LiveServer, method: str, path: str) -> None:
    assert raw(method, locked.url + path).status_code == 401


def test_a_refusal_says_what_to_send(locked: LiveServer) -> None:
    reply = locked.get("/api/v1/jobs")
    content = reply.json()
    assert (content["code"], content["request_id"]) == ("UNAUTHORIZED", reply.headers["X-Request-ID"])
    assert reply.headers["WWW-Authenticate"] == "Bearer"
    assert "detail" in locked.post(TXT2IMG, ORDER).json()
    assert locked.post(TXT2IMG, ORDER).headers["WWW-Authenticate"].startswith("Basic ")


@pytest.mark.parametrize("key", [ALICE, BOB])
@pytest.mark.parametrize(
    "name", ["X-API-Key: {}", "Authorization: Bearer {}", "authorization: bearer  {}", "Authorization: {}"]
)
def test_a_key_is_taken_in_every_form(locked: LiveServer, name: str, key: str) -> None:
    header, _, value = name.format(key).partition(": ")
    for path in ("/api/v1/jobs", "/metrics"):
        assert locked.get(path, headers={header: value}).status_code == 200
    assert locked.get("/sdapi/v1/nothing", headers={header: value}).status_code == 404


@pytest.mark.parametrize("user", [f"anybody:{ALICE}", f":{BOB}", f"{ALICE}:", ALICE])
def test_basic_is_for_sdapi_only(locked: LiveServer, user: str) -> None:
    assert locked.get("/sdapi/v1/nothing", headers=basic(user)).status_code == 404
    assert locked.get("/api/v1/jobs", headers=basic(user)).status_code == 401
    assert locked.get("/metrics", headers=basic(user)).status_code == 401


WRONG = ["", "wrong", "alice", ALICE[:-1], f"{ALICE}x", ALICE.upper(), f"alice:{ALICE}", f"{ALICE},{BOB}", "ä"]


@pytest.mark.parametrize("key", WRONG)
def test_a_wrong_key_is_refused_in_every_form(locked: LiveServer, key: str) -> None:
    sent = key.encode("latin-1")
    for headers in ({"X-API-Key": sent}, {"Authorization": b"Bearer " + sent}, {"Authorization": sent}):
        assert locked.get("/api/v1/jobs", headers=headers).status_code == 401
    assert locked.post(TXT2IMG, ORDER, headers=basic(f"alice:{key}x")).status_code == 401


@pytest.mark.parametrize("text", ["Basic", "Basic !", "Basic /w==", "Bearer", "Bearer x y", "Digest x", ""])
def test_a_broken_authorization_is_refused(locked: LiveServer, text: str) -> None:
    assert locked.post(TXT2IMG, ORDER, headers={"Authorization": text}).status_code == 401


def test_a_key_in_the_address_is_no_key(locked: LiveServer) -> None:
    for name in ("token", "key", "api_key", "x-api-key"):
        assert status_of(locked, "GET", f"/api/v1/events?{name}={ALICE}") == 401


def test_without_keys_anybody_is_let_in(server: LiveServer) -> None:
    assert server.get("/api/v1/jobs", headers={"X-API-Key": "anything"}).status_code == 200


# Tokens


def token_of(server: LiveServer, key: str = ALICE) -> str:
    reply = server.post("/api/v1/token", headers={"X-API-Key": key})
    assert reply.status_code == 200
    token: str = reply.json()["token"]
    return token


def test_a_token_opens_streams_and_nothing_else(locked: LiveServer) -> None:
    token = token_of(locked)
    assert status_of(locked, "GET", f"/api/v1/events?token={token}") == 200
    for method, path in routes(locked):
        if path not in OPEN and not (method == "GET" and path.endswith(STREAMS)):
            assert status_of(locked, method, f"{path}?token={token}") == 401, (method, path)
    headers: Any = {"X-API-Key": token}
    assert locked.get("/api/v1/jobs", headers=headers).status_code == 401


def test_a_token_shows_a_job_to_its_end(locked: LiveServer) -> None:
    job_id = locked.post(GENERATE, ORDER, headers={"X-API-Key": ALICE}).json()["job_id"]
    reply = locked.get(f"/api/v1/jobs/{job_id}/stream?token={token_of(locked, BOB)}")
    assert "event: complete" in reply.text


def test_a_token_expires(tmp_path: Path) -> None:
    chosen = setting(f"security.api_keys=alice:{ALICE},bob:{BOB}", "security.token_seconds=1")
    with run_server(tmp_path / "output", *chosen) as live:
        token = token_of(live)
        wait_until(lambda: status_of(live, "GET", f"/api/v1/events?token={token}") == 401)


def test_a_token_is_good_for_one_run_of_the_server(locked: LiveServer, tmp_path: Path) -> None:
    chosen = setting(f"security.api_keys=alice:{ALICE},bob:{BOB}")
    with run_server(tmp_path / "output", *chosen) as other:
        token = token_of(other)
        assert status_of(other, "GET", f"/api/v1/events?token={token}") == 200
        assert status_of(locked, "GET", f"/api/v1/events?token={token}") == 401


@pytest.mark.parametrize("change", ["later", "owner", "cut", "empty", "noise", "bytes"])
def test_a_token_that_was_changed_is_refused(locked: LiveServer, change: str) -> None:
    token = token_of(locked)
    text = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode()
    expires, owner, signature = text.split(".")
    changed = {
        "later": base64.urlsafe_b64encode(f"{int(expires) + 1000}.{owner}.{signature}".encode()).decode(),
        "owner": base64.urlsafe_b64encode(f"{expires}.bob.{signature}".encode()).decode(),
        "cut": token[:-4],
        "empty": "",
        "noise": "x" * 1000,
        "bytes": "%ff%00%C3",
    }
    assert status_of(locked, "GET", f"/api/v1/events?token={changed[change]}") == 401


# Hosts


@pytest.mark.parametrize(
    "host", ["evil.test", "evil.test:80", "pictures.test.evil.test", "127.0.0.1.evil.test", "xlocalhost", "0.0.0.0"]
)
def test_another_host_is_refused_everywhere(narrow: LiveServer, host: str) -> None:
    listed = routes(narrow) if host == "evil.test" else [("GET", "/"), ("POST", GENERATE)]
    for method, path in [*listed, ("GET", "/nothing"), ("GET", "/sdapi/v1/nothing"), ("OPTIONS", GENERATE)]:
        assert status_of(narrow, method, path, {"Host": host}) == 403, (method, path)
    reply = narrow.get("/api/v1/jobs", headers={"Host": host})
    assert reply.json()["code"] == "HOST_REFUSED"
    assert reply.json()["request_id"] == reply.headers["X-Request-ID"]


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:7861", "[::1]:7861", "pictures.test", "Pictures.Test:8080"],
)
def test_its_own_names_are_answered(narrow: LiveServer, host: str) -> None:
    assert narrow.get("/api/v1/jobs", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["a/api/v1/health?x=", "a/docs", "@", "a#"])
def test_a_host_that_looks_like_a_path_opens_nothing(locked: LiveServer, host: str) -> None:
    assert status_of(locked, "GET", "/api/v1/jobs", {"Host": host}) in {400, 401}


def test_by_default_every_host_is_answered(server: LiveServer) -> None:
    assert server.get("/api/v1/jobs", headers={"Host": "evil.test"}).status_code == 200


# Other origins


def preflight(server: LiveServer, method: str, origin: str = EVIL) -> requests.Response:
    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": "content-type,x-api-key"}
    return requests.options(server.url + GENERATE, headers={"Origin": origin, **asked}, timeout=60)


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_by_default_pages_of_any_origin_may_ask(server: LiveServer, method: str) -> None:
    reply = preflight(server, method)
    assert reply.status_code == 200
    assert reply.headers["Access-Control-Allow-Origin"] == "*"
    assert method in reply.headers["Access-Control-Allow-Methods"]
    assert "content-type" in reply.headers["Access-Control-Allow-Headers"].lower()


@pytest.mark.parametrize(
    "path", ["/api/v1/health", "/api/v1/nothing", "/sdapi/v1/nothing", "/api/v1/jobs/nothing/stream"]
)
def test_replies_and_errors_may_be_read_by_any_page_but_not_with_cookies(server: LiveServer, path: str) -> None:
    reply = server.get(path, headers={"Origin": EVIL})
    assert reply.headers["Access-Control-Allow-Origin"] == "*"
    assert "Access-Control-Allow-Credentials" not in reply.headers
    assert "X-Request-ID" in reply.headers["Access-Control-Expose-Headers"]


def test_a_preflight_needs_no_key_and_a_refusal_can_be_read(locked: LiveServer) -> None:
    assert preflight(locked, "POST").status_code == 200
    reply = locked.post(GENERATE, ORDER, headers={"Origin": EVIL})
    assert (reply.status_code, reply.headers["Access-Control-Allow-Origin"]) == (401, "*")


@pytest.mark.parametrize("origin", ["http://pages.test", "http://localhost:3000"])
@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_chosen_origins_may_ask(narrow: LiveServer, origin: str, method: str) -> None:
    assert preflight(narrow, method, origin).headers["Access-Control-Allow-Origin"] == origin
    reply = narrow.get("/api/v1/jobs", headers={"Origin": origin})
    assert reply.headers["Access-Control-Allow-Origin"] == origin
    assert "Origin" in reply.headers["Vary"]


@pytest.mark.parametrize(
    "origin", [EVIL, "null", "http://pages.test.evil.test", "https://pages.test", "http://localhost:3001"]
)
def test_other_origins_than_the_chosen_may_not(narrow: LiveServer, origin: str) -> None:
    reply = preflight(narrow, "POST", origin)
    assert reply.status_code == 400
    assert "Access-Control-Allow-Origin" not in reply.headers
    assert "Access-Control-Allow-Origin" not in narrow.get("/api/v1/jobs", headers={"Origin": origin}).headers


FORMS = [
    *("text/plain", "text/plain;charset=UTF-8", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"),
    *("", "application/jsonp", "text/html", "text/plain; application/json", "application/octet-stream"),
]


@pytest.mark.parametrize("path", [GENERATE, TXT2IMG, "/sdapi/v1/img2img"])
@pytest.mark.parametrize("kind", FORMS)
def test_what_a_page_can_send_without_asking_is_refused(server: LiveServer, path: str, kind: str) -> None:
    jobs = server.get("/api/v1/jobs?limit=1").json()["total"]
    sent = b'{"prompt": "a red circle", "width": 64, "height": 64, "steps": 1}'
    reply = requests.post(server.url + path, data=sent, headers={"Content-Type": kind}, timeout=60)
    assert (reply.status_code, reply.json()["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE")
    assert server.get("/api/v1/jobs?limit=1").json()["total"] == jobs


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON ; charset=utf-8", "application/problem+json"])
def test_json_by_any_of_its_names_is_read(server: LiveServer, kind: str) -> None:
    reply = requests.post(server.url + GENERATE, data=b"{}", headers={"Content-Type": kind}, timeout=60)
    assert (reply.status_code, reply.json()["details"]) == (400, {"field": "prompt"})


@pytest.mark.parametrize("origin", [EVIL, "null"])
@pytest.mark.parametrize("path", ["/api/v1/queue/pause", "/api/v1/models/flux2-tiny/unload", "/api/v1/token"])
def test_a_page_of_another_origin_than_the_chosen_cannot_steer(narrow: LiveServer, origin: str, path: str) -> None:
    headers = {"Origin": origin, "Sec-Fetch-Site": "cross-site", "Content-Type": "text/plain"}
    reply = requests.post(narrow.url + path, data=b"", headers=headers, timeout=60)
    assert reply.status_code == 403
    assert narrow.get("/api/v1/queue").json()["paused"] is False


@pytest.mark.parametrize(
    "headers", [{}, {"Sec-Fetch-Site": "same-origin"}, {"Origin": "http://pages.test"}, {"Origin": "{}"}]
)
def test_its_own_pages_and_the_chosen_ones_can_steer(narrow: LiveServer, headers: dict[str, str]) -> None:
    sent = {name: value.format(narrow.url) for name, value in headers.items()}
    assert requests.post(f"{narrow.url}/api/v1/queue/resume", headers=sent, timeout=60).status_code == 200


def test_looking_changes_nothing(server: LiveServer) -> None:
    for path in ("/api/v1/queue/pause", "/api/v1/queue/resume", "/api/v1/models/flux2-tiny/load", GENERATE):
        assert server.get(path).status_code == 405


# Rates


def test_more_requests_than_allowed_are_put_off_for_each_key(tmp_path: Path) -> None:
    chosen = setting(f"security.api_keys=alice:{ALICE},bob:{BOB}", "security.requests_per_minute=3")
    with run_server(tmp_path / "output", *chosen) as live:
        replies = [live.post("/api/v1/queue/resume", headers={"X-API-Key": ALICE}) for _ in range(5)]
        assert [reply.status_code for reply in replies] == [200, 200, 200, 429, 429]
        content = replies[-1].json()
        assert (content["code"], content["request_id"]) == ("RATE_LIMITED", replies[-1].headers["X-Request-ID"])
        assert 1 <= int(replies[-1].headers["Retry-After"]) <= 20
        assert live.post("/api/v1/queue/resume", headers={"X-API-Key": BOB}).status_code == 200
        # GET requests are not counted.
        looks = [live.get("/api/v1/jobs", headers={"X-API-Key": ALICE}).status_code for _ in range(10)]
        assert set(looks) == {200}


def test_more_requests_than_allowed_are_put_off_for_an_address(tmp_path: Path) -> None:
    with run_server(tmp_path / "output", *setting("security.requests_per_minute=60")) as live:
        # On a busy machine some requests become free again before all are sent.
        replies = [live.post("/api/v1/queue/resume") for _ in range(60)]
        while replies[-1].status_code == 200:
            replies.append(live.post("/api/v1/queue/resume"))
        assert [reply.status_code for reply in replies] == [200] * (len(replies) - 1) + [429]
        assert replies[-1].headers["Retry-After"] == "1"
        wait_until(lambda: live.post("/api/v1/queue/resume").status_code == 200)


# Paths

CLIMBING = [
    "../../jobs.db",
    "..%2f..%2fjobs.db",
    "%2e%2e/%2e%2e/jobs.db",
    "..%5c..%5cjobs.db",
    "%00",
    "0%2f..%2f0",
    "/etc/passwd",
]


@pytest.mark.parametrize("name", CLIMBING)
@pytest.mark.parametrize(
    "path", ["/api/v1/jobs/{}", "/api/v1/jobs/{}/images/0", "/api/v1/jobs/{}/stream", "/api/v1/models/{}/status"]
)
def test_no_path_leads_out(server: LiveServer, path: str, name: str) -> None:
    assert raw("GET", server.url + path.format(name)).status_code in {307, 404}


@pytest.mark.parametrize("name", CLIMBING)
@pytest.mark.parametrize("kind", ["images", "inputs"])
def test_no_path_leads_out_of_a_job(server: LiveServer, name: str, kind: str) -> None:
    job_id = server.submit()
    server.wait_for_status(job_id)
    reply = raw("GET", f"{server.url}/api/v1/jobs/{job_id}/{kind}/{name}")
    assert reply.status_code in {307, 404}
    assert b"SQLite" not in reply.content


@pytest.mark.parametrize("name", ["../../../etc", "/etc", str(ROOT / "models" / "flux2-tiny")])
@pytest.mark.parametrize("action", ["load", "unload", "download"])
def test_a_path_cannot_be_loaded(server: LiveServer, name: str, action: str) -> None:
    assert raw("POST", f"{server.url}/api/v1/models/{quote(name, safe='')}/{action}").status_code == 404


# Headers


def test_no_reply_may_be_taken_for_what_it_is_not(server: LiveServer) -> None:
    for method, path in routes(server):
        with requests.request(method, server.url + path, timeout=60, allow_redirects=False, stream=True) as reply:
            assert reply.headers["X-Content-Type-Options"] == "nosniff", (method, path)
            assert "server" not in reply.headers
    assert server.post("/api/v1/queue/resume").json() == {"paused": False}


def test_a_picture_is_sent_as_a_picture(server: LiveServer) -> None:
    job_id = server.submit()
    server.wait_for_status(job_id)
    for form in ("png", "jpeg", "webp"):
        reply = server.get(f"/api/v1/jobs/{job_id}/images/0?format={form}")
        assert reply.headers["Content-Type"] == f"image/{form}"
        assert reply.headers["X-Content-Type-Options"] == "nosniff"


# The warning at start


@pytest.mark.parametrize(
    ("arguments", "warned"),
    [
        (["--host", "0.0.0.0"], True),
        (["--host", "0.0.0.0", *setting(f"security.api_keys=alice:{ALICE}")], False),
        (["--host", "127.0.0.1"], False),
        pytest.param(["--host", "localhost"], False, marks=pytest.mark.slow),
    ],
)
def test_a_server_that_is_open_to_others_says_so(tmp_path: Path, arguments: list[str], warned: bool) -> None:
    with run_server(tmp_path / "output", *arguments) as live:
        live.stop(signal.SIGTERM)
    lines = [line for line in live.lines if line.startswith("Anybody who can reach ")]
    assert bool(lines) is warned
    assert len(lines) <= 1
    assert all(ALICE not in line for line in live.lines)
