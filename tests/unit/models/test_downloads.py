"""Downloads of the embedded model from the fake hub with the real client."""

import threading
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from mflux_api.errors import DownloadFailed, InvalidRequest, ModelUnsupported
from mflux_api.models import download as downloads
from mflux_api.models.download import download
from mflux_api.models.download_queue import DownloadProgress
from mflux_api.models.registry import ModelSpec, load_registry, resolve_model
from tests.support.empty_weights import make_contents, write_model, write_weights
from tests.support.hub import REPOSITORY, FakeHub, read_files
from tests.support.hub_downloads import (
    CHUNK,
    FIRST_WEIGHTS,
    NAME,
    NEEDED,
    SPEC,
    TINY,
    WEIGHTS,
    assert_no_model,
    expect_refusal,
    fetch_model,
    partial_path,
)

pytestmark = pytest.mark.usefixtures("quick_and_alone")

# Downloaded files


def test_a_downloaded_model_is_found(hub: FakeHub, models_dir: Path) -> None:
    fetch_model(models_dir)
    assert resolve_model(NAME, models_dir).folder == models_dir / NAME


def test_every_file_that_is_needed_arrives_and_no_other(hub: FakeHub, models_dir: Path) -> None:
    fetch_model(models_dir)
    assert read_files(models_dir / NAME) == NEEDED
    assert sorted(path.name for path in models_dir.iterdir()) == [f".{NAME}.lock", NAME]


def test_the_main_branch_is_used_where_no_revision_is_pinned(hub: FakeHub, models_dir: Path) -> None:
    fetch_model(models_dir, replace(SPEC, revision=None))
    assert resolve_model(NAME, models_dir).folder == models_dir / NAME


def test_progress_grows_to_the_total(hub: FakeHub, models_dir: Path) -> None:
    heard = fetch_model(models_dir)
    assert all(before.done_bytes <= after.done_bytes for before, after in pairwise(heard))
    assert heard[0].done_bytes == 0
    assert (heard[-1].done_bytes, heard[-1].done_files) == (heard[-1].total_bytes, heard[-1].total_files)
    assert heard[-1].total_bytes == sum(map(len, NEEDED.values()))
    assert len({progress.done_bytes for progress in heard}) > len(TINY)


def test_a_model_that_is_here_is_left_alone(hub: FakeHub, models_dir: Path) -> None:
    write_model(models_dir / NAME)
    assert fetch_model(models_dir) == []
    assert hub.requests == []


# Interruptions


def test_a_broken_connection_is_continued_where_it_broke(hub: FakeHub, models_dir: Path) -> None:
    hub.broken = 1
    fetch_model(models_dir)
    # The chunk in transit is lost.
    assert len(TINY[FIRST_WEIGHTS]) <= hub.bytes_sent[FIRST_WEIGHTS] < len(TINY[FIRST_WEIGHTS]) + CHUNK
    assert read_files(models_dir / NAME) == NEEDED


def test_a_failed_download_is_continued_by_the_next(
    hub: FakeHub, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "RETRY_SECONDS", ())
    hub.broken = 1
    error = expect_refusal(models_dir, DownloadFailed)
    assert "Try again: it goes on where it stopped." in error.message
    left = partial_path(models_dir, FIRST_WEIGHTS).stat().st_size
    assert hub.bytes_sent[FIRST_WEIGHTS] - CHUNK < left <= hub.bytes_sent[FIRST_WEIGHTS]
    heard = fetch_model(models_dir)
    assert heard[0].done_bytes >= left
    assert hub.ranges_asked(FIRST_WEIGHTS) == [None, f"bytes={left}-"]
    assert read_files(models_dir / NAME) == NEEDED


def test_files_that_are_there_are_not_fetched_again(hub: FakeHub, models_dir: Path) -> None:
    hub.served[WEIGHTS] = b"\0" * len(TINY[WEIGHTS])
    expect_refusal(models_dir, DownloadFailed)
    hub.served.clear()
    fetch_model(models_dir)
    assert {name for name, sent in hub.bytes_sent.items() if sent > len(TINY[name])} == {WEIGHTS}


def test_a_server_without_ranges_sends_the_whole_file_again(hub: FakeHub, models_dir: Path) -> None:
    hub.broken, hub.ranges = 1, False
    fetch_model(models_dir)
    assert read_files(models_dir / NAME) == NEEDED


