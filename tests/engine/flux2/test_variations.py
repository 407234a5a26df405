"""Noise between two seeds, latents at another size, and prompts that change between steps."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mflux_api.engine.flux2 import latents
from mflux_api.engine.model import Model
from mflux_api.request import LARGEST_SEED, Variation
from tests.support.painting import distance, draw_scene, paint_events, paint_image, paint_images, white_box_mask

SHAPE = (128, 4, 5)
shares = st.floats(0, 1)
seeds = st.integers(0, LARGEST_SEED)
METHODS = ["nearest", "bilinear", "bicubic"]


def noise(seed: int) -> mx.array:
    return latents.make_noise(seed, *SHAPE)


def numbers(values: mx.array) -> NDArray[np.float32]:
    return np.array(values)


# On the great circle


@given(seeds, seeds, shares)
def test_noise_between_two_seeds_is_noise(first: int, second: int, share: float) -> None:
    mixed = numbers(latents.slerp(noise(first), noise(second), share))
    lengths = [np.linalg.norm(numbers(each)) for each in (noise(first), noise(second))]
    assert min(lengths) * 0.99 <= np.linalg.norm(mixed) <= max(lengths) * 1.01
    assert mixed.std() == pytest.approx(1, abs=0.1)


@given(seeds, seeds)
def test_the_circle_begins_at_one_seed_and_ends_at_the_other(first: int, second: int) -> None:
    for share, end in ((0.0, first), (1.0, second)):
        mixed = latents.slerp(noise(first), noise(second), share)
        np.testing.assert_allclose(numbers(mixed), numbers(noise(end)), atol=1e-4)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_between_the_angle_grows_with_the_share(share: float) -> None:
    first, second = (numbers(noise(seed)).ravel() for seed in (1, 2))
    mixed = numbers(latents.slerp(noise(1), noise(2), share)).ravel()

    def angle(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
        return float(np.arccos(one @ other / np.linalg.norm(one) / np.linalg.norm(other)))

    assert angle(first, mixed) == pytest.approx(share * angle(first, second), abs=0.02)


@given(seeds, shares)
def test_between_a_noise_and_itself_there_is_only_itself(seed: int, share: float) -> None:
    np.testing.assert_allclose(numbers(latents.slerp(noise(seed), noise(seed), share)), numbers(noise(seed)), atol=1e-5)


# Variations


def test_a_variation_of_strength_0_is_the_seed_and_of_1_the_other_one(tiny: Model) -> None:
    one, other = (paint_image(tiny, seeds=(seed,)) for seed in (3, 9))
    np.testing.assert_array_equal(paint_image(tiny, variation=Variation(seed=9, strength=0.0)), one)
    assert distance(paint_image(tiny, variation=Variation(seed=9, strength=1.0)), other) < 0.01


def test_a_variation_is_between_its_two_seeds(tiny: Model) -> None:
    one, other = (paint_image(tiny, seeds=(seed,)) for seed in (3, 9))
    near, far = (paint_image(tiny, variation=Variation(seed=9, strength=strength)) for strength in (0.1, 0.9))
    assert 0 < distance(near, one) < distance(near, other)
    assert 0 < distance(far, other) < distance(far, one)


def test_a_variation_with_the_seed_itself_changes_nothing(tiny: Model) -> None:
    varied = paint_image(tiny, variation=Variation(seed=3, strength=0.5))
    assert distance(varied, paint_image(tiny)) < 0.01


def test_each_picture_varies_with_the_next_seed_and_they_begin_again_after_the_largest(tiny: Model) -> None:
    pictures = paint_images(tiny, seeds=(3, 3, 3), variation=Variation(seed=LARGEST_SEED, strength=0.5))
    for index, seed in enumerate((LARGEST_SEED, 0, 1)):
        alone = paint_image(tiny, variation=Variation(seed=seed, strength=0.5))
        np.testing.assert_array_equal(pictures[index], alone)


@pytest.mark.parametrize("changes", [{"strength": 0.5}, {"mask": white_box_mask((0, 0, 64, 32)), "strength": 1.0}])
def test_a_repaint_varies_too(tiny: Model, changes: dict[str, Any]) -> None:
    plain, varied = (
        paint_image(tiny, source=draw_scene(), variation=variation, **changes)
        for variation in (None, Variation(seed=9, strength=0.5))
    )
    assert not np.array_equal(plain, varied)


# Latents at another size


@pytest.mark.parametrize("method", METHODS)
@given(rows=st.integers(1, 9), columns=st.integers(1, 9), value=st.floats(-4, 4, width=32))
def test_stretched_latents_have_the_size_and_a_plain_one_stays_plain(
    method: str, rows: int, columns: int, value: float
) -> None:
    stretched = latents.resize_latents(mx.full((1, 8, 3, 4), value), rows, columns, method)
    assert stretched.shape == (1, 8, rows, columns)
    assert stretched.dtype == mx.float32
    np.testing.assert_allclose(numbers(stretched), value, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_latents_of_the_size_are_left_alone(method: str) -> None:
    np.testing.assert_allclose(numbers(latents.resize_latents(noise(1), 4, 5, method)), numbers(noise(1)), atol=1e-6)


def test_latents_are_stretched_channel_by_channel_pixel_by_pixel() -> None:
    plain = np.random.default_rng(0).standard_normal((1, 2, 4, 6)).astype(np.float32)
    stretched = latents.unpatchify(latents.resize_latents(latents.patchify(mx.array(plain)), 4, 6, "nearest"))
    np.testing.assert_array_equal(numbers(stretched), plain.repeat(2, axis=2).repeat(2, axis=3))


# Prompts by step

OTHER = "a blue star on a yellow background"


@pytest.mark.parametrize("schedule", [((4, OTHER),), ((2, OTHER), (4, OTHER)), ((9, OTHER),)])
def test_one_prompt_for_all_steps_is_the_plain_prompt(tiny: Model, schedule: tuple[tuple[int, str], ...]) -> None:
    np.testing.assert_array_equal(
        paint_image(tiny, steps=4, schedule=schedule), paint_image(tiny, steps=4, prompt=OTHER)
    )


def test_a_change_after_the_last_step_changes_nothing(tiny: Model) -> None:
    changed = paint_image(tiny, steps=4, schedule=((4, OTHER), (8, "a ring")), prompt="a heart")
    np.testing.assert_array_equal(changed, paint_image(tiny, steps=4, prompt=OTHER))


def test_each_step_has_its_own_prompt(tiny: Model) -> None:
    pictures = [paint_image(tiny, steps=4, schedule=((last, OTHER),)) for last in range(1, 5)]
    plain = paint_image(tiny, steps=4)
    for index, picture in enumerate(pictures):
        assert all(not np.array_equal(picture, other) for other in (plain, *pictures[:index]))
    # The later the change away from OTHER, the farther from the plain picture.
    assert distance(pictures[0], plain) < distance(pictures[3], plain)


@pytest.mark.parametrize("changes", [{"strength": 0.5}, {"mask": white_box_mask((0, 0, 64, 32)), "strength": 0.5}])
def test_a_repaint_counts_the_steps_that_it_runs(tiny: Model, changes: dict[str, Any]) -> None:
    shared: dict[str, Any] = {"source": draw_scene(), "steps": 4, **changes}
    # Two of the four steps.
    both = paint_image(tiny, schedule=((2, OTHER),), **shared)
    np.testing.assert_array_equal(both, paint_image(tiny, prompt=OTHER, **shared))
    first = paint_image(tiny, schedule=((1, OTHER),), **shared)
    assert not np.array_equal(first, both)
    assert not np.array_equal(first, paint_image(tiny, **shared))


def test_prompts_by_step_are_guided_as_one_is(tiny_base: Model) -> None:
    guided: dict[str, Any] = {"guidance": 2.0, "negative_prompt": "a blue square", "steps": 2}
    plain = paint_image(tiny_base, prompt=OTHER, **guided)
    np.testing.assert_array_equal(paint_image(tiny_base, schedule=((2, OTHER),), **guided), plain)
    assert not np.array_equal(paint_image(tiny_base, schedule=((1, OTHER),), **guided), plain)


def test_a_schedule_that_is_given_up_leaves_the_next_picture_bit_exact(tiny: Model) -> None:
    expected = paint_image(tiny, steps=4)
    painting = paint_events(tiny, steps=4, schedule=((2, OTHER),))
    next(painting)
    painting.close()
    np.testing.assert_array_equal(paint_image(tiny, steps=4), expected)
