from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.live import LiveServer, run_server

pytest.register_assert_rewrite("tests.server.refusals")


@pytest.fixture(scope="module")
def tight(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Run a server with small limits for the size and the duration of a body, and a folder of adapters."""
    folder = Path(tmp_path_factory.mktemp("tight"))
    (folder / "loras").mkdir()
    (folder / "loras" / "inside.safetensors").write_bytes(b"weights")
    (folder / "outside.safetensors").write_bytes(b"weights")
    (folder / "loras" / "link.safetensors").symlink_to(folder / "outside.safetensors")
    chosen = ("server.body_seconds=0.5", "server.max_body_mb=1", f"models.lora_dir={folder / 'loras'}")
    with run_server(folder / "output", *(part for value in chosen for part in ("--set", value))) as live:
        yield live
