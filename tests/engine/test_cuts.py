"""Early stops: a picture or a whole request ends with the picture as far as it is painted."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from mflux_api.engine.model import Model
from mflux_api.ipc.messages import PaintingEvent, Picture, Step
from mflux_api.pixels.enlarging import enlarge_to_cover
from mflux_api.request import EarlyStop
from tests.support.painting import (
    FakePainter,
    cut_after,
    distance,
    draw_scene,
    make_hires,
    paint_blank,
    paint_events,
    paint_image,
    paint_images,
    pixels,
    tiled_changes,
    white_box_mask,
)

KINDS: dict[str, dict[str, Any]] = {
    "one pass": {"steps": 3},
    "hires": {"hires": make_hires(96, 96, steps=4)},
    "tiles": tiled_changes(source=draw_scene(64, 36), steps=4),
}


def count_steps_and_pictures(events: list[PaintingEvent]) -> tuple[int, int]:
    """Return the numbers of steps and of pictures."""
    return sum(isinstance(event, Step) for event in events), sum(isinstance(event, Picture) for event in events)


@pytest.mark.parametrize(
    ("kind", "cut", "expected"),
    [
        ("one pass", EarlyStop.SKIP, (1 + 3, 2)),
        ("one pass", EarlyStop.INTERRUPT, (1, 1)),
        # Two steps, then two more in the second pass.
        ("hires", EarlyStop.SKIP, (1 + 4, 2)),
        ("hires", EarlyStop.INTERRUPT, (1, 1)),
        # Two tiles of two steps.
        ("tiles", EarlyStop.SKIP, (1 + 4, 2)),
        ("tiles", EarlyStop.INTERRUPT, (1, 1)),
    ],
)
def test_a_skip_ends_one_picture_and_an_interrupt_all_of_them(
    tiny: Model, kind: str, cut: EarlyStop, expected: tuple[int, int]
) -> None:
    said = list(paint_events(tiny, cut_after(1, cut), seeds=(3, 4), **KINDS[kind]))
    assert count_steps_and_pictures(said) == expected
    if kind == "tiles":
        assert {event.image.size for event in said if isinstance(event, Picture)} == {(112, 63)}
    if cut is EarlyStop.SKIP:
        last = [event for event in said if isinstance(event, Picture)][-1]
        np.testing.assert_array_equal(pixels(last.image), paint_image(tiny, seeds=(4,), **KINDS[kind]))


@pytest.mark.parametrize("cut", [EarlyStop.SKIP, EarlyStop.INTERRUPT])
def test_what_was_skipped_is_the_picture_as_it_stood(tiny: Model, cut: EarlyStop) -> None:
    (first,) = paint_images(tiny, cut_after(2, cut), steps=8)
    assert not np.array_equal(first, paint_image(tiny, steps=8))
    another = paint_image(tiny, steps=8, prompt="a small blue star at the top on a black background")
    assert distance(first, paint_image(tiny, steps=8)) < distance(first, another)


def test_skipped_in_its_last_step_a_picture_is_whole(tiny: Model) -> None:
    np.testing.assert_array_equal(paint_image(tiny, cut_after(2, EarlyStop.SKIP)), paint_image(tiny))


@pytest.mark.parametrize("cut", [EarlyStop.SKIP, EarlyStop.INTERRUPT])
def test_a_cut_during_the_decoding_is_for_the_picture_that_is_decoded(tiny: Model, cut: EarlyStop) -> None:
    # The early stop is polled after each of two steps and once more before decoding.
    found = paint_images(tiny, cut_after(3, cut), seeds=(3, 4))
    np.testing.assert_array_equal(found, paint_images(tiny, seeds=(3, 4))[: 2 if cut is EarlyStop.SKIP else 1])


@pytest.mark.parametrize("cut", [EarlyStop.SKIP, EarlyStop.INTERRUPT])
def test_a_masked_picture_cut_short_keeps_what_is_not_masked(tiny: Model, cut: EarlyStop) -> None:
    result = paint_image(
        tiny, cut_after(1, cut), steps=4, source=draw_scene(), mask=white_box_mask((0, 0, 64, 32)), strength=1.0
    )
    np.testing.assert_array_equal(result[32:], pixels(draw_scene())[32:])
    assert not np.array_equal(result[:32], pixels(draw_scene())[:32])


@pytest.mark.parametrize("cut", [EarlyStop.SKIP, EarlyStop.INTERRUPT])
def test_cut_in_its_first_pass_a_hires_picture_stays_small_and_in_its_second_it_is_large(
    tiny: Model, cut: EarlyStop
) -> None:
    small = paint_image(tiny, cut_after(1, cut), hires=make_hires(136, 200, steps=4))
    np.testing.assert_array_equal(small, paint_image(tiny, cut_after(1, cut)))
    # Two steps and a decoding, then the first of two steps.
    large = paint_image(tiny, cut_after(4, cut), hires=make_hires(136, 200, steps=4))
    assert large.shape == (200, 136, 3)


@pytest.mark.parametrize("cut", [EarlyStop.SKIP, EarlyStop.INTERRUPT])
@pytest.mark.parametrize("tiles", [1, 2, 3])
def test_cut_among_its_tiles_the_rest_of_a_picture_is_as_it_was_enlarged(cut: EarlyStop, tiles: int) -> None:
    # Each tile is one step, without decoding by this painter; the cut comes in the last tile.
    painter = FakePainter(tint=lambda part: Image.new("RGB", part.size, "black"))
    (picture,) = (
        event for event in paint_blank(painter, cut_after(tiles, cut), **tiled_changes()) if isinstance(event, Picture)
    )
    result, whole = pixels(picture.image), pixels(enlarge_to_cover(draw_scene(), (112, 112), "Lanczos"))
    assert len(painter.requests) == tiles
    assert result.shape == whole.shape
    np.testing.assert_array_equal(result[64:, 64:], whole[64:, 64:])
    assert (result[:48, :48] == 0).all()
    assert bool((result[:48, 64:] == 0).all()) is (tiles > 1)
    assert bool((result[64:, :48] == 0).all()) is (tiles > 2)
