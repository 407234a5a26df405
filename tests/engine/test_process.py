"""A real engine process with the embedded model; a script takes its place only where a fault must be forced."""

import asyncio
import io
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from PIL import Image

from mflux_api.checkpoints.checkpoint import Checkpoint
from mflux_api.checkpoints.memory_estimate import estimate_model_bytes
from mflux_api.engine.model import Model, load_model
from mflux_api.errors import (
    EngineDied,
    EngineStuck,
    InvalidImage,
    MfluxError,
    ModelCorrupt,
    ModelIncomplete,
    OutOfMemory,
)
from mflux_api.ipc.messages import (
    EngineSetup,
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
from mflux_api.request import EarlyStop, GenerateRequest
from mflux_api.worker.engine_process import ALLOCATION, EngineProcess
from tests.engine.faking import replace_engine

pytestmark = pytest.mark.engine_process

T = TypeVar("T")
TINY, BITS_4 = "flux2-tiny", "flux2-tiny-4-bit"
PATIENCE_SECONDS = 30
ENDLESS = 100_000
LARGEST_IMAGE = 300 * 300
PROMPT = "a red circle on a white background"
EXIF_ORIENTATION = 0x0112
QUARTER_TURN = 6


def model_size(bits: int | None) -> int:
    return estimate_model_bytes(Checkpoint.read(EMBEDDED_MODELS_DIR / TINY), bits, bytes_per_value=4)


def make_engine(
    *, budget: int | None = None, silence: float = PATIENCE_SECONDS, background: bool = True
) -> EngineProcess:
    setup = EngineSetup(
        budget=budget,
        precision="float32",
        embedding_cache=2**20,
        max_image_pixels=LARGEST_IMAGE,
        low_priority=background,
    )
    return EngineProcess(setup, silence)


def paint(
    model: str | Path = TINY,
    *,
    steps: int = 1,
    seeds: tuple[int, ...] = (7,),
    side: int = 64,
    strength: float = 0.75,
    low_ram: bool = False,
    **files: Any,
) -> PaintCommand:
    request = GenerateRequest(
        prompt=PROMPT,
        negative_prompt="",
        width=side,
        height=side,
        steps=steps,
        guidance=1.0,
        seeds=seeds,
        strength=strength,
    )
    return PaintCommand(model=resolve_model(model, EMBEDDED_MODELS_DIR), low_ram=low_ram, request=request, **files)


async def replies(engine: EngineProcess, command: PaintCommand) -> list[Reply]:
    async with aclosing(engine.stream_replies(command)) as said:
        return [reply async for reply in said]


async def picture(engine: EngineProcess, command: PaintCommand) -> FinishedPicture:
    *_, last = await replies(engine, command)
    assert isinstance(last, FinishedPicture)
    return last


async def first_step(said: AsyncIterator[Reply]) -> Step:
    return await anext(reply async for reply in said if isinstance(reply, Step))


def pixels(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def is_gone(pid: int) -> bool:
    """Nobody need have collected its exit code."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_until_gone(pid: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not is_gone(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return is_gone(pid)


@asynccontextmanager
async def running(**options: Any) -> AsyncIterator[EngineProcess]:
    engine = make_engine(**options)
    try:
        yield engine
    finally:
        await engine.stop()


@dataclass
class Shared:
    """An engine for the tests that leave it as it was, and the loop it lives on."""

    engine: EngineProcess
    runner: asyncio.Runner

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(asyncio.wait_for(work, PATIENCE_SECONDS))

    def picture(self, **options: Any) -> FinishedPicture:
        return self.run(picture(self.engine, paint(**options)))


@pytest.fixture(scope="module")
def shared() -> Iterator[Shared]:
    with asyncio.Runner() as runner:
        engine = make_engine()
        yield Shared(engine, runner)
        runner.run(engine.stop())


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(work, PATIENCE_SECONDS))


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
    """What is said to somebody who looks from the first reply on."""
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


# Pictures to start from


def scene() -> Image.Image:
    """Wider than high, and not the same turned or mirrored."""
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
    # Whatever the colour of the transparent entry says, it is not shown.
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


# Stopping


def test_closing_the_stream_stops_after_the_step_and_the_next_command_works(shared: Shared) -> None:
    async def scenario() -> None:
        pid = (await shared.engine.start(), shared.engine.pid)[1]
        async with aclosing(shared.engine.stream_replies(paint(steps=ENDLESS))) as said:
            assert (await first_step(said)).number == 1
        await picture(shared.engine, paint())
        assert shared.engine.pid == pid

    shared.run(scenario())


def test_a_caller_that_is_cancelled_stops_its_painting_and_the_next_command_works(shared: Shared) -> None:
    async def scenario() -> None:
        begun = asyncio.Event()

        async def watch() -> None:
            async with aclosing(shared.engine.stream_replies(paint(steps=ENDLESS))) as said:
                async for _ in said:
                    begun.set()

        await shared.engine.start()
        pid = shared.engine.pid
        watcher = asyncio.create_task(watch())
        await begun.wait()
        watcher.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watcher
        await picture(shared.engine, paint())
        assert shared.engine.pid == pid

    shared.run(scenario())


def test_a_painting_stopped_in_its_last_step_is_not_decoded(shared: Shared) -> None:
    async def scenario() -> list[Reply]:
        said = []
        async with aclosing(shared.engine.stream_replies(paint(steps=2, side=256))) as all_said:
            async for reply in all_said:
                said.append(reply)
                if isinstance(reply, Step):
                    shared.engine.stop_painting()
        return said

    shared.picture()
    said = shared.run(scenario())
    assert not any(isinstance(reply, FinishedPicture) for reply in said)
    assert any(isinstance(reply, Step) for reply in said)
    assert shared.picture().seed == 7


def test_a_painting_stopped_between_pictures_paints_no_more(shared: Shared) -> None:
    async def scenario() -> list[int]:
        seeds = []
        async with aclosing(shared.engine.stream_replies(paint(seeds=tuple(range(500))))) as said:
            async for reply in said:
                if isinstance(reply, FinishedPicture):
                    seeds.append(reply.seed)
                    shared.engine.stop_painting()
        return seeds

    seeds = shared.run(scenario())
    assert seeds[0] == 0
    assert len(seeds) < 500


def test_the_painting_is_over_with_its_last_picture(shared: Shared) -> None:
    async def until_the_end() -> list[bool]:
        async with aclosing(shared.engine.stream_replies(paint(seeds=(7, 8)))) as said:
            return [shared.engine.painting.is_set() async for reply in said if isinstance(reply, FinishedPicture)]

    assert shared.run(until_the_end()) == [True, False]


def test_asking_for_an_end_of_a_painting_leaves_a_load_alone(shared: Shared) -> None:
    async def scenario() -> tuple[str, ...]:
        async with aclosing(
            shared.engine.stream_replies(
                LoadCommand(resolve_model("flux2-tiny-6-bit", EMBEDDED_MODELS_DIR), low_ram=False)
            )
        ) as said:
            async for _ in said:
                shared.engine.stop_painting()
        return shared.engine.memory.loaded

    assert "flux2-tiny-6-bit" in shared.run(scenario())


def test_asking_an_idle_engine_to_stop_does_not_touch_the_next_picture(shared: Shared) -> None:
    shared.picture()

    async def scenario() -> FinishedPicture:
        shared.engine.stop_painting()
        return await picture(shared.engine, paint())

    assert shared.run(scenario()).seed == 7


def test_commands_asked_at_once_are_carried_out_one_after_the_other(shared: Shared) -> None:
    async def scenario() -> None:
        painted = await asyncio.gather(*(picture(shared.engine, paint(seeds=(seed,))) for seed in range(3)))
        assert [each.seed for each in painted] == [0, 1, 2]

    shared.run(scenario())


# Ending a picture with what there is of it


def finished(said: list[Reply]) -> list[FinishedPicture]:
    return [reply for reply in said if isinstance(reply, FinishedPicture)]


async def cutting(engine: EngineProcess, command: PaintCommand, cuts: dict[int, list[EarlyStop]]) -> list[Reply]:
    """What is said while these cuts are asked for, each list after so many replies."""
    said: list[Reply] = []
    async with aclosing(engine.stream_replies(command)) as replies_to_it:
        async for reply in replies_to_it:
            said.append(reply)
            for how in cuts.get(len(said), []):
                engine.stop_early(how)
    return said


@pytest.mark.parametrize("how", EarlyStop)
def test_a_cut_ends_the_picture_early_and_the_process_goes_on(shared: Shared, how: EarlyStop) -> None:
    shared.picture()
    pid = shared.engine.pid
    said = shared.run(cutting(shared.engine, paint(steps=ENDLESS), {3: [how]}))
    (early,) = finished(said)
    assert (early.seed, early.width, early.height) == (7, 64, 64)
    assert len(said) < ENDLESS
    assert pixels(early.data).shape == (64, 64, 3)
    assert shared.picture().seed == 7
    assert shared.engine.pid == pid


def test_a_skip_ends_one_picture_and_an_interrupt_the_rest(shared: Shared) -> None:
    async def scenario() -> list[int]:
        seeds: list[int] = []
        async with aclosing(shared.engine.stream_replies(paint(steps=ENDLESS, seeds=(1, 2, 3, 4)))) as said:
            async for reply in said:
                if isinstance(reply, FinishedPicture):
                    seeds.append(reply.seed)
                if isinstance(reply, Step) and reply.number == 1:
                    shared.engine.stop_early(EarlyStop.INTERRUPT if reply.seed == 3 else EarlyStop.SKIP)
        return seeds

    assert shared.run(scenario()) == [1, 2, 3]


@pytest.mark.parametrize(
    "cuts", [[EarlyStop.INTERRUPT, EarlyStop.SKIP], [EarlyStop.SKIP, EarlyStop.INTERRUPT], [EarlyStop.INTERRUPT] * 2]
)
def test_an_interrupt_is_not_taken_back_by_a_skip(shared: Shared, cuts: list[EarlyStop]) -> None:
    shared.picture()
    said = shared.run(cutting(shared.engine, paint(steps=ENDLESS, seeds=(1, 2)), {1: cuts}))
    assert [reply.seed for reply in finished(said)] == [1]


def test_a_cut_while_the_model_is_loaded_is_not_forgotten() -> None:
    async def scenario() -> None:
        async with running() as engine:
            said = await cutting(engine, paint(steps=ENDLESS), {1: [EarlyStop.INTERRUPT]})
            assert said[0] == Loading(TINY)
            assert len(finished(said)) == 1

    run(scenario())


@pytest.mark.parametrize("how", EarlyStop)
def test_a_cut_for_the_last_job_does_not_hit_the_next(shared: Shared, how: EarlyStop) -> None:
    shared.picture()
    # Its only picture is finished, and all that is left to say is that it is done.
    said = shared.run(cutting(shared.engine, paint(), {2: [how]}))
    assert isinstance(said[1], FinishedPicture)
    following = shared.run(replies(shared.engine, paint(steps=4, seeds=(7, 8))))
    assert [(reply.number, reply.seed) for reply in following if isinstance(reply, Step)] == [
        (number, seed) for seed in (7, 8) for number in range(1, 5)
    ]


@pytest.mark.parametrize("how", EarlyStop)
def test_cutting_an_idle_engine_does_not_touch_the_next_picture(shared: Shared, how: EarlyStop) -> None:
    async def scenario() -> list[Reply]:
        shared.engine.stop_early(how)
        return await replies(shared.engine, paint(steps=4))

    shared.picture()
    assert sum(isinstance(reply, Step) for reply in shared.run(scenario())) == 4


def test_a_cut_leaves_a_load_alone(shared: Shared) -> None:
    async def scenario() -> tuple[str, ...]:
        async with aclosing(
            shared.engine.stream_replies(
                LoadCommand(resolve_model("flux2-tiny-8-bit", EMBEDDED_MODELS_DIR), low_ram=False)
            )
        ) as said:
            async for _ in said:
                shared.engine.stop_early(EarlyStop.INTERRUPT)
        return shared.engine.memory.loaded

    assert "flux2-tiny-8-bit" in shared.run(scenario())


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
        # Where models lie is not for clients to know.
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


# Death


def test_an_engine_killed_while_it_paints_is_reported_and_another_paints_on() -> None:
    async def scenario() -> None:
        async with running() as engine:
            async with aclosing(engine.stream_replies(paint(steps=ENDLESS))) as said:
                await first_step(said)
                assert engine.pid is not None
                killed = engine.pid
                os.kill(killed, signal.SIGKILL)
                with pytest.raises(EngineDied) as caught:
                    async for _ in said:
                        pass
            assert type(caught.value) is EngineDied
            assert caught.value.details == {"exit_code": -signal.SIGKILL}
            assert engine.memory.loaded == ()
            assert (await picture(engine, paint())).seed == 7
            assert engine.pid != killed
            assert engine.start_count == 2

    run(scenario())


def test_an_engine_killed_while_it_has_nothing_to_do_is_started_again() -> None:
    async def scenario() -> None:
        async with running() as engine:
            await engine.start()
            assert engine.pid is not None
            os.kill(engine.pid, signal.SIGKILL)
            assert await asyncio.to_thread(wait_until_gone, engine.pid, 5)
            # A moment for the loop to notice.
            await asyncio.sleep(0.1)
            assert (await picture(engine, paint())).seed == 7
            assert engine.start_count == 2

    run(scenario())


def test_ending_it_while_it_paints_is_an_error_of_that_painting_only() -> None:
    async def scenario() -> None:
        async with running() as engine:
            async with aclosing(engine.stream_replies(paint(steps=ENDLESS))) as said:
                await first_step(said)
                pid = engine.pid
                assert pid is not None
                stopping = asyncio.create_task(engine.stop())
                with pytest.raises(EngineDied):
                    async for _ in said:
                        pass
                await stopping
            assert is_gone(pid)
            assert engine.pid is None
            assert (await picture(engine, paint())).seed == 7

    run(scenario())


def test_an_engine_that_says_nothing_for_too_long_is_ended() -> None:
    async def scenario() -> None:
        async with running() as engine:
            async with aclosing(engine.stream_replies(paint(steps=ENDLESS))) as said:
                await first_step(said)
                assert engine.pid is not None
                pid = engine.pid
                os.kill(pid, signal.SIGSTOP)
                engine.max_silence_seconds = 0.5
                with pytest.raises(EngineStuck) as caught:
                    async for _ in said:
                        pass
            assert caught.value.code == "ENGINE_TIMEOUT"
            assert is_gone(pid)
            engine.max_silence_seconds = PATIENCE_SECONDS
            assert (await picture(engine, paint())).seed == 7

    run(scenario())


def test_signals_to_its_group_do_not_end_it(shared: Shared) -> None:
    async def scenario() -> None:
        async with aclosing(shared.engine.stream_replies(paint(steps=5))) as said:
            await first_step(said)
            assert shared.engine.pid is not None
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                os.killpg(shared.engine.pid, number)
            assert isinstance([reply async for reply in said][-1], FinishedPicture)

    shared.run(scenario())


def test_it_is_not_in_the_servers_group(shared: Shared) -> None:
    shared.picture()
    assert shared.engine.pid is not None
    assert os.getpgid(shared.engine.pid) != os.getpgid(0)


SERVER = """
import asyncio, pickle, sys
from contextlib import aclosing
from mflux_api.worker.engine_process import EngineProcess
from mflux_api.ipc.messages import Step

async def main(setup, command):
    engine = EngineProcess(setup, 60)
    await engine.start()
    if command:
        said = engine.stream_replies(command)
        await anext(reply async for reply in said if isinstance(reply, Step))
    print(engine.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main(*pickle.load(sys.stdin.buffer)))
"""


@pytest.mark.parametrize(
    "command",
    [None, paint(steps=ENDLESS), paint(steps=3, side=320)],
    ids=["idle", "between short steps", "in a long step"],
)
def test_it_ends_when_its_server_is_killed(command: PaintCommand | None) -> None:
    arguments = [sys.executable, "-c", SERVER]
    with subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=EMBEDDED_MODELS_DIR.parent
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        pickle.dump((make_engine().setup, command), server.stdin)
        server.stdin.close()
        pid = int(server.stdout.readline())
        assert not is_gone(pid)
        server.kill()
        assert wait_until_gone(pid, 2)


# Forced faults


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put a script in the engine's place."""
    return partial(replace_engine, tmp_path, monkeypatch)


def last_words(text: str, number: signal.Signals) -> str:
    return f"""
    send(READY)
    receive()
    print({text!r}, file=sys.stderr, flush=True)
    os.kill(os.getpid(), {int(number)})
    """


METAL = (
    "libc++abi: terminating due to uncaught exception of type std::runtime_error: [METAL] Command buffer execution "
    "failed: Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)"
)
# On every Mac where somebody has looked for leaks.
HARMLESS = "python(42) MallocStackLogging: can't turn off malloc stack logging because it was not enabled."


@pytest.mark.parametrize(
    ("text", "is_memory"),
    [
        (METAL, True),
        ("[metal::malloc] Attempting to allocate 34359738368 bytes which is greater than the maximum allowed", True),
        ("[malloc] Unable to allocate 1099511627776 bytes.", True),
        ("terminate called after throwing an instance of 'std::bad_alloc'", True),
        ("cudaMallocAsync(&data, size, stream) failed: out of memory", True),
        (HARMLESS, False),
        ("malloc(): corrupted top size", False),
        ("Segmentation fault", False),
    ],
)
def test_last_words_tell_whether_the_memory_was_full(text: str, is_memory: bool) -> None:
    assert bool(ALLOCATION.search(text)) is is_memory


def test_an_engine_that_dies_of_memory_says_so(fake: Any) -> None:
    async def scenario() -> None:
        async with running() as engine:
            with pytest.raises(OutOfMemory) as caught:
                await engine.run_command(paint())
            assert "suggestion" in caught.value.details

    fake(last_words(METAL, signal.SIGABRT))
    run(scenario())


def test_an_engine_that_dies_of_something_else_does_not_blame_memory(fake: Any) -> None:
    async def scenario() -> None:
        async with running() as engine:
            with pytest.raises(EngineDied) as caught:
                await engine.run_command(paint())
            assert caught.value.details == {"exit_code": -signal.SIGSEGV}

    fake(last_words(HARMLESS, signal.SIGSEGV))
    run(scenario())


@pytest.mark.parametrize("script", ["sys.exit(3)", "line.close(); time.sleep(0.2); sys.exit(3)"])
def test_an_engine_that_cannot_start_is_reported(fake: Any, script: str) -> None:
    async def scenario() -> None:
        async with running() as engine:
            with pytest.raises(EngineDied) as caught:
                await engine.start()
            assert caught.value.details == {"exit_code": 3}
            assert engine.ready is None

    fake(script)
    run(scenario())


def test_a_missing_interpreter_is_an_error_of_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Someone has installed another Python while the server ran."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))

    async def scenario() -> None:
        async with running() as engine:
            with pytest.raises(EngineDied, match="cannot be started"):
                await engine.start()

    run(scenario())


def test_a_caller_cancelled_amid_a_message_leaves_the_line_in_order(fake: Any) -> None:
    fake(
        """
        send(READY)
        receive()
        half = transport.pack_message(Thumbnail(bytes(1000)))
        line.sendall(transport.pack_message(Thumbnail(b"first")) + half[:500])
        receive()
        line.sendall(half[500:])
        send(CommandDone(True))
        receive()
        send(Thumbnail(b"second"), CommandDone())
        receive()
        """
    )

    async def scenario() -> None:
        begun = asyncio.Event()

        async def watch(engine: EngineProcess) -> None:
            async with aclosing(engine.stream_replies(paint())) as said:
                async for _ in said:
                    begun.set()

        async with running() as engine:
            watcher = asyncio.create_task(watch(engine))
            await begun.wait()
            await asyncio.sleep(0.05)
            watcher.cancel()
            with pytest.raises(asyncio.CancelledError):
                await watcher
            assert await replies(engine, paint()) == [Thumbnail(b"second")]

    run(scenario())


def test_a_caller_who_does_not_wait_for_the_stop_leaves_no_engine_that_still_paints(fake: Any) -> None:
    fake(
        """
        send(READY)
        receive()
        send(Thumbnail(b"first"))
        time.sleep(600)
        """
    )

    async def scenario() -> None:
        begun = asyncio.Event()

        async def watch(engine: EngineProcess) -> None:
            async with aclosing(engine.stream_replies(paint())) as said:
                async for _ in said:
                    begun.set()

        async with running() as engine:
            watcher = asyncio.create_task(watch(engine))
            await begun.wait()
            pid = engine.pid
            assert pid is not None
            for _ in range(2):
                watcher.cancel()
                await asyncio.sleep(0.05)
            with pytest.raises(asyncio.CancelledError):
                await watcher
            assert is_gone(pid)

    run(scenario())


def test_a_flood_on_standard_error_does_not_hold_the_engine_up(fake: Any) -> None:
    fake(
        """
        send(READY)
        receive()
        sys.stderr.write("x" * 1_000_000 + "\\n" + "y" * 1_000_000)
        sys.stderr.flush()
        send(Thumbnail(b"after"), CommandDone())
        receive()
        """
    )

    async def scenario() -> None:
        async with running() as engine:
            assert await replies(engine, paint()) == [Thumbnail(b"after")]

    run(scenario())


# The server's side


def test_the_servers_process_loads_no_mlx() -> None:
    imports = "import sys, mflux_api.app.application, mflux_api.commands.serve"
    code = f"{imports}; print({{'mlx', 'mflux', 'transformers'}} & {{*sys.modules}})"
    arguments = [sys.executable, "-c", code]
    found = subprocess.run(arguments, cwd=EMBEDDED_MODELS_DIR.parent, capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"
