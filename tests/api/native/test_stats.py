"""Statistics by hour and by day."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.api.native.test_jobs import encode_base64, noise
from tests.support.live_server import LiveServer, run_server
from tests.support.refusals import assert_refused

pytestmark = pytest.mark.system

HISTORY = "/api/v1/stats/history"
EMPTY = {"pictures": 0, "failures": 0, "seconds_per_picture": None}


def test_a_server_that_has_painted_nothing_has_empty_points(tmp_path: Path) -> None:
    with run_server(tmp_path / "output") as live:
        found = live.get(HISTORY).json()
    assert (found["bucket"], len(found["points"])) == ("hour", 24)
    starts = [datetime.fromisoformat(point.pop("start")) for point in found["points"]]
    assert found["points"] == [EMPTY] * 24
    assert starts == [starts[0] + timedelta(hours=index) for index in range(24)]
    assert timedelta() <= datetime.now(UTC) - starts[-1] < timedelta(hours=2)


def test_pictures_and_failures_are_counted_when_they_happen(tmp_path: Path) -> None:
    with run_server(tmp_path / "output") as live:
        live.wait_for_status(live.submit(num_images=2))
        live.wait_for_status(live.submit(init_images=[encode_base64(noise())[:200]]))
        for bucket in ("hour", "day"):
            points = live.get(f"{HISTORY}?bucket={bucket}&count=2").json()["points"]
            assert len(points) == 2
            assert sum(point["pictures"] for point in points) == live.get("/api/v1/stats").json()["total_images"] == 2
            assert sum(point["failures"] for point in points) == 1
            assert all((point["seconds_per_picture"] or 0) > 0 for point in points if point["pictures"])


@pytest.mark.parametrize("query", ["count=0", "count=169", "count=x", "bucket=week"])
def test_a_history_that_cannot_be_is_refused(server: LiveServer, query: str) -> None:
    assert_refused(server.get(f"{HISTORY}?{query}"), 400, "INVALID_REQUEST")
