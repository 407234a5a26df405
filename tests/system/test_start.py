"""Starting and stopping."""

import http.client
import re
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.live_server import LiveServer, run_server
from tests.support.marks import slow_but

pytestmark = pytest.mark.system


def test_it_is_healthy(server: LiveServer) -> None:
    health = server.get("/api/v1/health").json()
    assert health["status"] == "healthy"
    assert health["models_available"] >= 10


@pytest.mark.parametrize("module", slow_but(["uvloop", "httptools"], "uvloop"))
def test_it_paints_whatever_else_is_installed_that_uvicorn_would_take(tmp_path: Path, module: str) -> None:
    (tmp_path / f"{module}.py").write_text("raise RuntimeError('it was taken')")
    with run_server(tmp_path / "output", environ={"PYTHONPATH": str(tmp_path)}) as server:
        assert server.wait_for_status(server.submit())["status"] == "completed"


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads /proc, which Linux has")
def test_the_servers_process_has_neither_mlx_nor_a_blas_after_a_picture(tmp_path: Path) -> None:
    with run_server(tmp_path / "output") as server:
        assert server.wait_for_status(server.submit())["status"] == "completed"
        maps = Path(f"/proc/{server.process.pid}/maps").read_text()
        engine = Path(f"/proc/{server.engine_processes[0].pid}/maps").read_text()
    assert re.findall(r"mlx|blas|numpy|transformers", maps) == []
    assert "mlx" in engine


@pytest.mark.slow
def test_a_script_that_asks_every_few_seconds_keeps_its_connection(server: LiveServer) -> None:
    with closing(http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)) as connection:
        for pause in (0, 6):
            time.sleep(pause)
            connection.request("GET", "/api/v1/health")
            assert connection.getresponse().read()
