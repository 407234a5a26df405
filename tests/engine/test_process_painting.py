"""Painting and loading models in a real engine process, with the embedded model."""

import io
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mflux_api.engine.model import Model, load_model
from mflux_api.errors import InvalidImage, MfluxError, ModelCorrupt, ModelIncomplete, OutOfMemory
from mflux_api.ipc.messages import (
    FinishedPicture,
    LoadCommand,
    Loading,
    PaintCommand,
    Reply,
    Step,
    Thumbnail,
    UnloadCommand,
)
from mflux_api.models.registry import EMBEDDED_MODELS_DIR, resolve_model
from mflux_api.worker.engine_process import EngineProcess
from tests.support.processes import (
    BITS_4,
    PROMPT,
    TINY,
    Shared,
    finished,
    model_size,
    paint,
    picture,
    pixels,
    replies,
    run,
    running,
)

pytestmark = pytest.mark.engine_process

EXIF_ORIENTATION = 0x0112
QUARTER_TURN = 6


# Painting


def test_it_paints_what_the_library_paints(shared: Shared, tiny: Model) -> None:
    expected = tiny.generate(PROMPT, width=64, height=64, steps=2, seeds=[7, 8])
    said = shared.run(replies(shared.engine, paint(steps=2, seeds=(7, 8))))
    painted = [reply for reply in said if isinstance(reply, FinishedPicture)]
    for ours, theirs in zip(painted, expected, strict=True):
        np.testing.assert_array_equal(pixels(ours.data), np.asarray(theirs.image))
        assert (ours.seed, ours.width, ours.height, ours.guidance) == (theirs.seed, 64, 64, theirs.guidance)
        assert ours.timings.keys() == theirs.timings.keys()


def test_it_says_each_step(shared: Shared) -> None:
    said = shared.run(replies(shared.engine, paint(steps=3)))
    assert [(reply.number, reply.steps, reply.seed) for reply in said if isinstance(reply, Step)] == [
        (1, 3, 7),
        (2, 3, 7),
        (3, 3, 7),
    ]


async def collect_while_watched(engine: EngineProcess, command: PaintCommand) -> list[Reply]:
    """Return all replies to a command whose previews are watched from the first reply on."""
    said: list[Reply] = []
    async with aclosing(engine.stream_replies(command)) as replies_to_it:
        async for reply in replies_to_it:
            said.append(reply)
            if len(said) == 1:
                engine.show_previews()
    return said


def test_it_shows_a_preview_of_each_step_but_the_last_once_somebody_looks(shared: Shared) -> None:
    shared.picture()
    said = shared.run(collect_while_watched(shared.engine, paint(steps=20)))
    assert [type(reply) for reply in said[-6:]] == [Step, Thumbnail, Step, Thumbnail, Step, FinishedPicture]
    previews = [pixels(reply.data) for reply in said if isinstance(reply, Thumbnail)]
    assert {preview.shape for preview in previews} == {(8, 8, 3)}


def test_a_look_is_for_the_painting_that_goes_on(shared: Shared) -> None:
    shared.engine.show_previews()
    shared.run(collect_while_watched(shared.engine, paint(steps=2)))
    shared.engine.show_previews()
    said = shared.run(replies(shared.engine, paint(steps=4)))
    assert [type(reply) for reply in said] == [Step] * 4 + [FinishedPicture]


def test_the_picture_holds_its_generation_data(shared: Shared) -> None:
    painted = shared.picture(steps=2)
    assert Image.open(io.BytesIO(painted.data)).info["parameters"] == painted.text
    assert painted.text.startswith(PROMPT)
    for fact in ("Steps: 2", "Seed: 7", "Size: 64x64", f"Model: {TINY}"):
        assert fact in painted.text
    assert "Denoising strength" not in painted.text


# Input pictures


def scene() -> Image.Image:
    """Draw a picture that is wider than high and differs from itself turned or mirrored."""
    image = Image.new("RGB", (96, 64), (200, 30, 30))
    image.paste((30, 30, 200), (0, 0, 40, 20))
    image.paste((240, 240, 20), (60, 40, 96, 64))
    return image


def hole() -> Image.Image:
    alpha = Image.new("L", (96, 64), 255)
    alpha.paste(0, (10, 10, 50, 50))
    return alpha


def transparent() -> Image.Image:
    image = scene().convert("RGBA")
    image.putalpha(hole())
    return image


def on_white() -> Image.Image:
    image = scene()
    image.paste((255, 255, 255), (10, 10, 50, 50))
    return image


