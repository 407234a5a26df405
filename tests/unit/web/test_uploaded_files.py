"""Uploaded files on disk: they survive a restart, expire, and take no more room than they may."""

import os
import time
from pathlib import Path

import pytest

from mflux_api.errors import UploadNotFound, UploadsFull
from mflux_api.web.uploaded_files import OVERHEAD, STRAY_SECONDS, UploadedFile, UploadedFiles

ROOM = 3 * OVERHEAD


def save(files: UploadedFiles, data: bytes = b"data", owner: str = "") -> UploadedFile:
    return files.save(data, name="a.png", content_type="image/png", metadata={}, owner=owner)


def test_a_file_outlives_the_server(tmp_path: Path) -> None:
    file = save(UploadedFiles(tmp_path / "uploads", 60, ROOM))
    later = UploadedFiles(tmp_path / "uploads", 60, ROOM)
    assert (later.get(file.id), later.read(file.id)) == (file, b"data")


def test_a_file_expires_and_is_pruned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = UploadedFiles(tmp_path, 60, ROOM)
    file = save(files)
    moment = time.time() + 61
    monkeypatch.setattr(time, "time", lambda: moment)
    with pytest.raises(UploadNotFound):
        files.read(file.id)
    assert files.list_files("") == []
    assert files.find_by_url(f"http://here/replicate/v1/files/{file.id}") is None
    files.prune()
    assert list(tmp_path.iterdir()) == []


def test_more_than_the_room_there_is_is_refused_until_files_go(tmp_path: Path) -> None:
    files = UploadedFiles(tmp_path, 60, ROOM)
    first = save(files)
    save(files)
    with pytest.raises(UploadsFull):
        save(files, bytes(OVERHEAD))
    files.delete(first.id)
    save(files, bytes(OVERHEAD // 2))


def test_each_owner_sees_only_their_own(tmp_path: Path) -> None:
    files = UploadedFiles(tmp_path, 60, ROOM)
    assert [file.owner for file in (save(files, owner="alice"), save(files, owner="bob"))] == ["alice", "bob"]
    assert [file.owner for file in files.list_files("bob")] == ["bob"]


def test_an_interrupted_upload_is_no_file_and_goes_away(tmp_path: Path) -> None:
    files = UploadedFiles(tmp_path, 60, ROOM)
    stray = tmp_path / ("a" * 26)
    stray.mkdir()
    (stray / "content").write_bytes(b"half")
    files.prune()
    assert stray.is_dir()
    os.utime(stray, (0, time.time() - STRAY_SECONDS - 1))
    files.prune()
    assert not stray.exists()


@pytest.mark.parametrize("name", ["", "..", "../jobs.db", "A" * 26, "a" * 25, "%00"])
def test_no_name_leads_out(tmp_path: Path, name: str) -> None:
    with pytest.raises(UploadNotFound):
        UploadedFiles(tmp_path, 60, ROOM).read(name)
