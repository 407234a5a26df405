"""Secrets on disk: whole, private, and made anew when they are damaged."""

import errno
import hashlib
import hmac
import os
import stat
from pathlib import Path

import pytest

from mflux_api.errors import LinkExpired, StorageFailed
from mflux_api.web.secret_file import SECRET_BYTES, load_secret
from mflux_api.web.signed_urls import SignedUrls


def mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def test_a_secret_stays_the_same_and_belongs_to_its_owner_only(tmp_path: Path) -> None:
    file = tmp_path / "new" / "links.key"
    secret = load_secret(file)
    assert load_secret(file) == secret
    assert (len(secret), mode(file), list(file.parent.iterdir())) == (SECRET_BYTES, 0o600, [file])


@pytest.mark.parametrize("damaged", [b"", b"short", b"x" * (SECRET_BYTES - 1), b"x" * 4096])
def test_a_damaged_secret_is_replaced_and_said(
    tmp_path: Path, damaged: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "links.key"
    file.write_bytes(damaged)
    secret = load_secret(file)
    assert secret not in (damaged, b"")
    assert load_secret(file) == secret
    assert [record.msg for record in caplog.records] == ["secret.damaged"]


def test_a_secret_that_others_can_read_is_made_private(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "links.key"
    secret = load_secret(file)
    file.chmod(0o644)
    assert load_secret(file) == secret
    assert mode(file) == 0o600
    assert [record.msg for record in caplog.records] == ["secret.readable"]


def test_on_a_full_disk_no_secret_is_used_and_none_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "links.key"

    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    urls = SignedUrls(file, None, 60.0)
    with pytest.raises(StorageFailed, match="disk full"):
        urls.sign_picture_url("http://a.test", "job", 0, "png")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    # The next attempt makes a whole one.
    assert "signature=" in urls.sign_picture_url("http://a.test", "job", 0, "png")


def test_nobody_can_sign_with_an_empty_secret(tmp_path: Path) -> None:
    file = tmp_path / "links.key"
    file.write_bytes(b"")
    path, expires = "/files/job/0.png", "99999999999"
    forged = hmac.new(b"", f"{path}?{expires}".encode(), hashlib.sha256).hexdigest()
    with pytest.raises(LinkExpired):
        SignedUrls(file, None, 60.0).verify(path, {"expires": expires, "signature": forged})
