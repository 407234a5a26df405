"""The dispatcher between a real queue and an engine without MLX. With a real one: tests/engine/test_process_jobs.py."""

import asyncio
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from mflux_api.errors import StorageFailed
from mflux_api.jobs.job import Inputs, Job, PictureFile, State
from mflux_api.jobs.picture_files import PictureFiles
from mflux_api.jobs.queue import Painted
from mflux_api.jobs.sqlite_queue import SQLiteQueue
from mflux_api.request import EarlyStop
from mflux_api.worker import dispatcher
from tests.support.dispatcher_bench import ENDLESS, QUICK, is_step, run_dispatcher
from tests.support.in_process_engine import InProcessEngine
from tests.support.jobs import REQUEST, list_files, open_queue, run_async


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "PAUSE_AFTER_ERROR", 0.01)


# Outcomes of jobs


@run_async
async def test_who_listens_is_told_the_stages_the_steps_and_the_previews(tmp_path: Path) -> None:
    async with run_dispatcher(tmp_path, InProcessEngine()) as workshop:
        with workshop.queue.viewers.watching(None), workshop.queue.job_events.events.listen(None) as box:
            await workshop.put(request=replace(REQUEST, seeds=(7, 8)))
            told = []
            async for event in box:
                told.append(event)
                if event.name == "complete":
                    break
        assert [event.name for event in told if event.name != "progress"] == ["queued", "started", "complete"]
        progress = [event for event in told if event.name == "progress"]
        assert progress[0].data["stage"] == "loading"
        steps = [(event.data["image"], event.data["step"]) for event in progress if is_step(event)]
        # Each step but the last is reported twice: the second time with its preview.
        assert steps == [(1, 1), (1, 1), (1, 2), (2, 1), (2, 1), (2, 2)]
        fractions = [event.data["progress"] for event in progress]
        assert fractions == sorted(fractions)
        assert sum(event.preview is not None for event in progress) == 2


@run_async
async def test_the_pictures_a_job_starts_from_are_read_from_its_files(tmp_path: Path) -> None:
    async with run_dispatcher(tmp_path, InProcessEngine()) as workshop:
        (tmp_path / "inputs").mkdir()
        Image.new("RGB", (64, 64), "red").save(tmp_path / "inputs" / "source", "PNG")
        request = replace(QUICK, strength=0.0)
        job = await workshop.submit_and_wait(request=request, inputs=Inputs(source="inputs/source"))
        with Image.open(tmp_path / job.pictures[0].file) as image:
            assert image.getcolors() == [(64 * 64, (255, 0, 0))]


@run_async
async def test_a_picture_that_cannot_be_read_fails_its_job_only(tmp_path: Path) -> None:
    async with run_dispatcher(tmp_path, InProcessEngine()) as workshop:
        (tmp_path / "inputs").mkdir()
        (tmp_path / "inputs" / "source").write_bytes(b"no picture")
        job = await workshop.submit_and_wait(inputs=Inputs(source="inputs/source"))
        assert job.error is not None
        assert (job.state, job.error.code, job.attempts) == (State.FAILED, "INVALID_IMAGE", 1)
        assert (await workshop.submit_and_wait()).state is State.COMPLETED
        assert workshop.engine.start_count == 1


@run_async
async def test_a_job_whose_engine_is_killed_in_every_try_fails_and_the_next_is_painted(tmp_path: Path) -> None:
    async with run_dispatcher(tmp_path, InProcessEngine()) as workshop:
        job = await workshop.put(request=ENDLESS)
        following = await workshop.put()
        for _ in range(2):
            await workshop.wait_for_event(job, is_step)
            workshop.engine.kill()
        job = await workshop.wait_ended(job)
        assert job.error is not None
        assert (job.state, job.error.code, job.attempts) == (State.FAILED, "ENGINE_DIED", 2)
        assert job.error.details == {"exit_code": -signal.SIGKILL}
        assert (await workshop.wait_ended(following)).state is State.COMPLETED
        assert list_files(tmp_path) == {picture.file for picture in (await workshop.queue.get(following.id)).pictures}


