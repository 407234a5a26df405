"""SeedVR2 from tiny random weights, with the file names and tensor names of the published ones."""

import copy
import functools
import gc
from collections.abc import Generator
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mflux.models.common.config import ModelConfig
from mflux.models.seedvr2 import seedvr2_initializer
from mflux.models.seedvr2.model.seedvr2_vae.vae import SeedVR2VAE
from mflux.models.seedvr2.variants.upscale.seedvr2 import SeedVR2
from mflux.models.seedvr2.variants.upscale.seedvr2_util import SeedVR2Util
from numpy.typing import NDArray
from PIL import Image

from mflux_api.checkpoints.seedvr2 import TRANSFORMERS, read_checkpoint
from mflux_api.engine.precision import choose_precision, use_dtype
from mflux_api.engine.seedvr2.loading import allow_empty_cumsum
from mflux_api.engine.seedvr2.upscaler import Upscaler
from mflux_api.errors import InvalidRequest
from mflux_api.ipc.messages import PaintingEvent, Picture, Step
from mflux_api.request import EarlyStop, LoraUse
from tests.support.marks import slow_but
from tests.support.seedvr2 import FLOAT32, KINDS, WIDTHS, draw_scene, make_request, upscale, write_upscaler

PARTS = ("encoding", "diffusion", "decoding")
Pixels = NDArray[np.float32]


@pytest.fixture(scope="module", params=slow_but(TRANSFORMERS, TRANSFORMERS[0]), ids=["like-3b", "like-7b"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, name: str) -> Path:
    return write_upscaler(tmp_path_factory.mktemp("upscaler"), name)


@pytest.fixture(scope="module")
def upscaler(folder: Path) -> Upscaler:
    return Upscaler(read_checkpoint(folder), None, FLOAT32)


# The picture


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Pixels]:
    """Record the decoded pictures, -1..1, before colour correction.

    Only these are compared closely. Colour correction ranks pixels, so a rounding difference between two nearly equal
    pixels may swap their colours.
    """
    seen: list[Pixels] = []
    correct = SeedVR2Util.apply_color_correction

    def spy(content: mx.array, style: mx.array) -> mx.array:
        seen.append(np.array(content.astype(mx.float32)))
        return correct(content, style)  # type: ignore[no-any-return]

    monkeypatch.setattr(SeedVR2Util, "apply_color_correction", spy)
    return seen


def mflux_picture(folder: Path, name: str, source: Path, side: int, monkeypatch: pytest.MonkeyPatch) -> Image.Image:
    """Return the picture that mflux's own class paints with the same weights."""
    config = copy.copy(ModelConfig.seedvr2_3b() if name == TRANSFORMERS[0] else ModelConfig.seedvr2_7b())
    config.transformer_overrides = KINDS[name]
    vae = functools.partial(SeedVR2VAE, block_out_channels=WIDTHS)
    monkeypatch.setattr(seedvr2_initializer, "SeedVR2VAE", vae)
    with use_dtype(mx.float32), allow_empty_cumsum():
        theirs = SeedVR2(model_path=str(folder), model_config=config)
        image = theirs.generate_image(seed=3, image_path=source, resolution=side).image
    assert isinstance(image, Image.Image)
    return image


@pytest.mark.parametrize(
    ("source", "size"),
    [
        pytest.param((32, 32), (64, 64), id="square"),
        pytest.param((50, 25), (128, 64), id="wide"),
        pytest.param((90, 10), (576, 64), id="several tiles and windows", marks=pytest.mark.slow),
    ],
)
def test_the_picture_is_mfluxs_own(
    *,
    upscaler: Upscaler,
    folder: Path,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    decoded: list[Pixels],
    source: tuple[int, int],
    size: tuple[int, int],
) -> None:
    image = draw_scene(*source)
    image.save(tmp_path / "source.png")
    ours = upscale(upscaler, *size, source=image).image
    theirs = mflux_picture(folder, name, tmp_path / "source.png", min(size), monkeypatch)
    assert theirs.size == ours.size == size
    difference = np.abs(decoded[0] - decoded[1])
    assert difference.max() < 3e-4
    assert np.abs(np.asarray(theirs, dtype=np.float32) - np.asarray(ours)).mean() < 0.01


