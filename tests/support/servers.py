"""Servers that tests share: one for each profile of settings, started when the first test needs it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.documents import KEY, QUICK_SERVER, SMALL_SERVER
from tests.support.live_server import LiveServer, run_server

STYLES = 'name,prompt,negative_prompt\nring,"a ring of {prompt}, thin",\nplain,,busy\n'
LAYER = "transformer.single_transformer_blocks.0.attn.to_out"
ROWS, COLUMNS = 192, 768
FETCH_FROM_LOOPBACK = ("--set", "security.fetch_hosts=127.0.0.1")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """One server for all tests that leave its state unchanged."""
    with run_server(Path(tmp_path_factory.mktemp("server")) / "output") as live:
        yield live


@pytest.fixture(scope="session")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server with user files: styles and an adapter."""
    import numpy as np
    from safetensors.numpy import save_file

    folder = Path(tmp_path_factory.mktemp("furnished"))
    (folder / "loras").mkdir()
    noise = np.random.default_rng(0)
    factors = {
        f"{LAYER}.lora_A.weight": noise.normal(size=(4, COLUMNS)).astype(np.float32),
        f"{LAYER}.lora_B.weight": noise.normal(size=(ROWS, 4)).astype(np.float32),
    }
    save_file(factors, folder / "loras" / "glow.safetensors")
    (folder / "styles.csv").write_text(STYLES)
    chosen = (f"models.lora_dir={folder / 'loras'}", f"generation.styles_file={folder / 'styles.csv'}")
    with run_server(folder / "output", *(part for value in chosen for part in ("--set", value))) as live:
        yield live


@pytest.fixture(scope="session")
def trusting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server that may fetch pictures from loopback, and soon tries a webhook again."""
    output = tmp_path_factory.mktemp("trusting") / "output"
    with run_server(output, *FETCH_FROM_LOOPBACK, program=QUICK_SERVER) as live:
        yield live


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server that requires an API key."""
    output = tmp_path_factory.mktemp("guarded") / "output"
    with run_server(output, *FETCH_FROM_LOOPBACK, "--set", f"security.api_keys=me:{KEY}") as live:
        yield live


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server that paints the documents' fixed sizes at 64 pixels a side."""
    with run_server(tmp_path_factory.mktemp("small") / "output", program=SMALL_SERVER) as live:
        yield live


@pytest.fixture(scope="module")
def tight(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server with small limits for the size and the duration of a body, and a folder of adapters."""
    folder = Path(tmp_path_factory.mktemp("tight"))
    (folder / "loras").mkdir()
    (folder / "loras" / "inside.safetensors").write_bytes(b"weights")
    (folder / "outside.safetensors").write_bytes(b"weights")
    (folder / "loras" / "link.safetensors").symlink_to(folder / "outside.safetensors")
    loras = ("models.follow_links=false", f"models.lora_dir={folder / 'loras'}")
    chosen = ("server.body_seconds=0.5", "server.max_body_mb=1", *loras)
    with run_server(folder / "output", *(part for value in chosen for part in ("--set", value))) as live:
        yield live
