"""Framing: inputs of any size are fitted to the canvas, and the result has the requested size."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from mflux_api.engine.image_fit import fit_request
from mflux_api.engine.model import Model
from mflux_api.ipc.messages import Picture
from mflux_api.pixels.fitting import RESIZE_MODES, crop_centre
from mflux_api.request import Fill, GenerateRequest, InpaintOptions, Resize, round_up_size
from tests.support.marks import slow_but
from tests.support.painting import draw_scene, make_request, paint_image, pixels, white_box_mask

MODES: list[Resize] = ["stretch", "crop", "fill", "latent"]
FILLS: list[Fill] = ["original", "surroundings", "noise", "zero"]
# Differs from the canvas in size and in aspect ratio.
WIDE = (100, 72)
SPOT = (40, 20, 70, 50)
sides = st.integers(1, 150)
asked = st.integers(8, 20).map(lambda eighths: eighths * 8)


def cut_to(size: tuple[int, int], **changes: Any) -> GenerateRequest:
    canvas = round_up_size(*size)
    return make_request(width=canvas[0], height=canvas[1], crop=size, **changes)


def paint_framed(of: Image.Image) -> Picture:
    array = np.asarray(of, np.float32) / np.float32(255)
    return Picture(image=of, array=array, seed=3, timings={}, steps=1, guidance=1.0)


def outside(spot: tuple[int, int, int, int], size: tuple[int, int]) -> NDArray[np.bool_]:
    return np.asarray(pixels(white_box_mask(spot, size)) == 0)


# Round trips without a model


@pytest.mark.parametrize("mode", MODES)
@given(size=st.tuples(sides, sides), wanted=st.tuples(asked, asked))
def test_a_source_of_any_size_becomes_the_canvas_and_comes_back_as_large_as_asked(
    mode: Resize, size: tuple[int, int], wanted: tuple[int, int]
) -> None:
    frame = fit_request(cut_to(wanted, source=draw_scene(*size), retouch=InpaintOptions(resize=mode)))
    canvas = (frame.request.width, frame.request.height)
    source = frame.request.source
    assert source is not None
    if mode == "latent":
        assert frame.request.stretch == "bilinear"
        source = source.resize(canvas)
    assert source.size == canvas
    result = frame.finish_picture(paint_framed(source))
    assert result.size == wanted
    if mode != "latent":
        np.testing.assert_array_equal(pixels(result), pixels(RESIZE_MODES[mode](draw_scene(*size), wanted)))


@given(st.tuples(sides, sides), st.tuples(asked, asked), st.data())
def test_a_mask_follows_its_source(size: tuple[int, int], wanted: tuple[int, int], data: st.DataObject) -> None:
    mode, mask_side = data.draw(st.sampled_from(MODES)), data.draw(sides)
    mask = Image.new("L", (mask_side, mask_side), 255)
    frame = fit_request(cut_to(wanted, source=draw_scene(*size), mask=mask, retouch=InpaintOptions(resize=mode)))
    canvas = (frame.request.width, frame.request.height)
    assert frame.request.mask is not None
    assert frame.request.source is not None
    assert frame.request.mask.size == frame.request.source.size == canvas
    assert frame.request.mask.getextrema() == (255, 255)


@given(st.tuples(sides, sides), st.tuples(asked, asked), st.integers(0, 64), st.data())
def test_a_closeup_gives_the_source_back_with_nothing_but_the_mask_changed(
    size: tuple[int, int], wanted: tuple[int, int], padding: int, data: st.DataObject
) -> None:
    left, top = data.draw(st.integers(0, size[0] - 1)), data.draw(st.integers(0, size[1] - 1))
    spot = (left, top, data.draw(st.integers(left + 1, size[0])), data.draw(st.integers(top + 1, size[1])))
    source = draw_scene(*size)
    frame = fit_request(
        cut_to(wanted, source=source, mask=white_box_mask(spot, size), retouch=InpaintOptions(closeup=padding))
    )
    canvas = (frame.request.width, frame.request.height)
    assert frame.request.source is not None
    assert frame.request.source.size == canvas
    result = frame.finish_picture(paint_framed(Image.new("RGB", canvas, (1, 2, 3))))
    kept = outside(spot, size)
    np.testing.assert_array_equal(pixels(result)[kept], pixels(source)[kept])
    assert (pixels(result)[~kept] == (1, 2, 3)).all()


@given(st.tuples(sides, sides), st.tuples(asked, asked), st.sampled_from([None, 0, 16]), st.booleans())
def test_a_mask_of_nothing_asks_for_nothing_to_be_painted(
    size: tuple[int, int], wanted: tuple[int, int], closeup: int | None, invert: bool
) -> None:
    mask = Image.new("L", size, 255 if invert else 0)
    retouch = InpaintOptions(closeup=closeup, invert=invert, blur=(2.0, 2.0))
    frame = fit_request(cut_to(wanted, source=draw_scene(*size), mask=mask, retouch=retouch))
    assert frame.request.mask is None
    assert frame.request.strength == 0
    result = frame.finish_picture(paint_framed(frame.request.source or Image.new("RGB", (1, 1))))
    expected = draw_scene(*size) if closeup is not None else RESIZE_MODES["stretch"](draw_scene(*size), wanted)
    np.testing.assert_array_equal(pixels(result), pixels(expected))


def test_a_soft_edge_of_a_closeup_is_blended_once() -> None:
    source, mask = Image.new("RGB", (64, 64), "black"), Image.new("L", (64, 64), 128)
    frame = fit_request(make_request(source=source, mask=mask, retouch=InpaintOptions(closeup=0)))
    # As the model returns it: the image is blended, the array is as decoded.
    picture = Picture(
        image=Image.new("RGB", (64, 64), (100, 0, 0)),
        array=np.full((64, 64, 3), (200 / 255, 0, 0), np.float32),
        seed=3,
        timings={},
        steps=1,
        guidance=1.0,
    )
    assert frame.finish_picture(picture).getpixel((30, 30)) == (100, 0, 0)


def test_without_a_source_there_is_nothing_to_frame() -> None:
    plain = make_request()
    assert fit_request(plain).request is plain


# Sizes in steps of 8


@pytest.mark.parametrize("size", [(72, 64), (64, 72), (72, 88), (136, 200)])
def test_a_size_in_steps_of_8_is_the_middle_of_the_larger_picture(tiny: Model, size: tuple[int, int]) -> None:
    canvas = round_up_size(*size)
    larger = paint_image(tiny, width=canvas[0], height=canvas[1])
    cut = paint_image(tiny, width=canvas[0], height=canvas[1], crop=size)
    assert cut.shape == (size[1], size[0], 3)
    np.testing.assert_array_equal(cut, pixels(crop_centre(Image.fromarray(larger), size)))


# Masks


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("mode", slow_but(MODES, MODES[0]))
@pytest.mark.parametrize("closeup", slow_but([None, 0, 24], None, 24))
def test_an_inpainting_changes_the_masked_part_and_no_pixel_more(
    tiny: Model, fill: Fill, mode: Resize, closeup: int | None
) -> None:
    retouch = InpaintOptions(fill=fill, resize=mode, closeup=closeup)
    spot = (16, 24, 48, 56)
    result = paint_image(tiny, source=draw_scene(), mask=white_box_mask(spot), retouch=retouch, strength=0.8)
    kept = outside(spot, (64, 64))
    np.testing.assert_array_equal(result[kept], pixels(draw_scene())[kept])
    assert not np.array_equal(result[~kept], pixels(draw_scene())[~kept])


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("padding", [0, 8, 500])
def test_a_closeup_has_the_size_of_its_source(tiny: Model, fill: Fill, padding: int) -> None:
    retouch = InpaintOptions(fill=fill, closeup=padding)
    result = paint_image(
        tiny, source=draw_scene(*WIDE), mask=white_box_mask(SPOT, WIDE), retouch=retouch, crop=(64, 56)
    )
    kept = outside(SPOT, WIDE)
    assert result.shape == (WIDE[1], WIDE[0], 3)
    np.testing.assert_array_equal(result[kept], pixels(draw_scene(*WIDE))[kept])
    assert not np.array_equal(result[~kept], pixels(draw_scene(*WIDE))[~kept])


@pytest.mark.parametrize("closeup", [None, 0])
@pytest.mark.parametrize("fill", FILLS)
def test_an_empty_mask_changes_nothing(tiny: Model, fill: Fill, closeup: int | None) -> None:
    retouch = InpaintOptions(fill=fill, closeup=closeup, blur=(4.0, 4.0))
    result = paint_image(tiny, source=draw_scene(), mask=Image.new("L", (64, 64)), retouch=retouch)
    np.testing.assert_array_equal(result, pixels(draw_scene()))


@pytest.mark.parametrize("closeup", [None, 4])
def test_an_inverted_mask_is_the_other_part(tiny: Model, closeup: int | None) -> None:
    spot = (16, 16, 48, 48)
    other = white_box_mask(spot).point(lambda value: 255 - value)
    inverted = paint_image(
        tiny, source=draw_scene(), mask=white_box_mask(spot), retouch=InpaintOptions(invert=True, closeup=closeup)
    )
    np.testing.assert_array_equal(
        inverted, paint_image(tiny, source=draw_scene(), mask=other, retouch=InpaintOptions(closeup=closeup))
    )
    inside = ~outside(spot, (64, 64))
    np.testing.assert_array_equal(inverted[inside], pixels(draw_scene())[inside])


@pytest.mark.parametrize("blur", [(3.0, 3.0), (3.0, 0.0)])
def test_a_blurred_mask_reaches_as_far_as_its_blur(tiny: Model, blur: tuple[float, float]) -> None:
    spot = (24, 24, 40, 40)
    result = paint_image(
        tiny, source=draw_scene(), mask=white_box_mask(spot), retouch=InpaintOptions(blur=blur), strength=1.0
    )
    changed = np.argwhere((result != pixels(draw_scene())).any(axis=-1))
    assert changed[:, 1].min() in range(12, 24)
    assert changed[:, 0].min() in (range(12, 24) if blur[1] else range(24, 30))


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("closeup", [None, 0])
def test_strength_0_keeps_the_source_whatever_is_masked(tiny: Model, fill: Fill, closeup: int | None) -> None:
    retouch = InpaintOptions(fill=fill, closeup=closeup)
    result = paint_image(tiny, source=draw_scene(), mask=white_box_mask((0, 0, 64, 40)), retouch=retouch, strength=0)
    difference = np.abs(result.astype(int) - pixels(draw_scene()))
    assert difference.max() <= (0 if closeup is None else 6)


def test_what_is_under_the_mask_counts_little_where_it_is_filled(tiny: Model) -> None:
    spot = (16, 16, 48, 48)
    covered = draw_scene()
    covered.paste("lime", spot)
    differences = {}
    for fill in FILLS:
        changes: dict[str, Any] = {
            "mask": white_box_mask(spot),
            "retouch": InpaintOptions(fill=fill),
            "strength": 0.5,
            "steps": 4,
        }
        first, second = (paint_image(tiny, source=source, **changes) for source in (draw_scene(), covered))
        differences[fill] = np.abs(first.astype(int) - second).mean()
    assert differences["surroundings"] == 0
    # Not 0: the encoder's receptive field beside the mask reaches a little under it.
    assert max(differences["noise"], differences["zero"]) < 0.8 * differences["original"]


# Sizes and sources


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("strength", [0.0, 0.5])
@pytest.mark.parametrize("size", [(64, 64), (72, 136)])
def test_every_resize_mode_gives_the_size(tiny: Model, mode: Resize, strength: float, size: tuple[int, int]) -> None:
    canvas = round_up_size(*size)
    sizes: dict[str, Any] = {"width": canvas[0], "height": canvas[1], "crop": size}
    result = paint_image(
        tiny, source=draw_scene(*WIDE), retouch=InpaintOptions(resize=mode), strength=strength, **sizes
    )
    assert result.shape == (size[1], size[0], 3)
    if strength == 0:
        fitted = pixels(RESIZE_MODES[mode](draw_scene(*WIDE), size)).astype(int)
        assert np.abs(result - fitted).mean() < (3 if mode == "latent" else 1e-9)


def test_a_source_stretched_as_latents_is_another_picture_than_one_stretched_as_pixels(tiny: Model) -> None:
    one, other = (
        paint_image(tiny, source=draw_scene(*WIDE), retouch=InpaintOptions(resize=mode), strength=0.5)
        for mode in ("stretch", "latent")
    )
    assert not np.array_equal(one, other)
    assert np.abs(one.astype(int) - other).mean() < 24


@pytest.mark.parametrize("mode", MODES)
def test_strength_1_ignores_the_source_whatever_its_size(tiny: Model, mode: Any) -> None:
    result = paint_image(tiny, source=draw_scene(*WIDE), retouch=InpaintOptions(resize=mode), strength=1.0)
    np.testing.assert_array_equal(result, paint_image(tiny))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(1, 1), (3, 200), (700, 9)])
def test_a_source_of_any_shape_can_be_repainted(tiny: Model, mode: Resize, size: tuple[int, int]) -> None:
    assert paint_image(tiny, source=draw_scene(*size), retouch=InpaintOptions(resize=mode), steps=1).shape == (
        64,
        64,
        3,
    )