@pytest.mark.parametrize("size", [(64, 64), (100, 76), (65, 79), (8, 5)], ids="{0[0]}x{0[1]}".format)
def test_a_picture_has_exactly_the_size_that_was_asked_for(upscaler: Upscaler, size: tuple[int, int]) -> None:
    made = upscale(upscaler, *size)
    assert made.image.size == size
    assert made.array.shape == (size[1], size[0], 3)


def test_a_source_on_its_canvas_is_the_source_itself(upscaler: Upscaler) -> None:
    """The border around the source on its canvas has no influence."""
    source = draw_scene(100, 76)
    framed = Image.new("RGB", (112, 80), "red")
    framed.paste(source, (6, 2))
    np.testing.assert_array_equal(
        upscale(upscaler, 100, 76, source=framed).array, upscale(upscaler, 100, 76, source=source).array
    )


def test_the_same_seed_makes_the_same_picture_and_another_another(upscaler: Upscaler) -> None:
    first, same, other = (upscale(upscaler, seeds=(seed,)).array for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, same)
    assert np.abs(first - other).max() > 0.01


def test_the_picture_keeps_the_colours_of_its_source(upscaler: Upscaler) -> None:
    for colour in ((150, 110, 90), (90, 120, 150)):
        made = upscale(upscaler, source=Image.new("RGB", (32, 32), colour))
        assert np.abs(made.array.mean((0, 1)) * 255 - colour).max() < 10


def test_bfloat16_makes_nearly_the_same(upscaler: Upscaler, folder: Path) -> None:
    half = Upscaler(read_checkpoint(folder), None, choose_precision("bfloat16"))
    assert np.abs(upscale(half).array - upscale(upscaler).array).mean() < 0.02


@pytest.mark.parametrize(("bits", "distance"), [(8, 0.01), (4, 0.1)])
def test_a_quantized_model_makes_nearly_the_same(upscaler: Upscaler, folder: Path, bits: int, distance: float) -> None:
    quantized = Upscaler(read_checkpoint(folder), bits, FLOAT32)
    assert quantized.bits == bits
    assert 0 < np.abs(upscale(quantized).array - upscale(upscaler).array).mean() < distance


# A painting


def test_each_seed_is_a_step_and_a_picture(upscaler: Upscaler) -> None:
    events = list(upscaler.paint(make_request(seeds=(3, 4))))
    assert [type(event) for event in events] == [Step, Picture, Step, Picture]
    assert [event.seed for event in events if isinstance(event, Step | Picture)] == [3, 3, 4, 4]
    assert all((event.number, event.steps) == (1, 1) and event.seconds > 0 for event in events[::2])  # type: ignore[union-attr]


def test_a_picture_says_how_it_was_made(upscaler: Upscaler) -> None:
    made = upscale(upscaler)
    assert (made.steps, made.guidance, made.loras) == (1, 1.0, ())
    assert made.timings["total"] == pytest.approx(sum(made.timings[part] for part in PARTS))
    np.testing.assert_array_equal(np.asarray(made.image), (made.array * 255).round().astype(np.uint8))


@pytest.mark.parametrize("events", [1, 2, 3])
def test_stopping_after_any_event_gives_the_memory_back(upscaler: Upscaler, events: int) -> None:
    upscale(upscaler)
    gc.collect()
    before = mx.get_active_memory()
    painting: Generator[PaintingEvent, None, EarlyStop | None] = upscaler.paint(make_request(seeds=(3, 4)))
    for _ in range(events):
        next(painting)
    painting.close()
    assert mx.get_active_memory() <= before
    assert mx.get_cache_memory() == 0


def test_an_interrupt_leaves_out_the_pictures_that_follow(upscaler: Upscaler) -> None:
    for cut, pictures in ((EarlyStop.INTERRUPT, 1), (EarlyStop.SKIP, 2)):
        events = list(upscaler.paint(make_request(seeds=(3, 4)), lambda cut=cut: cut))  # type: ignore[misc]
        assert sum(isinstance(event, Picture) for event in events) == pictures


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"source": None}, "image"),
        ({"mask": Image.new("L", (64, 64))}, "mask"),
        ({"references": (draw_scene(64, 64),)}, "references"),
        ({"loras": (LoraUse(path="x", scale=1.0),)}, "loras"),
        ({"latents": np.zeros((1, 128, 4, 4), np.float32)}, "latents"),
    ],
    ids=["no-picture", "mask", "references", "loras", "latents"],
)
def test_what_it_has_no_use_for_is_refused(upscaler: Upscaler, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        next(upscaler.paint(make_request(**changes)))
    assert caught.value.details == {"field": field}
