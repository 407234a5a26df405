from pathlib import Path

import pytest

from mflux_api.errors import InvalidRequest, LoraInvalid, LoraNotFound
from mflux_api.models.loras import LoraChoice, parse_lora_choice, resolve_lora
from mflux_api.request import LoraUse


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "loras"
    folder.mkdir()
    (folder / "style.safetensors").write_bytes(b"")
    (folder / "style.pt").write_bytes(b"")
    (tmp_path / "outside.safetensors").write_bytes(b"")
    return folder


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("style", ("style", 1.0)),
        ("style:0.8", ("style", 0.8)),
        ("style:-1", ("style", -1.0)),
        ("C:style", ("C:style", 1.0)),
        (("style", 0.5), ("style", 0.5)),
        (Path("a/b.safetensors"), ("a/b.safetensors", 1.0)),
        (LoraUse(path="x", scale=2.0), ("x", 2.0)),
    ],
)
def test_a_choice_is_a_name_and_a_scale(choice: LoraChoice, expected: tuple[str, float]) -> None:
    assert parse_lora_choice(choice) == expected


@pytest.mark.parametrize("name", ["style", "style.safetensors"])
def test_a_name_is_found_in_the_folders(folder: Path, name: str) -> None:
    assert resolve_lora(name, [folder], anywhere=False).path == str(folder / "style.safetensors")


@pytest.mark.parametrize("scale", ["nan", "inf", "11"])
def test_an_absurd_scale_is_refused(folder: Path, scale: str) -> None:
    with pytest.raises(InvalidRequest, match="A LoRA scale must be between -10 and 10"):
        resolve_lora(f"style:{scale}", [folder], anywhere=False)


def test_an_unknown_name_is_refused_with_where_it_was_looked_for(folder: Path) -> None:
    with pytest.raises(LoraNotFound, match=r"There is no LoRA 'nothing' \(looked in .*loras\)") as caught:
        resolve_lora("nothing", [folder], anywhere=False)
    assert caught.value.code == "LORA_NOT_FOUND"


@pytest.mark.parametrize("anywhere", [True, False])
def test_other_formats_than_safetensors_are_refused(folder: Path, anywhere: bool) -> None:
    with pytest.raises(LoraInvalid, match=r"is not a \.safetensors file; other formats can run code\."):
        resolve_lora(str(folder / "style.pt"), [folder], anywhere=anywhere)


def test_a_path_that_climbs_out_is_refused(folder: Path) -> None:
    with pytest.raises(LoraInvalid, match="is outside the LoRA folders") as caught:
        resolve_lora("../outside.safetensors", [folder], anywhere=False)
    assert caught.value.code == "LORA_INVALID"


def test_a_link_that_leads_out_is_refused(folder: Path) -> None:
    (folder / "link.safetensors").symlink_to(folder.parent / "outside.safetensors")
    with pytest.raises(LoraInvalid, match="is outside the LoRA folders"):
        resolve_lora("link", [folder], anywhere=False)


def test_an_absolute_path_outside_is_refused_unless_allowed(folder: Path) -> None:
    outside = folder.parent / "outside.safetensors"
    with pytest.raises(LoraInvalid, match="is outside the LoRA folders"):
        resolve_lora(outside, [folder], anywhere=False)
    assert resolve_lora(outside, [folder], anywhere=True).path == str(outside)
