"""The folder of adapters: which files are in it, and which names they answer to."""

import json
import logging
import os
import unicodedata
from pathlib import Path

import pytest

from mflux_api.errors import LoraNotFound
from mflux_api.models.loras import LoraFolder, resolve_lora

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


def write(path: Path, **metadata: str) -> Path:
    head = json.dumps({"__metadata__": metadata} if metadata else {}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(head).to_bytes(8, "little") + head)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "loras"
    write(folder / "Style.safetensors")
    write(folder / "v1.5" / "my.oil v2.safetensors", ss_output_name="Oil")
    write(folder / f"{DECOMPOSED}.safetensors")
    write(folder / "downloaded_v2.safetensors", ss_output_name=DECOMPOSED + " deluxe")
    write(folder / "oil.safetensors", ss_output_name="style")
    return folder


def lora_folder(folder: Path, *, follow_links: bool = True) -> LoraFolder:
    return LoraFolder(folder=folder, anywhere=False, follow_links=follow_links)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("Style", "Style"),
        ("style", "oil"),
        ("STYLE", "Style"),
        ("style.safetensors", "oil"),
        ("v1.5/my.oil v2", "v1.5/my.oil v2"),
        ("MY.OIL V2", "v1.5/my.oil v2"),
        ("my.oil v2.safetensors", "v1.5/my.oil v2"),
        ("oil", "oil"),
        ("OIL", "oil"),
        ("Oil", "v1.5/my.oil v2"),
        (COMPOSED, DECOMPOSED),
        (DECOMPOSED, DECOMPOSED),
        (COMPOSED.upper(), DECOMPOSED),
        (f"{COMPOSED} Deluxe", "downloaded_v2"),
    ],
)
def test_an_adapter_answers_to_its_name_its_last_part_and_its_alias(folder: Path, name: str, file: str) -> None:
    (use,) = lora_folder(folder).resolve_loras([(name, 0.5)])
    assert (use.path, use.scale) == (str(folder / f"{file}.safetensors"), 0.5)
    assert resolve_lora(name, [folder], anywhere=True).path.endswith(".safetensors")


def test_names_are_listed_composed_with_their_aliases(folder: Path) -> None:
    assert [(file.name, file.alias) for file in lora_folder(folder).list_files()] == [
        ("Style", "Style"),
        (COMPOSED, COMPOSED),
        ("downloaded_v2", DECOMPOSED + " deluxe"),
        ("oil", "style"),
        ("v1.5/my.oil v2", "Oil"),
    ]


@pytest.mark.parametrize("name", ["nobody", "", ".", "..", "../loras/Style", "/etc/passwd", "~", "x" * 5000, "a\0b"])
def test_other_names_are_not_found(folder: Path, name: str) -> None:
    with pytest.raises(LoraNotFound):
        lora_folder(folder).resolve_loras([(name, 1.0)])


def test_hidden_files_and_folders_are_no_adapters(tmp_path: Path) -> None:
    for name in ("._style.safetensors", ".cache/style.safetensors", ".safetensors", "a/._b.safetensors"):
        write(tmp_path / name)
    assert lora_folder(tmp_path).list_files() == []


def test_a_name_that_is_no_text_is_skipped(tmp_path: Path) -> None:
    try:
        write(tmp_path / os.fsdecode(b"caf\xe9.safetensors"))
    except OSError:
        pytest.skip("this file system has no such names")
    write(tmp_path / "style.safetensors")
    assert [file.name for file in lora_folder(tmp_path).list_files()] == ["style"]


def test_a_link_to_nothing_is_skipped_and_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "gone.safetensors").symlink_to("nothing.safetensors")
    (tmp_path / "gone-folder").symlink_to("no-folder")
    (tmp_path / "circle.safetensors").symlink_to("circle.safetensors")
    write(tmp_path / "style.safetensors")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert [file.name for file in lora_folder(tmp_path).list_files()] == ["style"]
    assert len(caplog.records) == 3


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """Return a folder with links out of it: a file, a file named by its hash, and a folder with a link of its own."""
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "loras"
    write(elsewhere / "outside.safetensors")
    write(elsewhere / "blobs" / "0a1b2c")
    write(elsewhere / "more" / "inner.safetensors")
    write(tmp_path / "secret.safetensors")
    (elsewhere / "more" / "out.safetensors").symlink_to(tmp_path / "secret.safetensors")
    (elsewhere / "more" / "again.safetensors").symlink_to(elsewhere / "more" / "inner.safetensors")
    (elsewhere / "more" / "up").symlink_to(elsewhere / "more")
    write(folder / "own.safetensors")
    (folder / "own-link.safetensors").symlink_to("own.safetensors")
    (folder / "one.safetensors").symlink_to(elsewhere / "outside.safetensors")
    (folder / "hashed.safetensors").symlink_to(elsewhere / "blobs" / "0a1b2c")
    (folder / "more").symlink_to(elsewhere / "more")
    (folder / "self").symlink_to(folder)
    return folder


@pytest.mark.parametrize(
    ("follow", "names"),
    [
        (True, ["hashed", "more/again", "more/inner", "one", "own", "own-link"]),
        (False, ["own", "own-link"]),
    ],
)
def test_the_owners_links_may_lead_out_of_the_folder(linked: Path, follow: bool, names: list[str]) -> None:
    assert sorted(file.name for file in lora_folder(linked, follow_links=follow).list_files()) == names


@pytest.mark.parametrize("name", ["one", "hashed", "more/inner"])
def test_an_adapter_behind_a_link_keeps_the_links_name(linked: Path, name: str) -> None:
    (use,) = lora_folder(linked).resolve_loras([(name, 1.0)])
    assert use.path == str(linked / f"{name}.safetensors")
    with pytest.raises(LoraNotFound):
        lora_folder(linked, follow_links=False).resolve_loras([(name, 1.0)])
