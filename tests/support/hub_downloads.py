"""The model that the fake hub serves, and helpers to download it."""

import threading
from pathlib import Path

import pytest

from mflux_api.errors import MfluxError, ModelNotDownloaded
from mflux_api.models.download import download
from mflux_api.models.download_queue import DownloadProgress
from mflux_api.models.registry import EMBEDDED_MODELS_DIR, ModelSpec, find_unregistered_models, resolve_model
from tests.support.hub import COMMIT, REPOSITORY, read_files

NAME = "flux2-test"
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
FIRST_WEIGHTS = "text_encoder/model.safetensors"
CONFIG = "transformer/config.json"
SPEC = ModelSpec(name=NAME, folder=NAME, repository=REPOSITORY, revision=COMMIT)
TINY = read_files(EMBEDDED_MODELS_DIR / "flux2-tiny")
NEEDED = {name: body for name, body in TINY.items() if not name.endswith(".jpg")}
CHUNK = 1 << 14
EXTRAS = {
    "flux2-tiny.safetensors": b"the transformer once more, in one file",
    ".gitattributes": b"",
    "../outside.json": b"{}",
    "/outside.json": b"{}",
    "vae/.hidden.json": b"{}",
}


def fetch_model(models_dir: Path, spec: ModelSpec = SPEC) -> list[DownloadProgress]:
    heard: list[DownloadProgress] = []
    download(spec, models_dir, heard.append, threading.Event())
    return heard


def expect_refusal(models_dir: Path, kind: type[MfluxError], spec: ModelSpec = SPEC) -> MfluxError:
    """Return the error of a failing download; assert that it leaves no model behind."""
    with pytest.raises(kind) as caught:
        fetch_model(models_dir, spec)
    assert_no_model(models_dir)
    return caught.value


def assert_no_model(models_dir: Path) -> None:
    with pytest.raises(ModelNotDownloaded):
        resolve_model(NAME, models_dir)
    assert list(find_unregistered_models(models_dir)) == []


def partial_path(models_dir: Path, name: str) -> Path:
    return models_dir / f".{NAME}.partial" / name
