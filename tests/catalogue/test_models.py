from pathlib import Path

import pytest

from mflux_api.catalogue.models import EMBEDDED, locate, registry
from mflux_api.errors import ModelNotDownloaded, ModelNotFound


def test_the_embedded_model_is_found_from_anywhere(tmp_path: Path) -> None:
    assert locate("flux2-tiny", tmp_path).folder == EMBEDDED / "flux2-tiny"


def test_the_base_variant_shares_the_embedded_weights(tmp_path: Path) -> None:
    located = locate("flux2-tiny-base", tmp_path)
    assert located.folder == EMBEDDED / "flux2-tiny"
    assert located.spec.distilled is False


def test_names_are_found_in_any_case(tmp_path: Path) -> None:
    assert locate("FLUX2-Tiny", tmp_path).spec.name == "flux2-tiny"


@pytest.mark.parametrize("bits", [3, 4, 6, 8])
def test_each_width_has_a_name(bits: int) -> None:
    assert registry()[f"flux2-klein-4b-{bits}-bit"].quantize == bits


def test_a_folder_in_the_models_directory_is_used(tmp_path: Path) -> None:
    (tmp_path / "flux2-klein-4b").mkdir()
    assert locate("flux2-klein-4b-4-bit", tmp_path).folder == tmp_path / "flux2-klein-4b"


def test_a_path_to_a_folder_is_a_model(tmp_path: Path) -> None:
    located = locate(str(tmp_path), Path("models"))
    assert (located.folder, located.spec.distilled) == (tmp_path, None)


def test_a_snapshot_in_the_hugging_face_cache_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    spec = registry()["flux2-klein-9b"]
    snapshot = tmp_path / "models--black-forest-labs--FLUX.2-klein-9B" / "snapshots" / str(spec.revision)
    snapshot.mkdir(parents=True)
    assert locate("flux2-klein-9b", tmp_path / "models").folder == snapshot


def test_an_unknown_name_is_refused_with_the_nearest_ones(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound) as caught:
        locate("flux2-klein-4", tmp_path)
    assert caught.value.code == "MODEL_NOT_FOUND"
    assert caught.value.message.startswith("Model 'flux2-klein-4' not found: neither a known name nor a folder.")
    assert "flux2-klein-4b" in caught.value.message


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="There is no model folder at"):
        locate(str(tmp_path / "nothing"), tmp_path)


def test_a_known_model_without_files_says_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ModelNotDownloaded) as caught:
        locate("flux2-klein-9b", tmp_path)
    assert caught.value.code == "MODEL_NOT_DOWNLOADED"
    assert "hf download black-forest-labs/FLUX.2-klein-9B --local-dir" in caught.value.message
