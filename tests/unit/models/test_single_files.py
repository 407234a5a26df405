"""Models whose transformer is one file: detection, and the files they take from another repository."""

from pathlib import Path

import pytest

from mflux_api.checkpoints.detection import compute_fingerprint
from mflux_api.errors import ModelNotDownloaded, ModelNotFound
from mflux_api.models import download
from mflux_api.models.registry import (
    ModelSpec,
    find_spec,
    find_unregistered_models,
    is_downloaded,
    load_registry,
    resolve_model,
)
from tests.support.empty_weights import make_contents, write_model, write_weights
from tests.support.hub import REPOSITORY, FakeHub
from tests.support.hub_downloads import fetch_model

FILE = "flux-2-fp8.safetensors"
BUNDLE = ModelSpec(name="bundle", folder="bundle", repository=REPOSITORY, files=(FILE,), rest="whole", gated=True)
WHOLE = ModelSpec(name="whole", folder="whole", repository="tester/whole")
REST = ["model_index.json", "transformer/config.json", "text_encoder/model.safetensors", "tokenizer/tokenizer.json"]
REST += ["scheduler/scheduler_config.json", "vae/model.safetensors", "text_encoder/config.json", "vae/config.json"]
OTHERS = ["transformer/model.safetensors", "transformer/model.safetensors.index.json", "README.md"]


def write_single_file(folder: Path, transformer: str) -> Path:
    return write_model(folder, transformer=transformer)


@pytest.mark.parametrize("name", ["x-Q4_K.gguf", "transformer.gguf", "transformer/x.gguf", "flux-2-fp8.safetensors"])
def test_a_folder_with_a_transformer_in_one_file_is_a_model(tmp_path: Path, name: str) -> None:
    write_single_file(tmp_path / "mine", name)
    assert [spec.name for spec in find_unregistered_models(tmp_path)] == ["mine"]
    assert compute_fingerprint(tmp_path / "mine") is not None


def test_a_file_alone_is_no_model_for_clients(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x.gguf").write_bytes(b"weights")
    assert list(find_unregistered_models(tmp_path)) == []


def test_a_path_to_a_file_is_a_model(tmp_path: Path) -> None:
    path = write_single_file(tmp_path / "mine", "x-Q4_K.gguf") / "x-Q4_K.gguf"
    located = resolve_model(path, tmp_path)
    assert (located.folder, located.spec.name) == (path, "x-Q4_K")
    assert resolve_model(str(path), tmp_path) == located


@pytest.mark.parametrize("name", ["x.ckpt", "missing.gguf"])
def test_another_file_is_none(tmp_path: Path, name: str) -> None:
    (tmp_path / "x.ckpt").write_bytes(b"weights")
    with pytest.raises(ModelNotFound):
        resolve_model(tmp_path / name, tmp_path)


@pytest.mark.parametrize("name", ["flux2-klein-4b-fp8", "flux2-klein-9b-fp8"])
def test_the_published_8_bit_floats_say_where_the_rest_comes_from(tmp_path: Path, name: str) -> None:
    spec = find_spec(name)
    rest = load_registry()[spec.rest]
    assert (spec.distilled, spec.licence, spec.gated) == (rest.distilled, rest.licence, rest.gated)
    assert spec.size_gb is not None
    assert rest.size_gb is not None
    assert 0.5 * rest.size_gb < spec.size_gb < rest.size_gb
    with pytest.raises(ModelNotDownloaded) as caught:
        resolve_model(name, tmp_path)
    for words in (*spec.files, str(spec.repository), str(rest.repository), "'text_encoder/*'"):
        assert words in caught.value.message


def test_it_is_here_when_the_rest_is(tmp_path: Path) -> None:
    folder = write_single_file(tmp_path / "flux2-klein-9b-fp8", "flux-2-klein-9b-fp8.safetensors")
    assert is_downloaded(find_spec("flux2-klein-9b-fp8"), tmp_path)
    (folder / "vae" / "0.safetensors").unlink()
    (folder / "vae").rmdir()
    assert not is_downloaded(find_spec("flux2-klein-9b-fp8"), tmp_path)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "find_spec", {"whole": WHOLE}.__getitem__)


@pytest.mark.usefixtures("known")
def test_a_download_brings_the_file_and_the_rest_from_two_repositories(hub: FakeHub, tmp_path: Path) -> None:
    hub.files = make_contents((FILE, *REST, *OTHERS))
    hub.repositories = (REPOSITORY, "tester/whole")
    heard = fetch_model(tmp_path, BUNDLE)
    folder = tmp_path / "bundle"
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == {FILE, *REST}
    assert heard[-1].done_bytes == heard[-1].total_bytes == sum(len(hub.files[name]) for name in found)
    asked = {path for path, _ in hub.requests}
    assert any(REPOSITORY in path and FILE in path for path in asked)
    assert any("tester/whole" in path and "text_encoder" in path for path in asked)
    assert not any("tester/whole" in path and FILE in path for path in asked)


@pytest.mark.usefixtures("known")
def test_a_folder_that_lacks_the_rest_is_fetched_on(hub: FakeHub, tmp_path: Path) -> None:
    hub.files = make_contents((FILE, *REST, *OTHERS))
    hub.repositories = (REPOSITORY, "tester/whole")
    mine = write_weights(tmp_path / "bundle" / FILE)
    before = mine.stat()
    fetch_model(tmp_path, BUNDLE)
    assert (mine.stat().st_ino, mine.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert (tmp_path / "bundle" / "vae" / "model.safetensors").is_file()
    assert not any(FILE in path for path, _ in hub.requests)
