"""Pictures are read as they look, whatever wrote them."""

import io
import warnings

import pytest
from PIL import Image

from mflux_api.errors import InvalidImage
from mflux_api.pixels.decoding import decode_mask, decode_picture, read_size, show_picture
from mflux_api.pixels.orientation import parse_orientation
from tests.support.photographs import (
    FURTHER,
    PHOTOGRAPHS,
    Photographs,
    difference,
    encode,
    exif_block,
    hole,
    odd_exif_block,
    scene,
    transparent,
)

TURNS = ("FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90")
# JPEG, palettes and profiles change a level or two.
LOSSY = 3


@pytest.mark.parametrize("kind", PHOTOGRAPHS)
def test_a_picture_is_decoded_as_it_looks(kind: str) -> None:
    make, looks = PHOTOGRAPHS[kind]
    data = make()
    decoded = decode_picture(data)
    assert decoded.mode == "RGB"
    assert read_size(data) == decoded.size == looks().size
    assert difference(decoded, looks()) < LOSSY


ALL: Photographs = {**PHOTOGRAPHS, **FURTHER}
# Pillow itself refuses long texts, and misses a transparent grey of less than 8 bits.
NOT_OPENED = ("text", "megabytes", "everything", "2 bits", "4 bits")


@pytest.mark.parametrize("kind", [kind for kind in ALL if not any(words in kind for words in NOT_OPENED)])
def test_an_opened_picture_is_shown_as_it_looks(kind: str) -> None:
    make, looks = ALL[kind]
    with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(make())) as image:
        assert difference(show_picture(image), looks()) < LOSSY


@pytest.mark.parametrize("kind", FURTHER)
def test_every_format_of_pillow_is_decoded_where_it_is_allowed(kind: str) -> None:
    make, looks = FURTHER[kind]
    assert difference(decode_picture(make(), formats=None), looks()) < LOSSY
    with pytest.raises(InvalidImage):
        decode_picture(make())


@pytest.mark.parametrize("orientation", range(10))
def test_every_orientation_is_turned(orientation: int) -> None:
    turns = [None, None, *(getattr(Image.Transpose, name) for name in TURNS), None]
    turn = turns[orientation]
    looks = scene() if turn is None else scene().transpose(turn)
    assert difference(decode_picture(encode(scene(), exif=exif_block(orientation))), looks) == 0


@pytest.mark.parametrize("kind", [1, 3, 4])
@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0"])
def test_the_orientation_is_found_by_its_number_alone(kind: int, prefix: bytes) -> None:
    assert parse_orientation(prefix + odd_exif_block(kind)) == 6


@pytest.mark.parametrize("length", range(0, 60, 3))
def test_an_exif_block_may_be_cut_off_anywhere(length: int) -> None:
    assert parse_orientation(odd_exif_block()[:length]) in {1, 6}


@pytest.mark.parametrize("make", [decode_picture, decode_mask])
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_a_picture_that_is_cut_off_is_refused(make: object, form: str) -> None:
    data = encode(Image.effect_noise((64, 64), 90).convert("RGB"), form)
    assert callable(make)
    with pytest.raises(InvalidImage):
        make(data[: len(data) // 2])


def test_a_mask_is_upright_and_its_alpha_counts() -> None:
    mask = decode_mask(encode(transparent(), exif=exif_block()))
    assert mask.size == (64, 128)
    assert mask.tobytes() == hole().transpose(Image.Transpose.ROTATE_270).tobytes()


def test_a_picture_that_was_turned_by_its_owner_stays() -> None:
    with Image.open(io.BytesIO(encode(scene(), exif=exif_block()))) as image:
        owned = image.rotate(180)
    assert owned.info["exif"]
    assert difference(show_picture(owned), scene().rotate(180)) == 0
