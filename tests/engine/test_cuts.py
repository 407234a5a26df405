"""A picture, or a whole request, that is ended early with what there is of it."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from mflux_api.engine.model import Model
from mflux_api.ipc.messages import Event, Picture, Step
from mflux_api.pixels.enlarging import enlarged
from mflux_api.request import Cut
from tests.engine.painting import (
    Blank,
    after,
    blank,
    distance,
    events,
    hires,
    image,
    images,
    pixels,
    scene,
    tiled,
    white,
)

KINDS: dict[str, dict[str, Any]] = {
    "one pass": {"steps": 3},
    "hires": {"hires": hires(96, 96, steps=4)},
    "tiles": tiled(source=scene(64, 36), steps=4),
}


def counts(said: list[Event]) -> tuple[int, int]:
    """Steps and pictures."""
    return sum(isinstance(event, Step) for event in said), sum(isinstance(event, Picture) for event in said)


@pytest.mark.parametrize(
    ("kind", "cut", "expected"),
    [
        ("one pass", Cut.SKIP, (1 + 3, 2)),
        ("one pass", Cut.INTERRUPT, (1, 1)),
        # Two steps, then two.
        ("hires", Cut.SKIP, (1 + 4, 2)),
        ("hires", Cut.INTERRUPT, (1, 1)),
        # Two tiles of two steps.
        ("tiles", Cut.SKIP, (1 + 4, 2)),
        ("tiles", Cut.INTERRUPT, (1, 1)),
    ],
)
def test_a_skip_ends_one_picture_and_an_interrupt_all_of_them(
    tiny: Model, kind: str, cut: Cut, expected: tuple[int, int]
) -> None:
    said = list(events(tiny, after(1, cut), seeds=(3, 4), **KINDS[kind]))
    assert counts(said) == expected
    if kind == "tiles":
        assert {event.image.size for event in said if isinstance(event, Picture)} == {(112, 63)}
    if cut is Cut.SKIP:
        last = [event for event in said if isinstance(event, Picture)][-1]
        np.testing.assert_array_equal(pixels(last.image), image(tiny, seeds=(4,), **KINDS[kind]))


@pytest.mark.parametrize("cut", [Cut.SKIP, Cut.INTERRUPT])
def test_what_was_skipped_is_the_picture_as_it_stood(tiny: Model, cut: Cut) -> None:
    (first,) = images(tiny, after(2, cut), steps=8)
    assert not np.array_equal(first, image(tiny, steps=8))
    assert distance(first, image(tiny, steps=8)) < distance(first, image(tiny, steps=8, seeds=(4,)))


def test_skipped_in_its_last_step_a_picture_is_whole(tiny: Model) -> None:
    np.testing.assert_array_equal(image(tiny, after(2, Cut.SKIP)), image(tiny))


@pytest.mark.parametrize("cut", [Cut.SKIP, Cut.INTERRUPT])
def test_a_cut_during_the_decoding_is_for_the_picture_that_is_decoded(tiny: Model, cut: Cut) -> None:
    # Asked after each of two steps, and once more when the picture is decoded.
    found = images(tiny, after(3, cut), seeds=(3, 4))
    np.testing.assert_array_equal(found, images(tiny, seeds=(3, 4))[: 2 if cut is Cut.SKIP else 1])


@pytest.mark.parametrize("cut", [Cut.SKIP, Cut.INTERRUPT])
def test_a_masked_picture_cut_short_keeps_what_is_not_masked(tiny: Model, cut: Cut) -> None:
    result = image(tiny, after(1, cut), steps=4, source=scene(), mask=white((0, 0, 64, 32)), strength=1.0)
    np.testing.assert_array_equal(result[32:], pixels(scene())[32:])
    assert not np.array_equal(result[:32], pixels(scene())[:32])


@pytest.mark.parametrize("cut", [Cut.SKIP, Cut.INTERRUPT])
def test_cut_in_its_first_pass_a_hires_picture_stays_small_and_in_its_second_it_is_large(tiny: Model, cut: Cut) -> None:
    small = image(tiny, after(1, cut), hires=hires(136, 200, steps=4))
    np.testing.assert_array_equal(small, image(tiny, after(1, cut)))
    # Two steps and a decoding, then the first of two.
    large = image(tiny, after(4, cut), hires=hires(136, 200, steps=4))
    assert large.shape == (200, 136, 3)


@pytest.mark.parametrize("cut", [Cut.SKIP, Cut.INTERRUPT])
@pytest.mark.parametrize("tiles", [1, 2, 3])
def test_cut_among_its_tiles_the_rest_of_a_picture_is_as_it_was_enlarged(cut: Cut, tiles: int) -> None:
    # One step and, here, no decoding for each tile; the cut falls into the last of them.
    painter = Blank(tint=lambda part: Image.new("RGB", part.size, "black"))
    (picture,) = (event for event in blank(painter, after(tiles, cut), **tiled()) if isinstance(event, Picture))
    result, whole = pixels(picture.image), pixels(enlarged(scene(), (112, 112), "Lanczos"))
    assert len(painter.asked) == tiles
    assert result.shape == whole.shape
    np.testing.assert_array_equal(result[64:, 64:], whole[64:, 64:])
    assert (result[:48, :48] == 0).all()
    assert bool((result[:48, 64:] == 0).all()) is (tiles > 1)
    assert bool((result[64:, :48] == 0).all()) is (tiles > 2)
