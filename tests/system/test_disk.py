"""Which requests wait until the disk has their job."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import traced_server
from tests.support.live_server import LiveServer, run_server

pytestmark = pytest.mark.system

FORM: dict[str, Any] = {"prompt": "a red circle", "width": 64, "height": 64, "steps": 1}
LEVEL, ACCEPTED = "sql: PRAGMA synchronous=", "sql: INSERT INTO jobs "


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    program = Path(str(traced_server.__file__))
    with run_server(tmp_path_factory.mktemp("traced") / "output", program=program) as live:
        yield live


def accepted_at(lines: list[str], since: int) -> str | None:
    """SQLite's `synchronous` level when the first job after line `since` was inserted; None before there is one.

    FULL waits until the disk has the row.
    """
    rows = (index for index, line in enumerate(lines) if index >= since and line.startswith(ACCEPTED))
    levels = [line.removeprefix(LEVEL) for line in lines[: next(rows, 0)] if line.startswith(LEVEL)]
    return levels[-1] if levels else None


@pytest.mark.parametrize(("path", "level"), [("/api/v1/generate", "FULL"), ("/sdapi/v1/txt2img", "NORMAL")])
def test_only_a_client_that_is_told_of_its_job_waits_until_the_disk_has_it(
    traced: LiveServer, path: str, level: str
) -> None:
    said = len(traced.lines)
    reply = traced.post(path, FORM)
    assert reply.status_code == 200
    if path.startswith("/api"):
        traced.wait_for_status(reply.json()["job_id"])
    end = time.monotonic() + 10
    while accepted_at(traced.lines, said) is None and time.monotonic() < end:
        time.sleep(0.05)
    assert accepted_at(traced.lines, said) == level
