"""The pipeline: order of events, stopping, and repeatable pictures."""

import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mflux_api.engine.model import Model, load_model
from mflux_api.errors import InvalidImage, InvalidRequest
from mflux_api.ipc.messages import PaintingEvent, Picture, Preview, Step
from mflux_api.request import GenerateRequest

PROMPT = "a large red circle on a white background"
SMALL: dict[str, Any] = {"width": 64, "height": 80, "steps": 2, "seeds": (3,)}
Pixels = NDArray[np.float32]


def request(**changes: Any) -> GenerateRequest:
    return GenerateRequest(**{"prompt": PROMPT, "negative_prompt": "", "guidance": 1.0, **SMALL, **changes})


def events(model: Model, **changes: Any) -> Generator[PaintingEvent, None, object]:
    return model.pipeline.paint(request(**changes))


def pixels(model: Model, prompt: str = PROMPT, **changes: Any) -> Pixels:
    return model.generate(prompt, **{**SMALL, **changes})[0].array


@pytest.fixture(scope="module")
def scene() -> Image.Image:
    rows, columns = np.mgrid[0:80, 0:64]
    return Image.fromarray(np.stack([rows * 3, columns * 3, rows + columns], axis=-1).astype(np.uint8))


@pytest.fixture(scope="module")
def mask() -> Image.Image:
    mask = Image.new("L", (64, 80), 0)
    mask.paste(255, (16, 16, 48, 48))
    return mask


def test_steps_come_first_and_a_picture_last(tiny: Model) -> None:
    kinds = [type(event) for event in events(tiny, steps=3)]
    assert kinds == [Step, Preview, Step, Preview, Step, Picture]


def test_a_step_is_announced_when_it_has_been_computed(tiny: Model) -> None:
    steps = [event for event in events(tiny, steps=3) if isinstance(event, Step)]
    assert [(step.number, step.steps) for step in steps] == [(1, 3), (2, 3), (3, 3)]
    assert all(step.seconds > 0 for step in steps)


def test_each_seed_is_a_picture(tiny: Model) -> None:
    pictures = tiny.generate(PROMPT, **{**SMALL, "seeds": (3, 4)})
    assert [picture.seed for picture in pictures] == [3, 4]
    np.testing.assert_array_equal(pictures[0].array, pixels(tiny))
    assert not np.array_equal(pictures[0].array, pictures[1].array)


@pytest.mark.parametrize("size", [(64, 64), (64, 192), (208, 80)])
def test_any_multiple_of_16_can_be_painted(tiny: Model, size: tuple[int, int]) -> None:
    picture = tiny.generate(PROMPT, width=size[0], height=size[1], steps=1, seeds=(1,))[0]
    assert picture.image.size == size
    assert picture.array.shape == (size[1], size[0], 3)
    assert picture.array.dtype == np.float32


def test_the_image_is_the_array_rounded(tiny: Model) -> None:
    picture = tiny.generate(PROMPT, **SMALL)[0]
    assert 0 <= picture.array.min() <= picture.array.max() <= 1
    np.testing.assert_array_equal(np.asarray(picture.image), (picture.array * 255).round().astype(np.uint8))


def test_timings_add_up(tiny: Model) -> None:
    timings = tiny.generate(PROMPT, **SMALL)[0].timings
    parts = timings["encoding"] + timings["diffusion"] + timings["decoding"]
    assert timings["total"] == pytest.approx(parts)


def test_given_latents_are_the_noise(tiny: Model) -> None:
    noise = np.array(mx.random.normal((1, 128, 5, 4), key=mx.random.key(3)))
    np.testing.assert_array_equal(pixels(tiny, latents=noise), pixels(tiny))


def test_given_latents_are_a_picture_each(tiny: Model) -> None:
    noise = np.random.default_rng(0).standard_normal((2, 128, 4, 4)).astype(np.float32)
    assert len(tiny.generate(PROMPT, width=64, height=64, steps=1, latents=noise)) == 2


# Stopping


