"""Pictures in a bucket: URLs of every dialect point there, and only after the picture was stored."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from mflux_api.errors import InvalidSetting
from mflux_api.net.s3 import Bucket, BucketConfig
from tests.support.live_server import LiveServer, run_server
from tests.support.paths import ROOT
from tests.support.s3 import BUCKET, KEY, SECRET, FakeS3, run_s3, sign_with_botocore

pytestmark = pytest.mark.system

PROMPT = {"prompt": "a red circle"}
SIZE: dict[str, Any] = {"width": 64, "height": 64}
BFL: dict[str, Any] = {**PROMPT, **SIZE, "steps": 1}
REPLICATE = {"input": {**PROMPT, **SIZE, "num_inference_steps": 1}}
KLEIN: dict[str, Any] = {**PROMPT, "width": 256, "height": 256, "steps": 1}
OPENAI: dict[str, Any] = {**PROMPT, "size": "64x64", "steps": 1, "response_format": "url"}
PREDICTIONS = "/replicate/v1/models/any/flux-dev/predictions"
PLACE = BucketConfig(
    bucket=BUCKET,
    endpoint="http://127.0.0.1:9",
    public=None,
    region=None,
    prefix=None,
    access_key=KEY,
    secret_key=SECRET,
    path_style=True,
    timeout=3,
    link_seconds=60,
)


@pytest.fixture(scope="module")
def store() -> Iterator[FakeS3]:
    with run_s3() as store:
        yield store


@pytest.fixture(scope="module")
def live(store: FakeS3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    output = tmp_path_factory.mktemp("bucket") / "output"
    with run_server(output, *store.server_flags, "--set", "security.link_seconds=600") as live:
        yield live


def task(live: LiveServer, **fields: object) -> str:
    job_id: str = live.post("/flux/v1/flux-dev", {**BFL, **fields}).json()["id"]
    live.wait_for_status(job_id, "completed")
    return job_id


def get_sample(live: LiveServer, job_id: str) -> str:
    found: str = live.get(f"/flux/v1/get_result?id={job_id}").json()["result"]["sample"]
    return found


def get_newest(live: LiveServer) -> str:
    job_id: str = live.get("/api/v1/jobs?limit=1").json()["jobs"][0]["id"]
    return job_id


def from_klein(live: LiveServer) -> str:
    return str(live.post("/klein/generate", KLEIN).json()["image_url"])


def from_bfl(live: LiveServer) -> str:
    return get_sample(live, task(live))


def from_replicate(live: LiveServer) -> str:
    reply = live.post(PREDICTIONS, REPLICATE, headers={"Prefer": "wait"})
    return str(reply.json()["output"][0])


def from_openai(live: LiveServer) -> str:
    return str(live.post("/v1/images/generations", OPENAI).json()["data"][0]["url"])


@pytest.mark.parametrize(
    ("ask", "form"), [(from_klein, "png"), (from_bfl, "jpeg"), (from_replicate, "webp"), (from_openai, "png")]
)
def test_an_address_of_every_dialect_leads_to_the_bucket(
    live: LiveServer, store: FakeS3, ask: Callable[[LiveServer], str], form: str
) -> None:
    address = ask(live)
    parts, query = urlsplit(address), parse_qs(urlsplit(address).query)
    assert address.startswith(f"{store.url}/{BUCKET}/from/flux/20")
    assert parts.path.endswith(f"/{get_newest(live)}-0.{form}")
    assert query["X-Amz-Expires"] == ["600"]
    assert query["X-Amz-Signature"] == [sign_with_botocore(address)]
    reply = requests.get(address, timeout=30)
    assert (reply.status_code, reply.headers["Content-Type"]) == (200, f"image/{form}")
    assert reply.content == live.get(f"/api/v1/jobs/{get_newest(live)}/images/0?format={form}").content


def test_a_picture_goes_in_once_and_again_when_the_bucket_has_lost_it(live: LiveServer, store: FakeS3) -> None:
    job_id = task(live)
    address = get_sample(live, job_id)
    path = urlsplit(address).path
    get_sample(live, job_id)
    assert store.requests.count(("PUT", path)) == 1
    store.delete_object(address)
    assert requests.get(address, timeout=30).status_code == 404
    assert requests.get(get_sample(live, job_id), timeout=30).status_code == 200
    assert store.requests.count(("PUT", path)) == 2


def test_a_store_that_hides_what_is_missing_is_uploaded_to(live: LiveServer, store: FakeS3) -> None:
    store.hides_missing = True
    try:
        assert requests.get(get_sample(live, task(live)), timeout=30).status_code == 200
    finally:
        store.hides_missing = False


def test_what_is_in_the_bucket_needs_no_file_here(live: LiveServer) -> None:
    kept, lost = task(live), task(live)
    get_sample(live, kept)
    for job_id in (kept, lost):
        next(live.output.glob(f"*/{job_id}-0.png")).unlink()
    assert requests.get(get_sample(live, kept), timeout=30).status_code == 200
    assert live.get(f"/flux/v1/get_result?id={lost}").status_code == 404
    removed = live.get(f"/replicate/v1/predictions/{lost}").json()
    assert (removed["status"], removed["output"], removed["data_removed"]) == ("succeeded", None, True)


def test_a_picture_that_a_client_deleted_is_told_no_more(live: LiveServer) -> None:
    job_id = task(live)
    get_sample(live, job_id)
    assert live.delete(f"/api/v1/jobs/{job_id}/images/0").status_code == 200
    assert live.get(f"/flux/v1/get_result?id={job_id}").status_code == 404
    assert live.get(f"/replicate/v1/predictions/{job_id}").json()["data_removed"] is True


def test_a_store_that_stumbles_is_asked_again(live: LiveServer, store: FakeS3) -> None:
    job_id = task(live)
    store.failures = 3
    assert requests.get(get_sample(live, job_id), timeout=30).status_code == 200
    assert store.failures == 0


@pytest.mark.slow
def test_a_store_that_is_away_is_said_and_loses_nothing(tmp_path: Path) -> None:
    with run_s3() as store, run_server(tmp_path / "output", *store.server_flags, "--set", "storage.seconds=1") as live:
        store.close()
        replies = [live.post("/klein/generate", KLEIN), live.post("/v1/images/generations", OPENAI)]
        job_id = task(live)
        replies += [live.get(f"/flux/v1/get_result?id={job_id}"), live.get(f"/replicate/v1/predictions/{job_id}")]
        assert [reply.status_code for reply in replies] == [500, 502, 500, 502]
        said = [reply.json() for reply in replies]
        assert [said[0]["code"], said[1]["error"]["code"], said[2]["code"], said[3]["title"]] == [
            *("STORAGE_FAILED", "storage_failed", "STORAGE_FAILED", "STORAGE_FAILED")
        ]
        assert said[2]["detail"].startswith(f"Job {job_id} is painted and kept")
        # Errors name neither a key nor the store's address; the log has the details.
        assert not [reply.text for reply in replies if SECRET in reply.text or str(store.port) in reply.text]
        assert [line for line in live.lines if "storage.failed" in line and job_id in line]
        # The jobs are completed, and the pictures are stored once the store is back.
        assert {job["status"] for job in live.get("/api/v1/jobs").json()["jobs"]} == {"completed"}
        with run_s3(store.port):
            end = time.monotonic() + 30
            while live.get(f"/flux/v1/get_result?id={job_id}").status_code != 200:
                assert time.monotonic() < end
            assert requests.get(get_sample(live, job_id), timeout=30).status_code == 200


# At the start


def start(tmp_path: Path, *arguments: str) -> tuple[int, list[str]]:
    """Return the exit code and the output lines of a server that fails to start."""
    command = [sys.executable, str(ROOT / "api_main.py"), "--port", "0", "--output-dir", str(tmp_path / "output")]
    done = subprocess.run(
        [*command, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
        env=environ_without_aws(),
    )
    return done.returncode, done.stderr.splitlines()


def environ_without_aws() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}


def test_a_bucket_that_is_not_there_keeps_the_server_from_starting(store: FakeS3, tmp_path: Path) -> None:
    code, lines = start(tmp_path, *store.server_flags, "--set", "storage.bucket=nobodys")
    assert (code, len(lines)) == (1, 1)
    assert "Bucket nobodys: NoSuchBucket" in lines[0]


def test_keys_that_are_wrong_keep_the_server_from_starting_and_stay_secret(tmp_path: Path) -> None:
    with run_s3() as store:
        requests.post(f"{store.url}/moto-api/reset-auth", data=b"0", timeout=10)
        code, lines = start(tmp_path, *store.server_flags)
        requests.post(f"{store.url}/moto-api/reset-auth", data=b"Infinity", timeout=10)
    assert (code, len(lines)) == (1, 1)
    assert "InvalidAccessKeyId" in lines[0]
    assert KEY not in lines[0]
    assert SECRET not in lines[0]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (("storage.kind=s3",), "needs storage.bucket"),
        pytest.param(
            ("storage.kind=s3", "storage.bucket=bkt", "storage.access_key=k"), "belong together", marks=pytest.mark.slow
        ),
        pytest.param(
            ("storage.kind=s3", "storage.bucket=bkt", "security.link_seconds=700000"),
            "at most 604800",
            marks=pytest.mark.slow,
        ),
        (("storage.endpoint_url=x y",), "begin with http"),
        pytest.param(("storage.endpoint_url=localhost:9000",), "begin with http", marks=pytest.mark.slow),
        pytest.param(("storage.endpoint_url=http://me@x",), "begin with http", marks=pytest.mark.slow),
        pytest.param(("storage.public_url=http://",), "begin with http", marks=pytest.mark.slow),
        pytest.param(("storage.bucket=my bucket",), "should match", marks=pytest.mark.slow),
        pytest.param(("storage.region=a/b",), "should match", marks=pytest.mark.slow),
        pytest.param(("storage.kind=ftp",), "'local' or 's3'", marks=pytest.mark.slow),
        pytest.param(("storage.secret_key=hunter 2",), "without blanks", marks=pytest.mark.slow),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path: Path, wrong: tuple[str, ...], words: str) -> None:
    code, lines = start(tmp_path, *(part for each in wrong for part in ("--set", each)))
    assert (code, len(lines)) == (2, 1)
    assert words in lines[0]
    assert "hunter" not in lines[0]


@pytest.mark.slow
def test_a_server_starts_while_its_store_is_away(tmp_path: Path, free_tcp_port: int) -> None:
    away = ("kind=s3", f"bucket={BUCKET}", f"endpoint_url=http://127.0.0.1:{free_tcp_port}", "seconds=1")
    keys = (f"access_key={KEY}", f"secret_key={SECRET}")
    settings = [part for each in (*away, *keys) for part in ("--set", f"storage.{each}")]
    with run_server(tmp_path / "output", *settings) as live:
        assert live.post("/v1/images/generations", {**OPENAI, "response_format": "b64_json"}).status_code == 200
        assert [line for line in live.lines if "storage.unreachable" in line]


@pytest.mark.slow
def test_a_store_that_is_asked_without_keys_is_said_to_be(
    tmp_path: Path, free_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = ("kind=s3", f"bucket={BUCKET}", "endpoint_url=http://127.0.0.1:9", "region=here", "seconds=1")
    settings = [part for each in place for part in ("--set", f"storage.{each}")]
    # A closed port, like 169.254.169.254 outside of a cloud.
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", f"http://127.0.0.1:{free_tcp_port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    with run_server(tmp_path / "output", *settings) as live:
        (line,) = [line for line in live.lines if "storage.unreachable" in line]
    assert "No storage.access_key is set" in line


def test_settings_and_doctor_know_the_store_and_show_no_key(store: FakeS3, tmp_path: Path) -> None:
    said = {
        command: subprocess.run(
            [sys.executable, str(ROOT / "api_main.py"), command, *store.server_flags],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=tmp_path,
        ).stdout
        for command in ("settings", "doctor")
    }
    assert 'storage.secret_key = "***" (command line --set storage.secret_key)' in said["settings"]
    assert f"bucket {BUCKET}: written to and read" in said["doctor"]
    assert not [text for text in said.values() if SECRET in text or KEY in text]


def test_the_missing_client_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(InvalidSetting, match="needs the package obstore: pip install obstore"):
        Bucket(PLACE)


@pytest.mark.parametrize(
    ("changes", "begins"),
    [
        ({}, f"http://127.0.0.1:9/{BUCKET}/a.png?"),
        ({"public": "https://s3.test"}, f"https://s3.test/{BUCKET}/a.png?"),
        ({"prefix": "/in/a folder/"}, f"http://127.0.0.1:9/{BUCKET}/in/a%20folder/a.png?"),
        ({"public": "https://s3.test", "path_style": False}, f"https://{BUCKET}.s3.test/a.png?"),
        ({"endpoint": None, "region": "eu-west-1"}, f"https://s3.eu-west-1.amazonaws.com/{BUCKET}/a.png?"),
        ({"endpoint": None, "path_style": False}, f"https://{BUCKET}.s3.us-east-1.amazonaws.com/a.png?"),
    ],
)
def test_addresses_name_the_bucket_as_the_store_wants_it(changes: dict[str, Any], begins: str) -> None:
    bucket = Bucket(replace(PLACE, **changes))
    assert bucket._client.sign(bucket._signer, "GET", "a.png", timedelta(seconds=60)).startswith(begins)
