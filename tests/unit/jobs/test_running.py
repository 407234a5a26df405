"""Remaining time of running jobs, and which jobs update the ETA model."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mflux_api.jobs.eta import Pace, Paces
from mflux_api.jobs.job import Inputs, Job
from mflux_api.jobs.queue import Progress
from mflux_api.jobs.running import RunningJobs
from mflux_api.request import EarlyStop, Hires, Tiles
from tests.support.jobs import PROGRESS, REQUEST, make_job, make_painted, open_queue, run_async

KNOWN = {("flux2-tiny", 64, 64): Pace(1.0, 2.0)}
PASSES: dict[str, dict[str, Any]] = {
    "hires": {"hires": Hires(width=128, height=128, steps=2, strength=0.5, upscaler="Latent")},
    "tiles": {"tiles": Tiles(scale=2.0, overlap=16, upscaler="Lanczos")},
}


async def claimed(folder: Path, known: dict[tuple[str, int, int], Pace], **changes: Any) -> tuple[RunningJobs, Job]:
    async with open_queue(folder) as queue:
        await queue.submit(make_job(**changes))
        job = await queue.claim()
    running = RunningJobs(Paces(known))
    running.add(job)
    return running, job


def at(step: int, steps: int) -> Progress:
    return replace(PROGRESS, step=step, steps=steps)


# Remaining time


@run_async
async def test_what_is_left_follows_from_what_is_known(tmp_path: Path) -> None:
    running, job = await claimed(tmp_path, KNOWN)
    claim = running.claims[job.id]
    assert running.snapshot(claim).seconds_left == 2 * 1.0 + 2.0
    claim.update(at(1, 2))
    assert running.snapshot(claim).seconds_left == pytest.approx(3.0, abs=0.5)


@run_async
async def test_a_repaint_takes_the_steps_that_it_runs(tmp_path: Path) -> None:
    request = replace(REQUEST, steps=10, strength=0.3)
    running, job = await claimed(tmp_path, KNOWN, request=request, inputs=Inputs(source="inputs/source"))
    assert running.snapshot(running.claims[job.id]).seconds_left == 3 * 1.0 + 2.0


@pytest.mark.parametrize("kind", PASSES)
@run_async
async def test_of_several_passes_nothing_is_known_before_the_first_step(tmp_path: Path, kind: str) -> None:
    running, job = await claimed(tmp_path, KNOWN, request=replace(REQUEST, **PASSES[kind]))
    claim = running.claims[job.id]
    assert running.snapshot(claim).seconds_left is None
    claim.update(replace(at(0, 2), stage="loading"))
    assert running.snapshot(claim).seconds_left is None


@pytest.mark.parametrize("kind", PASSES)
@run_async
async def test_several_passes_go_on_as_they_went(tmp_path: Path, kind: str) -> None:
    running, job = await claimed(tmp_path, {}, request=replace(REQUEST, **PASSES[kind]))
    claim = running.claims[job.id]
    # A quarter is done after ten seconds.
    claim.job = replace(job, started=time.time() - 10)
    claim.update(at(1, 3))
    assert running.snapshot(claim).seconds_left == pytest.approx(30, abs=1)


# Updates of the ETA model


@pytest.mark.parametrize("kind", [*PASSES, "skip", "interrupt"])
@run_async
async def test_unusual_jobs_are_no_measure_for_others(tmp_path: Path, kind: str) -> None:
    async with open_queue(tmp_path) as queue:
        await queue.submit(make_job(request=replace(REQUEST, **PASSES.get(kind, {}))))
        job = await queue.claim()
        if kind not in PASSES:
            queue.end_early(job.id, EarlyStop(kind))
        await queue.picture(job, make_painted())
        await queue.finish(job)
        assert queue.paces.find("flux2-tiny", 64, 64) is None
        await queue.submit(make_job())
        job = await queue.claim()
        await queue.picture(job, make_painted())
        await queue.finish(job)
        assert queue.paces.find("flux2-tiny", 64, 64) == Pace(1.0, 1.0)
