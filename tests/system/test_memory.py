"""The server's memory does not grow with the number of jobs."""

from pathlib import Path

import psutil
import pytest

from tests.support.live_server import LiveServer, run_server

pytestmark = pytest.mark.system

MEBIBYTE = 1024**2


def paint(live: LiveServer, count: int) -> None:
    jobs = [live.submit(seed=seed) for seed in range(count)]
    for job_id in jobs:
        live.wait_for_status(job_id)


@pytest.mark.slow
def test_the_servers_memory_stays_as_it_is(tmp_path: Path) -> None:
    with run_server(tmp_path / "output") as live:
        process = psutil.Process(live.process.pid)
        paint(live, 40)
        before = process.memory_info().rss
        paint(live, 90)
        assert process.memory_info().rss - before < 6 * MEBIBYTE