def write_turned(path: Path) -> None:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = QUARTER_TURN
    scene().transpose(Image.Transpose.ROTATE_90).save(path, "PNG", exif=exif)


def write_palette(path: Path) -> None:
    image = on_white().quantize(8)
    white = image.getpixel((20, 20))
    # The colour of the transparent palette entry must not be shown.
    image.putpalette([*image.getpalette()[: 3 * white], 0, 255, 0, *image.getpalette()[3 * white + 3 :]])  # type: ignore[index, operator]
    image.save(path, "PNG", transparency=white)


def grey_of_sixteen_bits(path: Path) -> None:
    Image.fromarray(np.asarray(scene().convert("L")).astype(np.uint16) * 257).save(path, "PNG")


FILES = {
    "PNG": (lambda path: scene().save(path, "PNG"), scene()),
    "BMP": (lambda path: scene().save(path, "BMP"), scene()),
    "lossless WebP": (lambda path: scene().save(path, "WEBP", lossless=True), scene()),
    "turned by EXIF": (write_turned, scene()),
    "transparent": (lambda path: transparent().save(path, "PNG"), on_white()),
    "transparent WebP": (lambda path: transparent().save(path, "WEBP", lossless=True), on_white()),
    "a transparent colour": (write_palette, on_white()),
    "grey": (lambda path: scene().convert("L").save(path, "PNG"), scene().convert("L")),
    "grey of 16 bits": (grey_of_sixteen_bits, scene().convert("L")),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_picture_is_read_from_its_file_as_it_looks(shared: Shared, tiny: Model, tmp_path: Path, kind: str) -> None:
    write, looks = FILES[kind]
    write(tmp_path / "source")
    painted = shared.picture(source=tmp_path / "source", strength=0.5, steps=2)
    expected = tiny.generate(PROMPT, width=64, height=64, steps=2, seeds=[7], image=looks, strength=0.5)
    np.testing.assert_array_equal(pixels(painted.data), np.asarray(expected[0].image))
    assert "Denoising strength: 0.5" in painted.text


def test_a_mask_and_references_are_read_from_their_files(shared: Shared, tiny: Model, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("source", "mask", "first", "second")]
    pictures = [scene(), hole(), on_white(), scene().rotate(180)]
    for file, image in zip(files, pictures, strict=True):
        image.save(file, "PNG")
    painted = shared.picture(source=files[0], mask=files[1], references=tuple(files[2:]), steps=2)
    expected = tiny.generate(
        PROMPT, width=64, height=64, steps=2, seeds=[7], image=pictures[0], mask=pictures[1], images=pictures[2:]
    )
    np.testing.assert_array_equal(pixels(painted.data), np.asarray(expected[0].image))


def png(width: int, height: int) -> bytes:
    stream = io.BytesIO()
    Image.new("1", (width, height)).save(stream, "PNG")
    return stream.getvalue()


def encode_image(image_format: str) -> bytes:
    stream = io.BytesIO()
    scene().save(stream, image_format)
    return stream.getvalue()


UNREADABLE = {
    "empty": b"",
    "text": b"not a picture",
    "truncated PNG": encode_image("PNG")[:-40],
    "truncated JPEG": encode_image("JPEG")[:300],
    "header only": encode_image("PNG")[:33],
    "a little too large": png(320, 300),
    "bomb": png(20_000, 20_000),
    "TIFF": encode_image("TIFF"),
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg' width='64' height='64'/>",
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_picture_that_cannot_be_read_is_refused_and_the_next_command_works(
    shared: Shared, tmp_path: Path, kind: str
) -> None:
    (tmp_path / "bad").write_bytes(UNREADABLE[kind])
    with pytest.raises(InvalidImage, match="The source picture cannot be read"):
        shared.picture(source=tmp_path / "bad")
    assert shared.picture().seed == 7


def test_a_mask_or_a_reference_that_cannot_be_read_is_refused_too(shared: Shared, tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    scene().save(good, "PNG")
    bad.write_bytes(UNREADABLE["truncated PNG"])
    with pytest.raises(InvalidImage, match="The mask picture cannot be read"):
        shared.picture(source=good, mask=bad)
    with pytest.raises(InvalidImage, match="A reference picture cannot be read"):
        shared.picture(references=(good, bad))


def test_a_picture_that_is_gone_is_refused(shared: Shared, tmp_path: Path) -> None:
    with pytest.raises(InvalidImage):
        shared.picture(source=tmp_path / "nowhere")


def test_each_picture_is_painted_from_its_own_file(shared: Shared, tiny: Model, tmp_path: Path) -> None:
    files, pictures = [tmp_path / "first", tmp_path / "second"], [scene(), on_white()]
    for file, image in zip(files, pictures, strict=True):
        image.save(file, "PNG")
    command = paint(seeds=(7, 8), steps=2, strength=0.5, source=files[0], further_sources=(files[1],))
    for index, reply in enumerate(finished(shared.run(replies(shared.engine, command)))):
        expected = tiny.generate(
            PROMPT, width=64, height=64, steps=2, seeds=[7 + index], image=pictures[index], strength=0.5
        )
        np.testing.assert_array_equal(pixels(reply.data), np.asarray(expected[0].image))


# Models


def test_models_are_loaded_listed_and_let_go_by_name() -> None:
    async def scenario() -> None:
        async with running() as engine:
            steps: list[tuple[LoadCommand | UnloadCommand, tuple[str, ...], int]] = [
                (LoadCommand(resolve_model(TINY, EMBEDDED_MODELS_DIR), low_ram=False), (TINY,), model_size(None)),
                (
                    LoadCommand(resolve_model(BITS_4, EMBEDDED_MODELS_DIR), low_ram=False),
                    (TINY, BITS_4),
                    model_size(None) + model_size(4),
                ),
                (UnloadCommand(TINY), (BITS_4,), model_size(4)),
                (UnloadCommand("nothing"), (BITS_4,), model_size(4)),
                (UnloadCommand(BITS_4), (), 0),
            ]
            for command, names, size in steps:
                await engine.run_command(command)
                assert engine.memory.loaded == names
                assert engine.memory.active == pytest.approx(size, rel=0.05, abs=100_000)
            assert engine.memory.peak > model_size(None)

    run(scenario())


def test_a_quantized_variant_is_another_model(shared: Shared) -> None:
    whole, quantized = (shared.picture(model=name) for name in (TINY, BITS_4))
    assert whole.data != quantized.data
    assert f"Model: {BITS_4}, " in quantized.text
    assert "Quantized: 4 bits" in quantized.text
    assert {TINY, BITS_4} <= set(shared.engine.memory.loaded)


def test_low_ram_paints_the_same(shared: Shared) -> None:
    assert pixels(shared.picture(low_ram=True).data).tolist() == pixels(shared.picture().data).tolist()


def damage_nothing_there(folder: Path) -> None:
    for shard in (folder / "vae").glob("*.safetensors"):
        shard.unlink()


def damage_truncated(folder: Path) -> None:
    for shard in (folder / "vae").glob("*.safetensors"):
        shard.write_bytes(shard.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("damage", "kind"),
    [(damage_nothing_there, ModelIncomplete), (damage_truncated, ModelCorrupt)],
    ids=["a file missing", "a file cut short"],
)
def test_an_error_of_loading_is_the_one_the_library_raises(
    shared: Shared, checkpoint: Path, damage: Any, kind: type[MfluxError]
) -> None:
    damage(checkpoint)
    with pytest.raises(kind) as expected:
        load_model(checkpoint)
    for command in (paint(checkpoint), LoadCommand(resolve_model(checkpoint, EMBEDDED_MODELS_DIR), low_ram=False)):
        with pytest.raises(kind) as caught:
            shared.run(shared.engine.run_command(command))
        assert type(caught.value) is kind
        # Local paths are stripped from errors.
        place = f"{checkpoint.parent}/"
        assert caught.value.message == expected.value.message.replace(place, "")
        assert caught.value.details == {
            name: value.replace(place, "") if isinstance(value, str) else value
            for name, value in expected.value.details.items()
        }
    assert shared.picture().seed == 7


def test_models_share_the_budget_and_one_beyond_it_moves_nobody() -> None:
    bits_3 = "flux2-tiny-3-bit"

    async def scenario() -> None:
        async with running(budget=model_size(4) + 1000) as engine:
            for name in (bits_3, BITS_4):
                assert (await replies(engine, paint(name)))[0] == Loading(name)
                assert engine.memory.loaded == (name,)
            with pytest.raises(OutOfMemory) as caught:
                await picture(engine, paint(TINY))
            assert caught.value.details["needed"] == model_size(None)
            assert engine.memory.loaded == (BITS_4,)
            assert not any(isinstance(reply, Loading) for reply in await replies(engine, paint(BITS_4)))

    run(scenario())
