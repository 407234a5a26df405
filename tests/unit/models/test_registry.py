import json
import shutil
from pathlib import Path

import pytest

from mflux_api.checkpoints.detection import measure_disk_usage
from mflux_api.errors import ModelNotDownloaded, ModelNotFound, ModelUnsupported
from mflux_api.models.registry import (
    EMBEDDED_MODELS_DIR,
    ModelSpec,
    find_spec,
    find_unregistered_models,
    is_downloaded,
    load_registry,
    resolve_client_model,
    resolve_model,
)
from tests.support.empty_weights import SAFETENSORS, TOKENIZER, write_model

SIZES = ["4b", "9b", "base-4b", "base-9b"]
DOCUMENTED = [
    *(f"flux2-klein-{size}" for size in SIZES),
    *(f"flux2-klein-{size}-{bits}-bit" for size in SIZES for bits in (3, 4, 6, 8)),
    *(f"flux2-klein-{size}-mlx-{bits}bit" for size in ("4b", "9b", "base-4b") for bits in (4, 8)),
    *("flux2-dev", "flux2-dev-4-bit", "flux2-dev-8-bit", "seedvr2"),
]

FLUX1_NAMES = [
    *("schnell", "Schnell", "dev", "flux1-dev", "flux1-schnell", "flux.1-schnell", "FLUX.1-schnell"),
    *("flux-1-dev", "flux-dev", "krea-dev", "dev-krea", "dev-kontext", "schnell-4-bit"),
]
# {} stands for the models folder, which is also the working directory.
NO_NAMES = [
    *(
        "",
        ".",
        "..",
        "~",
        "./my.Model_1",
        "my.Model_1/",
        "my.Model_1/transformer",
        "../models/my.Model_1",
        "{}/my.Model_1",
    ),
    *("my.Model_1\\", "my.Model_1\0", "my.Model_1\n", "\0", "my.Model_1?"),
]


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    """A folder of models with one that is not in the registry."""
    models_dir = tmp_path / "models"
    make_checkpoint(models_dir / "my.Model_1")
    return models_dir


def make_checkpoint(folder: Path) -> Path:
    return write_model(folder)


def test_the_embedded_model_is_found_from_anywhere(tmp_path: Path) -> None:
    assert resolve_model("flux2-tiny", tmp_path).folder == EMBEDDED_MODELS_DIR / "flux2-tiny"


def test_the_base_variant_shares_the_embedded_weights(tmp_path: Path) -> None:
    located = resolve_model("flux2-tiny-base", tmp_path)
    assert located.folder == EMBEDDED_MODELS_DIR / "flux2-tiny"
    assert located.spec.distilled is False


def test_names_are_found_in_any_case(tmp_path: Path) -> None:
    assert resolve_model("FLUX2-Tiny", tmp_path).spec.name == "flux2-tiny"


@pytest.mark.parametrize("bits", [3, 4, 6, 8])
def test_each_width_has_a_name(bits: int) -> None:
    assert load_registry()[f"flux2-klein-4b-{bits}-bit"].quantize == bits


def test_a_folder_in_the_models_directory_is_used(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "flux2-klein-4b")
    assert resolve_model("flux2-klein-4b-4-bit", tmp_path).folder == tmp_path / "flux2-klein-4b"


def test_a_path_to_a_folder_is_a_model(tmp_path: Path) -> None:
    located = resolve_model(str(tmp_path), Path("models"))
    assert (located.folder, located.spec.distilled) == (tmp_path, None)


def test_a_snapshot_in_the_hugging_face_cache_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    spec = load_registry()["flux2-klein-9b"]
    snapshot = tmp_path / "models--black-forest-labs--FLUX.2-klein-9B" / "snapshots" / str(spec.revision)
    make_checkpoint(snapshot)
    assert resolve_model("flux2-klein-9b", tmp_path / "models").folder == snapshot


def test_an_unknown_name_is_refused_with_the_nearest_ones(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound) as caught:
        resolve_model("flux2-klein-4", tmp_path)
    assert caught.value.code == "MODEL_NOT_FOUND"
    assert caught.value.message.startswith("Model 'flux2-klein-4' not found: neither a known name nor a folder.")
    assert "flux2-klein-4b" in caught.value.message


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="There is no model folder at"):
        resolve_model(str(tmp_path / "nothing"), tmp_path)


