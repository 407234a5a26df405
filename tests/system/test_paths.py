"""Errors do not contain paths of the server's own folders."""

import os
import shutil
from pathlib import Path

import pytest

from mflux_api.models.registry import EMBEDDED_MODELS_DIR
from tests.support.live_server import run_server

pytestmark = pytest.mark.system


@pytest.mark.parametrize(
    ("missing", "code"),
    [("transformer/config.json", "MODEL_INCOMPLETE"), ("tokenizer", "MODEL_INCOMPLETE"), ("vae", None)],
)
def test_an_error_about_a_damaged_model_names_its_files_and_not_where_they_lie(
    tmp_path: Path, missing: str, code: str | None
) -> None:
    model = tmp_path / "hidden" / "damaged"
    shutil.copytree(EMBEDDED_MODELS_DIR / "flux2-tiny", model, copy_function=os.link)
    shutil.rmtree(model / missing) if (model / missing).is_dir() else (model / missing).unlink()
    body = {"prompt": "x", "model": "damaged", "width": 64, "height": 64, "steps": 1}
    with run_server(tmp_path / "output", "--models-dir", str(tmp_path / "hidden")) as live:
        replies = [live.post("/sdapi/v1/txt2img", body), live.post("/api/v1/models/damaged/load")]
        for reply in replies:
            assert reply.status_code >= 400
            assert str(tmp_path) not in reply.text
            assert code is None or reply.json()["code"] == code
        assert live.post("/sdapi/v1/txt2img", {**body, "model": "flux2-tiny"}).status_code == 200
