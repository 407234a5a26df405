"""A server with user files: styles and an adapter."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.server.live import LiveServer, run_server

STYLES = 'name,prompt,negative_prompt\nring,"a ring of {prompt}, thin",\nplain,,busy\n'
LAYER = "transformer.single_transformer_blocks.0.attn.to_out"
ROWS, COLUMNS = 192, 768


@pytest.fixture(scope="session")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
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
