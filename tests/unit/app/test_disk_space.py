"""Pictures stay by default, and everybody who could make room is told when the disk gets short."""

import logging
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from mflux_api import settings
from mflux_api.app.application import build_app
from mflux_api.commands.doctor import check_machine
from mflux_api.jobs.disk_space import LOW, measure_disk

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(params=[LOW - 1, LOW])
def free(request: Any, monkeypatch: pytest.MonkeyPatch) -> int:
    """Free bytes of every disk: just too few, and just enough."""
    found: int = request.param
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10 * LOW, 10 * LOW - found, found))
    return found


def load(tmp_path: Path) -> settings.Settings:
    chosen = {"generation.output_dir": str(tmp_path / "output"), "models.default": "flux2-tiny"}
    return settings.load(chosen, {}, None, home=tmp_path).settings


def test_nothing_is_deleted_by_default(tmp_path: Path) -> None:
    queue = load(tmp_path).queue
    assert (queue.keep_days, queue.keep_gb) == (0, 0)


@pytest.mark.parametrize("path", ["/api/v1/health", "/api/v1/system"])
def test_replies_about_the_server_warn(tmp_path: Path, free: int, path: str) -> None:
    found = TestClient(build_app(load(tmp_path))).get(path).json()
    assert [("2.0 GiB" in text, "keep_gb" in text) for text in found["warnings"]] == [(True, True)] * (free < LOW)
    assert found.get("status", "healthy") == "healthy"


def test_the_log_warns_once(tmp_path: Path, free: int, caplog: pytest.LogCaptureFixture) -> None:
    services = build_app(load(tmp_path)).state.services
    with caplog.at_level(logging.WARNING):
        warning = services._report_disk(None)
        services._report_disk(warning)
    assert [record.getMessage() for record in caplog.records] == ["disk.low"] * (free < LOW)


def test_the_doctor_warns(tmp_path: Path, free: int) -> None:
    (finding,) = [each for each in check_machine(tmp_path, tmp_path / "output") if each.subject == "output"]
    assert (finding.state, "keep_gb" in finding.advice) == (("warn", True) if free < LOW else ("ok", False))


def test_the_disk_of_a_folder_that_is_not_there_yet_is_measured(tmp_path: Path) -> None:
    found = measure_disk(tmp_path / "a" / "b")
    assert found is not None
    assert 0 < found.free <= found.total
