"""A model is here when every part it needs is here, whole; the rest is fetched, and nothing else is touched."""

import json
import logging
import shutil
import threading
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from mflux_api.checkpoints.checkpoint import Checkpoint
from mflux_api.errors import ModelIncomplete, ModelNotDownloaded, ModelNotFound
from mflux_api.models.download import download
from mflux_api.models.registry import (
    EMBEDDED_MODELS_DIR,
    find_unregistered_models,
    load_registry,
    resolve_client_model,
)
from tests.support.empty_weights import write_model, write_weights
from tests.support.hub import FakeHub
from tests.support.hub_downloads import NAME, NEEDED, SPEC, WEIGHTS

TINY = EMBEDDED_MODELS_DIR / "flux2-tiny"
APPLEDOUBLE = bytes.fromhex("0005160700020000") + b"Mac OS X        " + bytes(4000)
BRACKETS = b"[" * 100_000
VAE = "vae/diffusion_pytorch_model.safetensors"


def cut(path: Path, rest: int) -> None:
    path.write_bytes(path.read_bytes()[:rest])


def add_index(folder: Path, *names: str) -> None:
    index = {"metadata": {}, "weight_map": {f"tensor.{number}": name for number, name in enumerate(names)}}
    (folder / "transformer" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))


def only(folder: Path, *names: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file() and path.relative_to(folder).as_posix() not in names:
            path.unlink()


INCOMPLETE: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (only, "transformer"),
    "one file": (lambda folder: only(folder, "model_index.json"), "transformer"),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), "transformer"),
    "no autoencoder": (lambda folder: shutil.rmtree(folder / "vae"), "vae"),
    "no tokenizer": (lambda folder: shutil.rmtree(folder / "tokenizer"), "tokenizer"),
    "no vocabulary": (lambda folder: (folder / "tokenizer" / "tokenizer.json").unlink(), "tokenizer"),
    "half a vocabulary": (lambda folder: cut(folder / "tokenizer" / "tokenizer.json", 500), "tokenizer"),
    "no config": (lambda folder: (folder / "vae" / "config.json").unlink(), "vae/config.json"),
    "half a config": (lambda folder: cut(folder / "text_encoder" / "config.json", 20), "text_encoder/config.json"),
    "cut off": (lambda folder: cut(folder / WEIGHTS, 50_000), WEIGHTS),
    "cut off by a byte": (lambda folder: cut(folder / VAE, -1), VAE),
    "cut off in the header": (lambda folder: cut(folder / VAE, 100), VAE),
    "empty": (lambda folder: cut(folder / VAE, 0), VAE),
    "zeros": (lambda folder: (folder / VAE).write_bytes(bytes(10_000)), VAE),
    "pointer": (lambda folder: (folder / VAE).write_text("version https://git-lfs.github.com/spec/v1\n"), VAE),
    "web page": (lambda folder: (folder / VAE).write_text("<!doctype html><html>"), VAE),
    "broken link": (lambda folder: replace_by_link(folder / VAE), "vae"),
    "a missing shard": (
        lambda folder: add_index(folder, "a.safetensors", Path(WEIGHTS).name),
        "transformer/a.safetensors",
    ),
    "a missing numbered shard": (lambda folder: number(folder / WEIGHTS), "model-00002-of-00002.safetensors"),
    "only a companion file": (lambda folder: companion_only(folder / VAE), "vae"),
}


def replace_by_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("gone")


def number(path: Path) -> None:
    path.rename(path.with_name("model-00001-of-00002.safetensors"))


def companion_only(path: Path) -> None:
    path.with_name(f"._{path.name}").write_bytes(path.read_bytes())
    path.unlink()


@pytest.fixture
def models_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "models"


def copy_tiny(folder: Path) -> Path:
    return Path(shutil.copytree(TINY, folder, ignore=shutil.ignore_patterns("samples")))