def test_a_spoilt_part_is_thrown_away_and_fetched_again(hub: FakeHub, models_dir: Path) -> None:
    spoilt = partial_path(models_dir, WEIGHTS)
    spoilt.parent.mkdir(parents=True)
    spoilt.write_bytes(b"?" * 1000)
    partial_path(models_dir, "gone.json").write_bytes(b"{}")
    fetch_model(models_dir)
    assert (models_dir / NAME / WEIGHTS).read_bytes() == TINY[WEIGHTS]
    assert not (models_dir / NAME / "gone.json").exists()


@pytest.mark.parametrize("when", ["before it begins", "in the middle of a file"])
def test_a_download_can_be_stopped(hub: FakeHub, models_dir: Path, when: str) -> None:
    stop = threading.Event()

    def hear(progress: DownloadProgress) -> None:
        if when == "before it begins" or progress.done_bytes > 2_000_000:
            stop.set()

    with pytest.raises(DownloadFailed, match=r"was stopped\. Start it again: it goes on"):
        download(SPEC, models_dir, hear, stop)
    assert_no_model(models_dir)
    assert sum(hub.bytes_sent.values()) < sum(map(len, TINY.values()))


# Two at once


def test_a_second_download_waits_and_finds_the_model_there(hub: FakeHub, models_dir: Path) -> None:
    hub.hold = True
    first = threading.Thread(target=fetch_model, args=(models_dir,))
    second = threading.Thread(target=fetch_model, args=(models_dir,))
    first.start()
    assert hub.held.wait(5)
    second.start()
    second.join(0.1)
    assert second.is_alive()
    hub.resume.set()
    first.join(10)
    second.join(10)
    assert hub.bytes_sent == {name: len(body) for name, body in NEEDED.items()}
    assert read_files(models_dir / NAME) == NEEDED


def test_a_download_that_waits_for_another_can_be_stopped(hub: FakeHub, models_dir: Path) -> None:
    hub.hold = True
    first = threading.Thread(target=fetch_model, args=(models_dir,))
    first.start()
    assert hub.held.wait(5)
    stop = threading.Event()
    stop.set()
    with pytest.raises(DownloadFailed, match="was stopped"):
        download(SPEC, models_dir, lambda _: None, stop)
    hub.resume.set()
    first.join(10)


# Files that are not downloaded


def test_a_model_without_a_repository_is_refused(models_dir: Path) -> None:
    with pytest.raises(InvalidRequest, match="flux2-tiny cannot be downloaded: no repository is known"):
        fetch_model(models_dir, load_registry()["flux2-tiny"])


def test_a_model_that_cannot_paint_is_not_downloaded(models_dir: Path) -> None:
    with pytest.raises(ModelUnsupported, match="this version"):
        fetch_model(models_dir, ModelSpec(name="later", repository=REPOSITORY, unavailable="Not with this version."))
    assert not models_dir.exists()


# Models made of some files of a repository

SOME = ("weights.safetensors", "vae.safetensors")
ENLARGER = ModelSpec(name="enlarger", folder="enlarger", repository=REPOSITORY, files=SOME, family="seedvr2")


def test_only_the_files_a_model_names_are_downloaded(hub: FakeHub, models_dir: Path) -> None:
    hub.files = {**make_contents(SOME), "weights_fp8.safetensors": b"x" * 1000, "README.md": b"text"}
    fetch_model(models_dir, ENLARGER)
    assert {path.name for path in (models_dir / "enlarger").iterdir()} == set(SOME)


def test_a_named_file_that_the_repository_has_not_is_refused(hub: FakeHub, models_dir: Path) -> None:
    hub.files = {SOME[0]: b"weights"}
    with pytest.raises(ModelUnsupported, match=f"has no {SOME[1]}"):
        fetch_model(models_dir, ENLARGER)


def test_only_the_file_that_a_folder_lacks_is_fetched(hub: FakeHub, models_dir: Path) -> None:
    hub.files = make_contents(SOME)
    mine = write_weights(models_dir / "enlarger" / SOME[0])
    mine.with_name("notes.txt").write_text("mine")
    fetch_model(models_dir, ENLARGER)
    assert {path.name for path in mine.parent.iterdir()} == {*SOME, "notes.txt"}
    assert not any(SOME[0] in path for path, _ in hub.requests)