@run_async
async def test_a_model_that_does_not_fit_fails_its_job_and_a_smaller_one_is_painted(tmp_path: Path) -> None:
    async with run_dispatcher(tmp_path, InProcessEngine(too_large=("flux2-tiny",))) as workshop:
        job = await workshop.submit_and_wait()
        assert job.error is not None
        assert (job.state, job.error.code, job.attempts) == (State.FAILED, "OOM_ERROR", 1)
        assert "suggestion" in job.error.details
        assert (await workshop.submit_and_wait(model="flux2-tiny-4-bit")).state is State.COMPLETED


@run_async
async def test_a_model_deleted_after_its_job_was_accepted_fails_it_and_the_next_is_painted(
    tmp_path: Path, checkpoint: Path
) -> None:
    async with run_dispatcher(tmp_path / "output", InProcessEngine(), models=checkpoint.parent) as workshop:
        assert (await workshop.submit_and_wait(model="checkpoint")).state is State.COMPLETED
        workshop.queue.pause()
        job = await workshop.put(model="checkpoint")
        await asyncio.to_thread(checkpoint.rename, tmp_path / "elsewhere")
        workshop.queue.resume()
        job = await workshop.wait_ended(job)
        assert job.error is not None
        assert (job.state, job.error.code) == (State.FAILED, "MODEL_NOT_FOUND")
        assert (await workshop.submit_and_wait()).state is State.COMPLETED


# Cancellation


@run_async
async def test_a_job_cancelled_between_its_pictures_keeps_those_it_has(tmp_path: Path) -> None:
    async with run_dispatcher(tmp_path, InProcessEngine()) as workshop:
        job = await workshop.put(request=replace(QUICK, seeds=tuple(range(2000))))
        await workshop.wait_for_event(job, lambda event: is_step(event) and event.data["image"] == 3)
        await workshop.queue.cancel(job.id)
        assert (await workshop.submit_and_wait()).state is State.COMPLETED
        job = await workshop.queue.get(job.id)
        assert job.state is State.CANCELLED
        assert 2 <= len(job.pictures) < 2000
        assert {picture.file for picture in job.pictures} < list_files(tmp_path)


@run_async
async def test_a_job_cancelled_while_the_engine_starts_is_never_painted(tmp_path: Path) -> None:
    async with run_dispatcher(tmp_path, InProcessEngine()) as workshop:
        workshop.engine.may_start.clear()
        job = await workshop.put(request=ENDLESS)
        await workshop.wait_for_event(job, lambda event: event.name == "progress")
        await workshop.queue.cancel(job.id)
        workshop.engine.may_start.set()
        following = await workshop.submit_and_wait()
        assert following.state is State.COMPLETED
        assert list_files(tmp_path) == {picture.file for picture in following.pictures}


# Early stops


@run_async
async def test_each_skip_ends_a_picture_of_a_job(tmp_path: Path) -> None:
    async with run_dispatcher(tmp_path, InProcessEngine()) as workshop:
        job = await workshop.put(request=replace(ENDLESS, seeds=(7, 8, 9)))
        for number in (1, 2, 3):
            await workshop.wait_for_event(job, partial(is_step, image=number))
            workshop.cut(job, EarlyStop.SKIP)
        job = await workshop.wait_ended(job)
        assert (job.state, [picture.seed for picture in job.pictures]) == (State.COMPLETED, [7, 8, 9])


@run_async
async def test_a_job_cut_while_the_engine_starts_and_loads_is_cut_in_its_first_step(tmp_path: Path) -> None:
    async with run_dispatcher(tmp_path, InProcessEngine()) as workshop:
        workshop.engine.may_start.clear()
        job = await workshop.put(request=replace(ENDLESS, seeds=(7, 8)))
        await workshop.wait_for_event(job, lambda event: event.name == "progress")
        workshop.cut(job, EarlyStop.INTERRUPT)
        workshop.engine.may_start.set()
        job = await workshop.wait_ended(job)
        assert (job.state, len(job.pictures)) == (State.COMPLETED, 1)


