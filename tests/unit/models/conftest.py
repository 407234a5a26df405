"""A fake Hugging Face hub on loopback, and an environment that uses no other."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import close_session

from mflux_api.models import download
from mflux_api.models.registry import load_registry
from tests.support.hub import FakeHub, run_hub
from tests.support.hub_downloads import CHUNK, EXTRAS, NAME, SPEC, TINY


@pytest.fixture
def quick_and_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Isolate downloads: no waits between attempts, small chunks, and no token, cache or proxy of the user."""
    monkeypatch.setattr(download, "RETRY_SECONDS", (0.0, 0.0))
    monkeypatch.setattr(download, "CHUNK", CHUNK)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(load_registry(), NAME, SPEC)
    close_session()
    yield
    close_session()


@pytest.fixture
def hub(quick_and_alone: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with run_hub({**TINY, **EXTRAS}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    return tmp_path / "models"
