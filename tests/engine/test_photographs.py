"""The library and the command line see pictures as they look."""

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mflux_api.cli import main
from mflux_api.engine.model import Model
from tests.support.photographs import FURTHER, PHOTOGRAPHS, difference, encode, exif_block, hole, transparent, turned

KINDS = {
    kind: {**PHOTOGRAPHS, **FURTHER}[kind]
    for kind in (
        *("a turned PNG", "a turned picture of a phone", "an odd EXIF block in a JPEG", "a wide gamut", "transparent"),
        *("a transparent colour of a palette", "grey of 16 bits", "CMYK", "a turned TIFF", "an animated GIF"),
    )
}
LOSSY = 3


@pytest.mark.parametrize("kind", KINDS)
def test_the_library_sees_an_opened_picture_as_it_looks(tiny: Model, kind: str) -> None:
    make, looks = KINDS[kind]
    with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(make())) as image:
        seen = tiny.generate("x", image=image, strength=0, steps=1, seeds=[1])[0].image
    assert difference(seen, looks()) < LOSSY


def test_the_library_sees_a_reference_as_it_looks(tiny: Model) -> None:
    make, looks = KINDS["a turned picture of a phone"]
    with Image.open(io.BytesIO(make())) as image:
        pictures = [
            tiny.generate("x", width=64, height=64, images=[each], steps=1, seeds=[1])[0].image
            for each in (image, looks())
        ]
    assert difference(*pictures) < LOSSY


def test_a_mask_is_turned_upright(tiny: Model, tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    path.write_bytes(encode(transparent(), exif=exif_block()))
    source = Image.new("RGB", (64, 128), "blue")
    with Image.open(path) as mask:
        seen = tiny.generate("x", image=source, mask=mask, steps=1, seeds=[1])[0].image
    kept = np.asarray(turned(hole())) == 0
    assert (np.asarray(seen)[kept] == (0, 0, 255)).all()
    assert not (np.asarray(seen)[~kept] == (0, 0, 255)).all()


@pytest.mark.parametrize("kind", [*KINDS, "everything at once", "compressed text of megabytes"])
def test_the_command_line_sees_a_picture_as_it_looks(
    tiny: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("mflux_api.engine.model.load_model", lambda *_names, **_options: tiny)
    make, looks = {**PHOTOGRAPHS, **FURTHER}[kind]
    (tmp_path / "picture").write_bytes(make())
    picture = ["--image", str(tmp_path / "picture"), "--strength", "0", "--steps", "1"]
    assert main(["generate", "x", *picture, "--output", str(tmp_path / "seen.png")]) == 0
    with Image.open(tmp_path / "seen.png") as seen:
        assert difference(seen, looks()) < LOSSY
