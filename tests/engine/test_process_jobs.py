"""The dispatcher with a real engine process. More about it: tests/unit/worker/test_dispatcher.py."""

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from mflux_api.ipc.messages import LoadCommand
from mflux_api.jobs.job import State
from mflux_api.models.registry import EMBEDDED_MODELS_DIR, resolve_client_model
from mflux_api.request import EarlyStop
from tests.support.dispatcher_bench import ENDLESS, is_step, run_dispatcher
from tests.support.jobs import REQUEST, list_files, make_painted, run_async
from tests.support.processes import make_engine
from tests.support.script_engine import replace_engine

pytestmark = pytest.mark.engine_process


@run_async
async def test_a_job_is_completed_with_its_pictures_on_disk(tmp_path: Path) -> None:
    async with run_dispatcher(tmp_path, make_engine()) as workshop:
        job = await workshop.submit_and_wait(request=replace(REQUEST, seeds=(7, 8)))
        assert job.state is State.COMPLETED
        assert [picture.seed for picture in job.pictures] == [7, 8]
        for picture in job.pictures:
            with Image.open(tmp_path / picture.file) as image:
                assert image.size == (64, 64)
                assert image.info["parameters"] == picture.text
        assert list_files(tmp_path) == {picture.file for picture in job.pictures}
        rendered = workshop.metrics.render().decode()
        assert 'mflux_jobs_total{model="flux2-tiny",outcome="completed"} 1.0' in rendered
        assert 'mflux_pictures_total{model="flux2-tiny"} 2.0' in rendered


@run_async
async def test_a_job_whose_engine_is_killed_is_painted_again(tmp_path: Path) -> None:
    async with run_dispatcher(tmp_path, make_engine()) as workshop:
        job = await workshop.put(request=replace(REQUEST, steps=50))
        await workshop.wait_for_event(job, is_step)
        assert workshop.engine.pid is not None
        os.kill(workshop.engine.pid, signal.SIGKILL)
        job = await workshop.wait_ended(job)
        assert (job.state, job.attempts, len(job.pictures)) == (State.COMPLETED, 2, 1)
        assert workshop.engine.start_count == 2
        assert "mflux_engine_restarts_total 1.0" in workshop.metrics.render().decode()


@pytest.mark.slow
@run_async
async def test_a_job_whose_engine_dies_right_after_its_last_picture_is_completed_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = make_painted()
    facts = {name: value for name, value in vars(picture).items() if name != "index"}
    replace_engine(tmp_path, monkeypatch, f"send(READY); receive(); send(FinishedPicture(**{facts})); sys.exit(3)")
    async with run_dispatcher(tmp_path / "output", make_engine()) as workshop:
        job = await workshop.submit_and_wait()
        assert (job.state, job.attempts, len(job.pictures)) == (State.COMPLETED, 1, 1)
        assert 'mflux_jobs_total{model="flux2-tiny",outcome="completed"} 1.0' in workshop.metrics.render().decode()
        monkeypatch.undo()
        assert (await workshop.submit_and_wait()).state is State.COMPLETED
        assert workshop.engine.start_count == 2


@pytest.mark.slow
@run_async
async def test_a_job_cancelled_while_it_is_painted_stops_at_its_step_and_the_next_is_painted(tmp_path: Path) -> None:
    async with run_dispatcher(tmp_path, make_engine()) as workshop:
        job = await workshop.put(request=ENDLESS)
        following = await workshop.put()
        await workshop.wait_for_event(job, is_step)
        pid = workshop.engine.pid
        await workshop.queue.cancel(job.id)
        assert (await workshop.wait_ended(following)).state is State.COMPLETED
        assert (await workshop.queue.get(job.id)).state is State.CANCELLED
        assert workshop.engine.pid == pid
        assert 'mflux_jobs_total{model="flux2-tiny",outcome="cancelled"} 1.0' in workshop.metrics.render().decode()


@pytest.mark.slow
@run_async
async def test_cancelling_a_job_that_waits_for_the_engine_leaves_what_the_engine_does(tmp_path: Path) -> None:
    async with run_dispatcher(tmp_path, make_engine()) as workshop:
        loading = asyncio.create_task(
            workshop.engine.run_command(
                LoadCommand(resolve_client_model("flux2-tiny-4-bit", EMBEDDED_MODELS_DIR), low_ram=False)
            ),
        )
        job = await workshop.put()
        await workshop.wait_for_event(job, lambda event: event.name == "progress")
        await workshop.queue.cancel(job.id)
        await loading
        assert "flux2-tiny-4-bit" in workshop.engine.memory.loaded
        assert (await workshop.submit_and_wait()).state is State.COMPLETED


@run_async
async def test_a_job_interrupted_while_it_is_painted_is_completed_with_the_picture_at_hand(tmp_path: Path) -> None:
    async with run_dispatcher(tmp_path, make_engine()) as workshop:
        job = await workshop.put(request=replace(ENDLESS, seeds=(7, 8)))
        await workshop.wait_for_event(job, is_step)
        workshop.cut(job, EarlyStop.INTERRUPT)
        job = await workshop.wait_ended(job)
        assert (job.state, [picture.seed for picture in job.pictures]) == (State.COMPLETED, [7])
        assert list_files(tmp_path) == {picture.file for picture in job.pictures}
        following = await workshop.submit_and_wait(request=replace(REQUEST, seeds=(7, 8)))
        assert len(following.pictures) == 2
        assert workshop.engine.start_count == 1


@pytest.mark.slow
@run_async
async def test_a_model_being_loaded_is_no_idleness(tmp_path: Path) -> None:
    async with run_dispatcher(tmp_path, make_engine(), idle_seconds=0.05) as workshop:
        model = resolve_client_model("flux2-tiny", EMBEDDED_MODELS_DIR)
        await workshop.engine.run_command(LoadCommand(model, low_ram=False))
        assert workshop.engine.start_count == 1