def test_a_known_model_without_files_says_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ModelNotDownloaded) as caught:
        resolve_model("flux2-klein-9b", tmp_path)
    assert caught.value.code == "MODEL_NOT_DOWNLOADED"
    assert "hf download black-forest-labs/FLUX.2-klein-9B --local-dir" in caught.value.message


# The document's table


@pytest.mark.parametrize("name", DOCUMENTED)
def test_every_documented_name_is_known(name: str) -> None:
    spec = find_spec(name)
    assert spec.repository
    assert spec.licence in ("Apache-2.0", "FLUX Non-Commercial")


@pytest.mark.parametrize("name", ["flux2-klein-9b-4-bit", "flux2-dev-8-bit"])
def test_a_quantized_variant_has_the_facts_of_what_is_downloaded(name: str) -> None:
    variant, base = find_spec(name), find_spec(name[: -len("-4-bit")])
    assert (variant.size_gb, variant.licence, variant.gated, variant.unavailable) == (
        base.size_gb,
        base.licence,
        True,
        base.unavailable,
    )


def test_a_model_that_cannot_paint_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(load_registry(), "later", ModelSpec(name="later", unavailable="Not with this version."))
    for locating in (resolve_model, resolve_client_model):
        with pytest.raises(ModelUnsupported) as caught:
            locating("later", tmp_path)
        assert caught.value.message == "Not with this version."


@pytest.mark.parametrize("name", ["flux2-dev", "flux2-dev-4-bit", "flux2-dev-8-bit"])
def test_dev_paints_with_the_references_defaults(name: str) -> None:
    spec, can = find_spec(name), find_spec(name).capabilities
    assert (can.default_steps, can.default_guidance, can.guidance) == (50, 4.0, "embedded")
    assert (spec.gated, spec.unavailable) == (True, "")


def test_a_gated_model_says_what_to_accept_and_where_the_token_goes(tmp_path: Path) -> None:
    with pytest.raises(ModelNotDownloaded) as caught:
        resolve_model("flux2-dev-4-bit", tmp_path)
    for words in ("accept its licence on https://huggingface.co/black-forest-labs/FLUX.2-dev", "HF_TOKEN"):
        assert words in caught.value.message


@pytest.mark.parametrize("name", FLUX1_NAMES)
def test_flux1_names_are_answered_with_what_replaces_them(tmp_path: Path, name: str) -> None:
    for locating in (resolve_model, resolve_client_model):
        with pytest.raises(ModelNotFound) as caught:
            locating(name, tmp_path)
        assert caught.value.message == (
            f"Model '{name}' not found. Flux1 models removed. Use flux2-klein-4b or flux2-klein-9b"
        )


@pytest.mark.parametrize("name", ["flux2-devil", "flux2", "flux-10", "development", "x-schnell"])
def test_other_names_are_not_taken_for_flux1(name: str) -> None:
    with pytest.raises(ModelNotFound) as caught:
        find_spec(name)
    assert "Flux1" not in caught.value.message


@pytest.mark.parametrize("name", ["schnell", "nothing"])
def test_an_unknown_name_is_answered_with_those_that_there_are(name: str) -> None:
    with pytest.raises(ModelNotFound) as caught:
        find_spec(name)
    available = caught.value.details["available_models"]
    assert isinstance(available, list)
    assert {"flux2-tiny", "flux2-klein-4b", "flux2-klein-9b-mlx-4bit"} <= set(available)
    assert "flux2-klein-4b-4-bit" not in available


# Folders


def test_a_checkpoint_in_the_models_directory_is_a_model(models_dir: Path) -> None:
    assert [spec.name for spec in find_unregistered_models(models_dir)] == ["my.Model_1"]
    located = resolve_client_model("my.Model_1", models_dir)
    assert (located.folder, located.spec) == (models_dir / "my.Model_1", *find_unregistered_models(models_dir))
    assert is_downloaded(located.spec, models_dir)


