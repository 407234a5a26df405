"""Starting and stopping."""

from pathlib import Path

import pytest

from tests.server.live import Live, running


def test_it_is_healthy(server: Live) -> None:
    health = server.get("/api/v1/health").json()
    assert health["status"] == "healthy"
    assert health["models_available"] >= 10


@pytest.mark.parametrize("module", ["uvloop", "httptools"])
def test_it_paints_whatever_else_is_installed_that_uvicorn_would_take(tmp_path: Path, module: str) -> None:
    (tmp_path / f"{module}.py").write_text("raise RuntimeError('it was taken')")
    with running(tmp_path / "output", environ={"PYTHONPATH": str(tmp_path)}) as server:
        assert server.until(server.submit())["status"] == "completed"