@run_async
async def test_a_cut_is_for_the_job_at_hand_and_not_for_the_next(tmp_path: Path) -> None:
    async with run_dispatcher(tmp_path, InProcessEngine()) as workshop:
        job = await workshop.put(request=ENDLESS)
        following = await workshop.put(request=replace(REQUEST, steps=20))
        await workshop.wait_for_event(job, is_step)
        # Several requests, as from repeated clicks.
        for _ in range(5):
            workshop.cut(job, EarlyStop.INTERRUPT)
        with workshop.queue.job_events.events.listen(following.id) as box:
            steps = set()
            async for event in box:
                steps |= {event.data["step"]} if is_step(event) else set()
                if event.name == "complete":
                    break
        assert steps == set(range(1, 21))


@run_async
async def test_what_was_cut_short_is_no_measure_for_others(tmp_path: Path) -> None:
    async with run_dispatcher(tmp_path, InProcessEngine()) as workshop:
        job = await workshop.put(request=ENDLESS)
        await workshop.wait_for_event(job, is_step)
        workshop.cut(job, EarlyStop.INTERRUPT)
        await workshop.wait_ended(job)
        assert workshop.queue.paces.find("flux2-tiny", 64, 64) is None
        await workshop.submit_and_wait()
        assert workshop.queue.paces.find("flux2-tiny", 64, 64) is not None


# Faults of the disk and the queue, and shutdown


@run_async
async def test_a_picture_that_finds_the_disk_full_is_painted_again_and_fails_when_it_stays_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, room = PictureFiles.save, [False, True, False, False]

    def save_if_room(files: PictureFiles, job: Job, painted: Painted) -> PictureFile:
        if not room.pop(0):
            raise StorageFailed("A picture cannot be written: is the disk full?")
        return save(files, job, painted)

    monkeypatch.setattr(PictureFiles, "save", save_if_room)
    async with run_dispatcher(tmp_path, InProcessEngine()) as workshop:
        job = await workshop.submit_and_wait()
        assert (job.state, job.attempts, len(job.pictures)) == (State.COMPLETED, 2, 1)
        job = await workshop.submit_and_wait()
        assert job.error is not None
        assert (job.state, job.error.code, job.attempts) == (State.FAILED, "DISK_FULL", 2)
        assert workshop.engine.start_count == 1
        assert 'mflux_pictures_total{model="flux2-tiny"} 1.0' in workshop.metrics.render().decode()


@pytest.mark.usefixtures("impatient")
@run_async
async def test_an_unforeseen_error_of_the_queue_does_not_end_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim, calls = SQLiteQueue.claim, []

    async def broken_twice(queue: SQLiteQueue) -> Job:
        calls.append(queue)
        if len(calls) <= 2:
            raise ValueError("nobody foresaw this")
        return await claim(queue)

    monkeypatch.setattr(SQLiteQueue, "claim", broken_twice)
    async with run_dispatcher(tmp_path, InProcessEngine()) as workshop:
        assert (await workshop.submit_and_wait()).state is State.COMPLETED
        assert len(calls) >= 3


@run_async
async def test_stopping_the_server_amid_a_painting_ends_the_worker_and_gives_the_job_back(tmp_path: Path) -> None:
    async with run_dispatcher(tmp_path, InProcessEngine()) as workshop:
        job = await workshop.put(request=ENDLESS)
        await workshop.wait_for_event(job, is_step)
    assert workshop.worker.cancelled()
    assert workshop.engine.ended.is_set()
    async with open_queue(tmp_path) as queue:
        given_back = await queue.get(job.id)
        assert (given_back.state, given_back.attempts) == (State.INTERRUPTED, 0)


# Idle engine


@run_async
async def test_an_idle_engine_is_ended_and_the_next_job_starts_it(tmp_path: Path) -> None:
    async with run_dispatcher(tmp_path, InProcessEngine(), idle_seconds=0.05) as workshop:
        await workshop.submit_and_wait()
        await workshop.engine.ended.wait()
        assert workshop.engine.memory.loaded == ()
        assert (await workshop.submit_and_wait()).state is State.COMPLETED
        assert workshop.engine.start_count == 2
