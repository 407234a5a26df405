"""Failures of hub, network and disk: no partial model is left, and the error names the cause."""

import errno
import shutil
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mflux_api.errors import (
    DiskFull,
    DownloadFailed,
    MfluxError,
    ModelGated,
    ModelNotFound,
    ModelUnsupported,
    StorageFailed,
)
from mflux_api.models.registry import resolve_model
from tests.support.hub import REPOSITORY, FakeHub
from tests.support.hub_downloads import CONFIG, NAME, SPEC, TINY, WEIGHTS, expect_refusal, fetch_model, partial_path

pytestmark = pytest.mark.usefixtures("quick_and_alone")

# Wrong answers


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG])
def test_a_flipped_byte_is_refused(hub: FakeHub, models_dir: Path, name: str) -> None:
    body = bytearray(TINY[name])
    body[len(body) // 2] ^= 1
    hub.served[name] = bytes(body)
    error = expect_refusal(models_dir, DownloadFailed)
    assert "arrived with other bytes than" in error.message
    assert error.details["file"] == name
    assert not partial_path(models_dir, name).exists()


@pytest.mark.parametrize("extra", [b"more", b"?" * 3_000_000])
def test_a_file_that_is_too_long_is_refused(hub: FakeHub, models_dir: Path, extra: bytes) -> None:
    hub.served[WEIGHTS] = TINY[WEIGHTS] + extra
    expect_refusal(models_dir, DownloadFailed)


def test_a_file_that_is_too_short_is_refused(hub: FakeHub, models_dir: Path) -> None:
    hub.served[CONFIG] = TINY[CONFIG][:10]
    expect_refusal(models_dir, DownloadFailed)


def test_another_commit_than_the_pinned_one_is_refused(
    hub: FakeHub, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = {**hub.build_listing(), "sha": "f" * 40}
    monkeypatch.setattr(FakeHub, "build_listing", lambda self: listing)
    assert "is no model hub" in expect_refusal(models_dir, DownloadFailed).message


def test_a_page_that_is_no_hub_is_refused(hub: FakeHub, models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.hub.json.dumps", lambda _: "<html>Log in to this network</html>")
    assert "is no model hub" in expect_refusal(models_dir, DownloadFailed).message


def test_a_repository_without_a_checkpoint_is_refused(hub: FakeHub, models_dir: Path) -> None:
    del hub.files["vae/diffusion_pytorch_model.safetensors"]
    error = expect_refusal(models_dir, ModelUnsupported)
    assert error.message == f"{REPOSITORY} is not a FLUX.2 klein checkpoint: it has no vae."


def test_a_missing_repository_is_said_to_be_missing(hub: FakeHub, models_dir: Path) -> None:
    error = expect_refusal(models_dir, ModelNotFound, replace(SPEC, repository="tester/nothing"))
    assert error.message.startswith("Hugging Face has no tester/nothing")


@pytest.mark.parametrize("status", [500, 503, 429, 418])
def test_an_error_of_the_hub_can_be_tried_again(hub: FakeHub, models_dir: Path, status: int) -> None:
    hub.error = (status, "", "secret details")
    error = expect_refusal(models_dir, DownloadFailed)
    assert (error.status, error.details["status"]) == (503, status)
    assert "secret" not in error.message


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:{port}", "nonsense", "http://["])
def test_without_a_network_it_can_be_tried_again(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv("HF_ENDPOINT", endpoint.format(port=port))
    error = expect_refusal(models_dir, DownloadFailed)
    assert error.message == (
        f"Hugging Face cannot be reached: {REPOSITORY} is not downloaded. Try again: it goes on where it stopped."
    )


def test_offline_mode_is_a_missing_network(hub: FakeHub, models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.is_offline_mode", lambda: True)
    assert "cannot be reached" in expect_refusal(models_dir, DownloadFailed).message
    assert hub.requests == []


# Licences


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("", ("no_token", "Accept its licence there and set HF_TOKEN")),
        ("hf_wrong", ("not_accepted", "has not accepted its licence there")),
    ],
)
def test_a_gated_model_says_what_to_do(
    hub: FakeHub, models_dir: Path, monkeypatch: pytest.MonkeyPatch, token: str, reason: tuple[str, str]
) -> None:
    hub.gate = True
    monkeypatch.setenv("HF_TOKEN", token)
    error = expect_refusal(models_dir, ModelGated)
    assert (error.code, error.details["page"]) == ("MODEL_GATED", f"{hub.url}/{REPOSITORY}")
    assert error.details["reason"] == reason[0]
    assert reason[1] in error.message


def test_a_token_that_is_not_valid_is_said_to_be_so(
    hub: FakeHub, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    hub.error = (401, "", "Invalid credentials in Authorization header")
    error = expect_refusal(models_dir, ModelGated)
    assert error.details["reason"] == "token_refused"
    assert "hf_expired" not in error.message


def test_a_token_opens_a_gated_model(hub: FakeHub, models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.gate = True
    monkeypatch.setenv("HF_TOKEN", hub.token)
    fetch_model(models_dir)
    assert resolve_model(NAME, models_dir).folder == models_dir / NAME


def test_the_token_is_not_sent_to_the_servers_that_hold_large_files(
    hub: FakeHub, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.gate, hub.away = True, hub.url.replace("127.0.0.1", "localhost")
    monkeypatch.setenv("HF_TOKEN", hub.token)
    fetch_model(models_dir)
    held_elsewhere = [headers for path, headers in hub.requests if path.startswith("/cdn/")]
    assert held_elsewhere
    assert not any("authorization" in headers for headers in held_elsewhere)


# Disks


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_too_little_room_is_said_before_anything_is_fetched(
    hub: FakeHub, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 10**12, 10**9 + 5))
    error = expect_refusal(models_dir, DiskFull)
    assert (error.code, error.status, error.details["free_bytes"]) == ("DISK_FULL", 507, 10**9 + 5)
    assert error.message.startswith(f"{NAME} needs 1.0 GB of disk space (1 GB to spare included), and 1.0 GB are free.")
    assert hub.bytes_sent == {}


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, DiskFull), (errno.EIO, StorageFailed)])
def test_a_disk_that_fails_on_the_way_is_an_error(
    hub: FakeHub, models_dir: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[MfluxError]
) -> None:
    def fail(_: Any) -> None:
        raise OSError(number, "details of the machine")

    monkeypatch.setattr("os.fsync", fail)
    error = expect_refusal(models_dir, kind)
    assert type(error) is kind
    assert "details of the machine" not in error.message