@pytest.mark.parametrize("after", [1, 2, 4, 5])
def test_stopping_after_any_event_leaves_the_next_picture_bit_exact(tiny: Model, after: int) -> None:
    expected = pixels(tiny)
    painting = events(tiny, steps=3, seeds=(8, 9))
    for _ in range(after):
        next(painting)
    painting.close()
    np.testing.assert_array_equal(pixels(tiny), expected)


def test_nothing_is_decoded_after_a_stop(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[mx.array] = []
    monkeypatch.setattr(tiny.pipeline.autoencoder, "decode", decoded.append)
    painting = events(tiny)
    while not (isinstance(event := next(painting), Step) and event.number == event.steps):
        pass
    painting.close()
    assert decoded == []


def test_a_stop_gives_the_memory_back(tiny: Model) -> None:
    pixels(tiny)
    mx.clear_cache()
    before = mx.get_active_memory()
    painting = events(tiny, width=128, height=128)
    next(painting)
    painting.close()
    del painting
    assert mx.get_cache_memory() == 0
    assert mx.get_active_memory() <= before + 200_000


def test_what_a_listener_raises_stops_the_painting(tiny: Model) -> None:
    heard: list[PaintingEvent] = []

    def listen(event: PaintingEvent) -> None:
        heard.append(event)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny.generate(PROMPT, **SMALL, on_event=listen)
    assert len(heard) == 1


# Guidance


def test_a_distilled_model_runs_at_guidance_1_and_says_so(tiny: Model) -> None:
    picture = tiny.generate(PROMPT, guidance=4.0, negative_prompt="blue", **SMALL)[0]
    assert picture.guidance == 1.0
    np.testing.assert_array_equal(picture.array, pixels(tiny))


def test_a_base_model_paints_away_from_the_negative_prompt(tiny_base: Model) -> None:
    plain, guided = (pixels(tiny_base, guidance=guidance) for guidance in (1.0, 2.0))
    away = pixels(tiny_base, guidance=2.0, negative_prompt="a blue square")
    assert np.abs(plain - guided).max() > 0.01
    assert np.abs(away - guided).max() > 0.01


def test_guidance_away_from_the_prompt_itself_changes_nothing(tiny_base: Model) -> None:
    np.testing.assert_allclose(
        pixels(tiny_base, guidance=2.0, negative_prompt=PROMPT), pixels(tiny_base, guidance=1.0), atol=1e-5
    )


# Repainting


def test_strength_0_keeps_the_picture(tiny: Model, scene: Image.Image) -> None:
    np.testing.assert_array_equal(pixels(tiny, image=scene, strength=0), np.asarray(scene, np.float32) / 255)


def test_strength_1_ignores_the_picture(tiny: Model, scene: Image.Image) -> None:
    np.testing.assert_array_equal(pixels(tiny, image=scene, strength=1), pixels(tiny))


def test_more_strength_runs_more_of_the_steps(tiny: Model, scene: Image.Image) -> None:
    counts = [
        sum(isinstance(event, Step) for event in events(tiny, source=scene, strength=strength, steps=4))
        for strength in (0.0, 0.2, 0.5, 0.8, 1.0)
    ]
    assert counts == [0, 1, 2, 4, 4]


def test_a_repaint_takes_the_size_of_its_source(tiny: Model, scene: Image.Image) -> None:
    picture = tiny.generate(PROMPT, image=scene.resize((100, 70)), steps=1, seeds=(1,))[0]
    assert picture.image.size == (96, 64)


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_pixels_outside_the_mask_are_the_sources_own(
    tiny: Model, scene: Image.Image, mask: Image.Image, strength: float
) -> None:
    picture = tiny.generate(PROMPT, image=scene, mask=mask, strength=strength, **SMALL)[0]
    kept = np.asarray(mask) == 0
    np.testing.assert_array_equal(np.asarray(picture.image)[kept], np.asarray(scene)[kept])
    assert not np.array_equal(np.asarray(picture.image)[~kept], np.asarray(scene)[~kept])


def test_an_inpainting_may_look_at_a_reference(tiny: Model, scene: Image.Image, mask: Image.Image) -> None:
    with_one = pixels(tiny, image=scene, mask=mask, strength=1.0, images=[Image.new("RGB", (64, 64), "red")])
    assert not np.array_equal(with_one, pixels(tiny, image=scene, mask=mask, strength=1.0))


# Edits


def test_a_reference_changes_the_picture_and_keeps_its_size_apart(tiny: Model, scene: Image.Image) -> None:
    edited = tiny.generate(PROMPT, images=[scene, scene.rotate(90, expand=True)], **SMALL)[0]
    assert edited.image.size == (64, 80)
    assert not np.array_equal(edited.array, pixels(tiny))


def test_an_edit_takes_the_size_of_its_first_reference(tiny: Model, scene: Image.Image) -> None:
    picture = tiny.generate(PROMPT, images=[scene.resize((70, 100))], steps=1, seeds=(1,))[0]
    assert picture.image.size == (64, 96)


def test_a_reference_too_small_is_refused(tiny: Model) -> None:
    with pytest.raises(InvalidImage, match=r"at least 16 pixels on each side, not 8x64\."):
        tiny.generate(PROMPT, images=[Image.new("RGB", (8, 64))], **SMALL)


def test_a_mask_without_a_picture_is_refused(tiny: Model, mask: Image.Image) -> None:
    with pytest.raises(InvalidRequest, match="A mask needs the picture it belongs to"):
        tiny.generate(PROMPT, mask=mask, **SMALL)


# Prompts


@pytest.mark.parametrize("prompt", ["", " ", "zxqv blorf", "日本語 🌅", "word " * 500, "\x00\n\t"])
def test_any_text_can_be_painted(tiny: Model, prompt: str) -> None:
    assert np.isfinite(pixels(tiny, prompt)).all()


def test_a_remembered_prompt_paints_the_same_bits(tiny: Model) -> None:
    prompt = "a prompt that was never painted before"
    hits = tiny.pipeline.prompt_encoder.cache.hits
    first = pixels(tiny, prompt)
    assert tiny.pipeline.prompt_encoder.cache.hits == hits
    second = pixels(tiny, prompt)
    assert tiny.pipeline.prompt_encoder.cache.hits == hits + 1
    np.testing.assert_array_equal(first, second)


def test_low_ram_lets_go_of_the_text_encoder_and_paints_the_same(tiny: Model) -> None:
    model = load_model("flux2-tiny", low_ram=True, embedding_cache=0)
    for _ in range(2):
        np.testing.assert_array_equal(pixels(model), pixels(tiny))
        assert model.pipeline.prompt_encoder.encoder is None


def test_only_the_layers_that_are_needed_are_loaded(tiny: Model) -> None:
    encoder = tiny.pipeline.prompt_encoder.get_encoder()
    assert len(encoder.layers) == max(tiny.pipeline.checkpoint.out_layers)


# Previews


def test_a_preview_is_an_eighth_of_the_picture(tiny: Model) -> None:
    preview = next(event for event in events(tiny) if isinstance(event, Preview))
    assert preview.image.size == (8, 10)


def test_no_preview_needs_a_decode(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    decode = tiny.pipeline.autoencoder.decode
    calls: list[int] = []

    def counted(patches: mx.array) -> Pixels:
        calls.append(1)
        return decode(patches)

    monkeypatch.setattr(tiny.pipeline.autoencoder, "decode", counted)
    list(events(tiny, steps=4))
    assert len(calls) == 1


def test_bfloat16_paints_nearly_the_same(tiny: Model) -> None:
    model = load_model("flux2-tiny", precision="bfloat16")
    assert np.abs(pixels(model) - pixels(tiny)).mean() < 0.02


def test_a_loaded_model_can_be_used_from_another_thread(checkpoint: Path) -> None:
    model = load_model(checkpoint)
    expected = pixels(model)
    found: list[Pixels] = []
    worker = threading.Thread(target=lambda: found.append(pixels(model)))
    worker.start()
    worker.join()
    np.testing.assert_array_equal(found[0], expected)