def test_the_diffusers_layout_is_a_model(tmp_path: Path) -> None:
    shutil.copytree(EMBEDDED_MODELS_DIR / "flux2-tiny", tmp_path / "copy")
    assert [spec.name for spec in find_unregistered_models(tmp_path)] == ["copy"]


def test_a_missing_models_directory_has_no_models(tmp_path: Path) -> None:
    assert list(find_unregistered_models(tmp_path / "nothing")) == []


@pytest.mark.parametrize(
    "name", ["flux2-klein-4b", "FLUX2-Klein-4B", "flux2-klein-4b-4-bit", ".hidden", "line\n", "x" * 101]
)
def test_registry_folders_and_odd_names_are_not_listed(tmp_path: Path, name: str) -> None:
    make_checkpoint(tmp_path / name)
    assert list(find_unregistered_models(tmp_path)) == []


@pytest.mark.parametrize("part", ["transformer", "text_encoder", "vae"])
def test_a_folder_without_one_of_the_networks_is_no_model(models_dir: Path, part: str) -> None:
    (models_dir / "my.Model_1" / part / "0.safetensors").unlink()
    assert list(find_unregistered_models(models_dir)) == []
    with pytest.raises(ModelNotFound):
        resolve_client_model("my.Model_1", models_dir)


@pytest.mark.parametrize("index", [{"_class_name": "FluxPipeline"}, {}, [], "no JSON"])
def test_another_pipeline_is_no_model(models_dir: Path, index: object) -> None:
    text = index if isinstance(index, str) else json.dumps(index)
    (models_dir / "my.Model_1" / "model_index.json").write_text(text)
    assert list(find_unregistered_models(models_dir)) == []


def test_a_link_that_leads_outside_is_listed_if_links_are_followed(models_dir: Path, tmp_path: Path) -> None:
    (models_dir / "inside").symlink_to(models_dir / "my.Model_1")
    (models_dir / "outside").symlink_to(make_checkpoint(tmp_path / "elsewhere"))
    own = find_unregistered_models(models_dir, follow_links=False)
    assert [spec.name for spec in own] == ["inside", "my.Model_1"]
    with pytest.raises(ModelNotFound):
        resolve_client_model("outside", models_dir, follow_links=False)
    assert [spec.name for spec in find_unregistered_models(models_dir)] == ["inside", "my.Model_1", "outside"]
    assert resolve_client_model("outside", models_dir).folder == models_dir / "outside"


# Names from clients


def test_a_client_may_name_a_model_of_the_registry(tmp_path: Path) -> None:
    assert resolve_client_model("FLUX2-Tiny", tmp_path).folder == EMBEDDED_MODELS_DIR / "flux2-tiny"


def test_a_known_model_without_files_is_not_downloaded_for_clients_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ModelNotDownloaded):
        resolve_client_model("flux2-klein-9b", tmp_path)


@pytest.mark.parametrize("name", NO_NAMES)
def test_a_client_may_not_name_a_path(models_dir: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(models_dir)
    with pytest.raises(ModelNotFound):
        resolve_client_model(name.format(models_dir), models_dir)


@pytest.mark.parametrize("name", ["x" * 101, "x" * 1_000_000, "flux1" + "x" * 1_000_000, "/" * 5000])
def test_a_long_name_is_not_echoed(models_dir: Path, name: str) -> None:
    with pytest.raises(ModelNotFound) as caught:
        resolve_client_model(name, models_dir)
    echoed = caught.value.message.split("'")[1]
    assert len(echoed) <= 100
    assert len(str(caught.value.details["model"])) <= 100


# Sizes


def test_the_size_on_disk_counts_each_file_once(models_dir: Path) -> None:
    folder = models_dir / "my.Model_1"
    (folder / "again.safetensors").hardlink_to(folder / "vae" / "0.safetensors")
    (folder / "broken").symlink_to(folder / "nothing")
    assert measure_disk_usage(folder) == 3 * len(SAFETENSORS) + len(TOKENIZER)


def test_the_size_on_disk_follows_links_to_the_cache(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"12345")
    snapshot = tmp_path / "snapshot" / "vae"
    snapshot.mkdir(parents=True)
    for name in ("a", "b"):
        (snapshot / name).symlink_to(tmp_path / "blob")
    assert measure_disk_usage(tmp_path / "snapshot") == 5