@pytest.mark.parametrize("kind", INCOMPLETE)
def test_a_folder_of_ones_own_that_is_not_whole_is_no_model(
    models_dir: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    spoil, named = INCOMPLETE[kind]
    spoil(copy_tiny(models_dir / "mine"))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert list(find_unregistered_models(models_dir)) == []
    with pytest.raises((ModelIncomplete, ModelNotFound)) as caught:
        resolve_client_model("mine", models_dir)
    if isinstance(caught.value, ModelIncomplete):
        assert named in caught.value.message
        assert str(models_dir) not in caught.value.message
        assert len([record for record in caplog.records if "no model yet" in record.message]) == 1


@pytest.mark.parametrize("kind", INCOMPLETE)
@pytest.mark.parametrize("cached", [False, True], ids=["folder", "cache"])
def test_a_known_model_that_is_not_whole_is_not_downloaded(
    models_dir: Path, tmp_path: Path, kind: str, cached: bool
) -> None:
    spec = load_registry()["flux2-klein-4b"]
    snapshot = tmp_path / "cache" / "models--black-forest-labs--FLUX.2-klein-4B" / "snapshots" / str(spec.revision)
    folder = copy_tiny(snapshot if cached else models_dir / "flux2-klein-4b")
    assert resolve_client_model("flux2-klein-4b", models_dir).folder == folder
    INCOMPLETE[kind][0](folder)
    for name in ("flux2-klein-4b", "flux2-klein-4b-4-bit"):
        with pytest.raises(ModelNotDownloaded):
            resolve_client_model(name, models_dir)


FETCHABLE = [kind for kind in INCOMPLETE if "shard" not in kind]


@pytest.mark.parametrize("kind", FETCHABLE)
def test_a_half_filled_folder_is_fetched_on(hub: FakeHub, models_dir: Path, kind: str) -> None:
    folder = copy_tiny(models_dir / NAME)
    (folder / "notes.txt").write_text("mine")
    INCOMPLETE[kind][0](folder)
    is_mine = (folder / "notes.txt").is_file()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    download(SPEC, models_dir, lambda _: None, threading.Event())
    for name in ("model_index.json", WEIGHTS, VAE, "tokenizer/tokenizer.json", "vae/config.json"):
        assert (folder / name).is_file()
    assert (folder / "notes.txt").is_file() is is_mine
    assert sum(path.stat().st_mtime_ns != before[path] for path in before) <= 1
    assert not any(path.name.endswith(".partial") for path in models_dir.iterdir())
    assert hub.requests


def test_a_file_that_was_cut_off_is_continued(hub: FakeHub, models_dir: Path) -> None:
    folder = copy_tiny(models_dir / NAME)
    cut(folder / WEIGHTS, 50_000)
    download(SPEC, models_dir, lambda _: None, threading.Event())
    assert (folder / WEIGHTS).read_bytes() == NEEDED[WEIGHTS]
    ranges = [headers.get("range") for path, headers in hub.requests if path.endswith(WEIGHTS)]
    assert ranges == ["bytes=50000-"]


@pytest.mark.parametrize("kind", [kind for kind in INCOMPLETE if "shard" in kind])
@pytest.mark.usefixtures("hub")
def test_a_file_that_the_repository_lacks_is_named(models_dir: Path, kind: str) -> None:
    spoil, named = INCOMPLETE[kind]
    spoil(copy_tiny(models_dir / NAME))
    with pytest.raises(ModelIncomplete, match=named):
        download(SPEC, models_dir, lambda _: None, threading.Event())


def test_what_the_cache_has_is_not_fetched_again(hub: FakeHub, models_dir: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "cache" / f"models--{str(SPEC.repository).replace('/', '--')}" / "snapshots"
    folder = copy_tiny(snapshot / str(SPEC.revision))
    (folder / VAE).unlink()
    download(SPEC, models_dir, lambda _: None, threading.Event())
    fetched = {path for path, _ in hub.requests if path.endswith(".safetensors")}
    assert [path.endswith(VAE) for path in fetched] == [True]
    assert (models_dir / NAME / WEIGHTS).read_bytes() == NEEDED[WEIGHTS]


@pytest.mark.parametrize(
    "where", [WEIGHTS, VAE, f"{WEIGHTS}.index.json", "text_encoder/x.safetensors", "x.safetensors"]
)
def test_companion_files_are_no_weights(models_dir: Path, where: str) -> None:
    path = copy_tiny(models_dir / "mine") / where
    path.with_name(f"._{path.name}").write_bytes(APPLEDOUBLE)
    assert [spec.name for spec in find_unregistered_models(models_dir)] == ["mine"]


COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "Mein Modell für Käse") for form in ("NFC", "NFD"))


@pytest.mark.parametrize("folder", ["with space", "ä", COMPOSED, DECOMPOSED, "日本語", "a+b (2)", "x'y", "-x", "a.b"])
def test_any_readable_folder_name_is_a_model(models_dir: Path, folder: str) -> None:
    write_model(models_dir / folder)
    (spec,) = find_unregistered_models(models_dir)
    assert spec.name == unicodedata.normalize("NFC", folder)
    for name in (spec.name, folder, spec.name.upper(), unicodedata.normalize("NFD", spec.name)):
        assert resolve_client_model(name, models_dir).folder == models_dir / folder


def test_two_folders_that_differ_in_case_are_two_models(models_dir: Path) -> None:
    write_model(models_dir / "Mine")
    write_model(models_dir / "mine")
    for name in ("Mine", "mine"):
        assert resolve_client_model(name, models_dir).folder.name == name


def test_a_link_to_nothing_is_skipped_and_logged_once(models_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_model(models_dir / "mine")
    (models_dir / "gone").symlink_to("nothing")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert [spec.name for spec in find_unregistered_models(models_dir)] == ["mine"]
    assert len(caplog.records) == 1


def link_to_nothing(folder: Path) -> None:
    (folder / "transformer" / "more.safetensors").symlink_to("/Volumes/external/more.safetensors")


def folder_like_weights(folder: Path) -> None:
    (folder / "transformer" / "more.safetensors").mkdir()


@pytest.mark.parametrize("add", [link_to_nothing, folder_like_weights])
def test_what_is_no_file_is_skipped_among_the_weights(models_dir: Path, add: Callable[[Path], None]) -> None:
    folder = copy_tiny(models_dir / "mine")
    add(folder)
    assert resolve_client_model("mine", models_dir).folder == folder
    assert Checkpoint.read(folder).transformer.shards


@pytest.mark.parametrize("file", ["model_index.json", f"{WEIGHTS}.index.json", WEIGHTS])
def test_a_file_of_brackets_breaks_no_list(models_dir: Path, file: str) -> None:
    path = copy_tiny(models_dir / "mine") / file
    path.write_bytes(len(BRACKETS).to_bytes(8, "little") + BRACKETS if file == WEIGHTS else BRACKETS)
    assert list(find_unregistered_models(models_dir)) == []


def test_a_transformer_beside_the_folders_may_not_be_cut_off(models_dir: Path) -> None:
    folder = write_model(models_dir / "mine", transformer="model.gguf")
    assert resolve_client_model("mine", models_dir).folder == folder
    cut(folder / "model.gguf", 20)
    with pytest.raises(ModelIncomplete, match=r"model\.gguf"):
        resolve_client_model("mine", models_dir)
    write_weights(folder / "model.gguf")
    assert resolve_client_model("mine", models_dir).folder == folder
