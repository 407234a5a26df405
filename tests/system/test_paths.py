"""Errors do not contain paths of the server's own folders."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mflux_api.models.registry import EMBEDDED_MODELS_DIR
from tests.support.live_server import LiveServer, run_server

pytestmark = pytest.mark.system

# What is missing from a damaged model, and the code of the error; None where it depends on the moment it is noticed.
MISSING = {"transformer/config.json": "MODEL_INCOMPLETE", "tokenizer": "MODEL_INCOMPLETE", "vae": None}


def name_damaged(missing: str) -> str:
    return f"without-{Path(missing).stem}"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server with a model for each kind of damage."""
    folder = Path(tmp_path_factory.mktemp("paths"))
    for missing in MISSING:
        model = folder / "hidden" / name_damaged(missing)
        shutil.copytree(EMBEDDED_MODELS_DIR / "flux2-tiny", model, copy_function=os.link)
        shutil.rmtree(model / missing) if (model / missing).is_dir() else (model / missing).unlink()
    with run_server(folder / "output", "--models-dir", str(folder / "hidden")) as live:
        yield live


@pytest.mark.parametrize(("missing", "code"), MISSING.items())
def test_an_error_about_a_damaged_model_names_its_files_and_not_where_they_lie(
    live: LiveServer, missing: str, code: str | None
) -> None:
    model = name_damaged(missing)
    body = {"prompt": "x", "model": model, "width": 64, "height": 64, "steps": 1}
    replies = [live.post("/sdapi/v1/txt2img", body), live.post(f"/api/v1/models/{model}/load")]
    for reply in replies:
        assert reply.status_code >= 400
        assert str(live.output.parent) not in reply.text
        assert code is None or reply.json()["code"] == code
    assert live.post("/sdapi/v1/txt2img", {**body, "model": "flux2-tiny"}).status_code == 200
