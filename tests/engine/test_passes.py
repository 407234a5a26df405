"""Requests with several passes and with several pictures."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image

from mflux_api.engine.model import Model
from mflux_api.engine.passes import paint
from mflux_api.ipc.messages import Picture, Preview, Step, UpsamplingProgress
from mflux_api.pixels.enlarging import LATENT_UPSCALERS, enlarge_to_cover
from mflux_api.request import InpaintOptions, Tiles, Variation, round_up_size
from tests.support.marks import slow_but
from tests.support.painting import (
    FakePainter,
    distance,
    draw_scene,
    make_hires,
    make_request,
    paint_blank,
    paint_events,
    paint_image,
    paint_images,
    pixels,
    tiled_changes,
    white_box_mask,
)

UPSCALERS = ["Lanczos", "Nearest", *LATENT_UPSCALERS]


# A batch of seeds

BATCHES: dict[str, dict[str, Any]] = {
    "words": {},
    "repaint": {"source": draw_scene(), "strength": 0.5},
    "reference": {"references": (draw_scene(),)},
    **{
        f"fill {fill}": {
            "source": draw_scene(),
            "mask": white_box_mask((16, 16, 48, 48)),
            "retouch": InpaintOptions(fill=fill),
        }
        for fill in ("original", "surroundings", "noise", "zero")
    },
    "closeup": {
        "source": draw_scene(80, 80),
        "mask": white_box_mask((8, 8, 24, 24), (80, 80)),
        "retouch": InpaintOptions(closeup=8),
    },
    "hires": {"hires": make_hires(96, 96)},
    "hires as latents": {"hires": make_hires(96, 96, upscaler="Latent")},
    "tiles": tiled_changes(),
    "cut": {"width": 80, "crop": (72, 64)},
}


@pytest.mark.parametrize("kind", slow_but(BATCHES, "words", "closeup", "hires", "tiles"))
def test_a_batch_is_each_of_its_seeds_alone(tiny: Model, kind: str) -> None:
    together = paint_images(tiny, seeds=(3, 8), **BATCHES[kind])
    alone = [paint_image(tiny, seeds=(seed,), **BATCHES[kind]) for seed in (3, 8)]
    np.testing.assert_array_equal(together, alone)
    assert not np.array_equal(alone[0], alone[1])


@pytest.mark.parametrize("kind", slow_but(["words", "repaint", "fill noise", "hires", "tiles"], "words", "tiles"))
def test_in_a_batch_of_variations_each_has_the_next_seed(tiny: Model, kind: str) -> None:
    together = paint_images(tiny, seeds=(3, 8), variation=Variation(seed=40, strength=0.4), **BATCHES[kind])
    alone = [
        paint_image(tiny, seeds=(seed,), variation=Variation(seed=other, strength=0.4), **BATCHES[kind])
        for seed, other in ((3, 40), (8, 41))
    ]
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("mask", [None, white_box_mask((0, 0, 64, 32))], ids=["whole", "masked"])
def test_each_picture_has_its_own_source_and_they_begin_again(tiny: Model, mask: Image.Image | None) -> None:
    sources = [draw_scene(), draw_scene(90, 64, turn=1)]
    shared: dict[str, Any] = {"strength": 0.5, "mask": mask}
    together = paint_images(tiny, seeds=(3, 4, 5), source=sources[0], further_sources=(sources[1],), **shared)
    alone = [paint_image(tiny, seeds=(3 + index,), source=sources[index % 2], **shared) for index in range(3)]
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("changes", [{}, {"hires": make_hires(96, 96)}], ids=["one pass", "hires"])
def test_given_latents_belong_to_their_pictures(tiny: Model, changes: dict[str, Any]) -> None:
    noise = np.random.default_rng(0).standard_normal((2, 128, 4, 4)).astype(np.float32)
    together = paint_images(tiny, seeds=(3, 8), latents=noise, **changes)
    alone = [paint_image(tiny, seeds=(8,), latents=noise[1:], **changes)]
    np.testing.assert_array_equal(together[1:], alone)


# Hires: paint, enlarge, repaint


@pytest.mark.parametrize("upscaler", slow_but(UPSCALERS, "Lanczos", "Latent"))
@pytest.mark.parametrize(("size", "strength"), [((136, 200), 0.4), ((100, 64), 0.0), ((65, 190), 0.0)])
def test_a_hires_picture_has_exactly_the_promised_size(
    tiny: Model, upscaler: str, size: tuple[int, int], strength: float
) -> None:
    result = paint_image(tiny, steps=1, hires=make_hires(*size, steps=1, strength=strength, upscaler=upscaler))
    assert result.shape == (size[1], size[0], 3)


@pytest.mark.parametrize("upscaler", slow_but(["Lanczos", "Nearest", "Latent", "Latent (nearest)"], "Latent"))
@pytest.mark.parametrize("size", slow_but([(128, 192), (136, 200)], (136, 200)))
def test_a_hires_picture_keeps_the_composition(tiny: Model, upscaler: str, size: tuple[int, int]) -> None:
    changes: dict[str, Any] = {"steps": 4, "height": 96}
    own, anothers = (
        pixels(enlarge_to_cover(Image.fromarray(paint_image(tiny, prompt=prompt, **changes)), size, "Lanczos"))
        for prompt in ("a blue star", "a green heart at the bottom")
    )
    large = paint_image(tiny, prompt="a blue star", **changes, hires=make_hires(*size, strength=0.3, upscaler=upscaler))
    assert distance(large, own) < distance(large, anothers) / 2


def test_a_hires_pass_of_strength_0_is_the_enlarged_picture(tiny: Model) -> None:
    small = Image.fromarray(paint_image(tiny))
    for size in ((128, 128), (136, 200)):
        result = paint_image(tiny, hires=make_hires(*size, strength=0.0))
        np.testing.assert_array_equal(result, pixels(enlarge_to_cover(small, size, "Lanczos")))


@pytest.mark.parametrize("upscaler", slow_but(LATENT_UPSCALERS, "Latent"))
@pytest.mark.parametrize("size", [(128, 128), (136, 200), (200, 72)])
def test_enlarged_as_latents_it_shows_the_same_part(tiny: Model, upscaler: str, size: tuple[int, int]) -> None:
    changes: dict[str, Any] = {"prompt": "a green star on a yellow background", "height": 96, "steps": 4}
    whole = enlarge_to_cover(Image.fromarray(paint_image(tiny, **changes)), size, "Lanczos")
    result = paint_image(tiny, **changes, hires=make_hires(*size, strength=0.0, upscaler=upscaler))
    shift = {move: distance(result, np.roll(pixels(whole), move, axis=(0, 1))) for move in ((0, 0), (8, 0), (0, 8))}
    assert min(shift, key=lambda move: shift[move]) == (0, 0)


def test_the_second_pass_has_its_own_prompts_steps_and_strength() -> None:
    painter = FakePainter()
    own = {"prompt": "a wolf", "negative_prompt": "grey", "steps": 7, "strength": 0.3}
    paint_blank(painter, schedule=((1, "a cat"),), hires=make_hires(136, 200, **own))
    first, second = painter.requests
    assert (first.prompt, first.steps, first.source, first.schedule) == (
        make_request().prompt,
        2,
        None,
        ((1, "a cat"),),
    )
    found = (second.prompt, second.negative_prompt, second.steps, second.strength, second.schedule)
    assert found == ("a wolf", "grey", 7, 0.3, ())
    assert (second.width, second.height) == round_up_size(136, 200)


def test_without_prompts_of_its_own_the_second_pass_takes_what_the_first_ended_with() -> None:
    painter = FakePainter()
    paint_blank(painter, negative_prompt="blue", schedule=((1, "a cat"),), hires=make_hires())
    first, second = painter.requests
    assert (second.prompt, second.negative_prompt, second.schedule) == (first.prompt, "blue", ())


def test_the_time_of_a_hires_picture_is_that_of_both_passes() -> None:
    (picture,) = (
        event for event in paint_blank(FakePainter(), hires=make_hires(steps=4)) if isinstance(event, Picture)
    )
    assert picture.timings == {"diffusion": 0.5 * 4, "total": 0.5 * 4}
    assert picture.steps == 2


# Tiles


@pytest.mark.parametrize("scale", [1.0, 1.3, 2.0])
@pytest.mark.parametrize("size", [(64, 64), (20, 30), (110, 61)])
@pytest.mark.parametrize("upscaler", ["Lanczos", "Nearest"])
def test_tiles_of_strength_0_are_the_enlarged_source(
    tiny: Model, scale: float, size: tuple[int, int], upscaler: str
) -> None:
    tiles = Tiles(scale=scale, overlap=24, upscaler=upscaler)
    expected = enlarge_to_cover(draw_scene(*size), (int(size[0] * scale), int(size[1] * scale)), upscaler)
    result = paint_image(tiny, **tiled_changes(source=draw_scene(*size), tiles=tiles, strength=0.0, crop=(64, 56)))
    np.testing.assert_array_equal(result, pixels(expected))


def test_each_tile_is_painted_in_the_size_of_the_request() -> None:
    painter = FakePainter()
    paint_blank(painter, **tiled_changes())
    # 112 pixels a side in tiles of 64 that overlap by 16.
    assert len(painter.requests) == 4
    for asked in painter.requests:
        assert (asked.width, asked.height, asked.tiles) == (64, 64, None)
        assert asked.source is not None
        assert asked.source.size == (64, 64)


def test_tiles_keep_the_picture_and_repaint_it(tiny: Model) -> None:
    result = paint_image(tiny, **tiled_changes(strength=0.4, steps=4))
    expected, another = (pixels(enlarge_to_cover(draw_scene(turn=turn), (112, 112), "Lanczos")) for turn in (0, 1))
    assert result.shape == expected.shape
    assert 0 < distance(result, expected) < distance(result, another)


@pytest.mark.parametrize("overlap", [32, 64, 256])
def test_tiles_share_half_of_each_at_most(overlap: int) -> None:
    painter = FakePainter()
    paint_blank(painter, **tiled_changes(tiles=Tiles(scale=2.0, overlap=overlap, upscaler="Lanczos")))
    assert len(painter.requests) == 9


def test_the_time_of_tiles_is_that_of_all_of_them() -> None:
    (picture,) = (event for event in paint_blank(FakePainter(), **tiled_changes()) if isinstance(event, Picture))
    assert picture.timings["diffusion"] == 4 * 0.5
    np.testing.assert_array_equal((picture.array * 255).round(), pixels(picture.image))


# Events

KINDS: dict[str, dict[str, Any]] = {
    "one pass": {"steps": 3},
    "repaint": {"source": draw_scene(), "strength": 0.5, "steps": 4},
    "hires": {"hires": make_hires(96, 96, steps=4)},
    "hires kept": {"hires": make_hires(strength=0.0)},
    "hires of a repaint": {"source": draw_scene(), "strength": 0.5, "steps": 4, "hires": make_hires(96, 96)},
    "tiles": tiled_changes(source=draw_scene(64, 36), steps=4),
    "tiles kept": tiled_changes(strength=0.0),
}


@pytest.mark.parametrize("kind", slow_but(KINDS, "one pass", "hires", "tiles"))
def test_steps_are_counted_through_all_passes(tiny: Model, kind: str) -> None:
    said = list(paint_events(tiny, seeds=(3, 4), **KINDS[kind]))
    ends = [index for index, event in enumerate(said) if isinstance(event, Picture)]
    assert len(ends) == 2
    assert ends[-1] == len(said) - 1
    for seed, part in ((3, said[: ends[0]]), (4, said[ends[0] + 1 : -1])):
        steps = [event for event in part if isinstance(event, Step)]
        assert [step.number for step in steps] == [number + 1 for number in range(len(steps))]
        assert {step.steps for step in steps} <= {len(steps)}
        assert {event.seed for event in part if not isinstance(event, UpsamplingProgress)} <= {seed}
        previews = [event.number for event in part if isinstance(event, Preview)]
        assert previews == sorted(set(previews))


@pytest.mark.parametrize("kind", slow_but(KINDS, "one pass", "hires", "tiles"))
def test_closing_between_any_events_gives_the_memory_back(tiny: Model, kind: str) -> None:
    expected = paint_image(tiny)
    count = len(list(paint_events(tiny, **KINDS[kind])))
    mx.clear_cache()
    before = mx.get_active_memory()
    for stop in sorted({1, 2, count // 2, count // 2 + 1, count - 1, count} & {*range(1, count + 1)}):
        painting = paint_events(tiny, **KINDS[kind])
        for _ in range(stop):
            next(painting)
        painting.close()
        assert mx.get_cache_memory() == 0 or stop == count
        assert mx.get_active_memory() <= before + 200_000
        del painting
    np.testing.assert_array_equal(paint_image(tiny), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_every_pass_that_was_begun_is_closed(kind: str) -> None:
    count = len(paint_blank(FakePainter(), **KINDS[kind]))
    for stop in range(1, count + 1):
        painter = FakePainter()
        painting = paint(painter, make_request(**KINDS[kind]))
        for _ in range(stop):
            next(painting)
        painting.close()
        assert painter.closed == len(painter.requests)
