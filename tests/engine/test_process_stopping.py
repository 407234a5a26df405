"""Stopping a real engine process while it paints, and early stops of pictures."""

import asyncio
from contextlib import aclosing

import pytest

from mflux_api.ipc.messages import FinishedPicture, LoadCommand, Loading, PaintCommand, Reply, Step
from mflux_api.models.registry import EMBEDDED_MODELS_DIR, resolve_model
from mflux_api.request import EarlyStop
from mflux_api.worker.engine_process import EngineProcess
from tests.support.processes import (
    ENDLESS,
    TINY,
    Shared,
    finished,
    first_step,
    paint,
    picture,
    pixels,
    replies,
    run,
    running,
)

pytestmark = pytest.mark.engine_process


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


# Early stops: the picture as far as it is painted


async def cutting(engine: EngineProcess, command: PaintCommand, cuts: dict[int, list[EarlyStop]]) -> list[Reply]:
    """Return all replies; after reply number `key`, ask for the early stops `cuts[key]`."""
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
    # After reply 2 the only picture is finished; the next message is CommandDone.
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
