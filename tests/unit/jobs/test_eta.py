from dataclasses import replace
from pathlib import Path

import pytest

from mflux_api.jobs.database import statistics
from mflux_api.jobs.eta import Pace, Paces
from tests.support.jobs import REQUEST, complete_job, make_job, make_painted, open_queue, run_async

KNOWN = {("a", 512, 512): Pace(1.0, 2.0), ("a", 1024, 1024): Pace(5.0, 8.0), ("b", 64, 64): Pace(0.1, 0.2)}


def test_a_picture_takes_its_steps_and_the_rest() -> None:
    assert Pace(1.5, 2.0).picture(4) == 8.0


def test_nothing_is_predicted_of_a_model_never_used() -> None:
    paces = Paces(KNOWN)
    assert paces.find("c", 512, 512) is None
    assert paces.seconds("c", REQUEST) is None


def test_a_size_that_was_painted_is_predicted_by_itself() -> None:
    assert Paces(KNOWN).find("a", 1024, 1024) == Pace(5.0, 8.0)


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [(256, 512, Pace(0.5, 1.0)), (512, 256, Pace(0.5, 1.0)), (2048, 1024, Pace(10.0, 16.0))],
)
def test_another_size_is_scaled_from_the_nearest(width: int, height: int, expected: Pace) -> None:
    assert Paces(KNOWN).find("a", width, height) == expected


def test_a_job_takes_every_picture_of_it() -> None:
    request = replace(REQUEST, width=512, height=512, steps=4, seeds=(1, 2, 3))
    assert Paces(KNOWN).seconds("a", request) == 3 * (4 * 1.0 + 2.0)


@run_async
async def test_it_follows_what_is_measured_and_is_not_thrown_by_one_slow_run(tmp_path: Path) -> None:
    async with open_queue(tmp_path) as queue:
        for step, expected in ((3.0, 3.0), (6.0, 4.0), (4.0, 4.0)):
            await queue.store.run(statistics.learn, "a", 64, 64, Pace(step, 1.0))
            (known,) = (await queue.store.run(statistics.all_paces)).values()
            assert known.step == pytest.approx(expected)
            assert known.rest == 1.0


@run_async
async def test_finished_jobs_teach_it_and_it_remembers(tmp_path: Path) -> None:
    async with open_queue(tmp_path) as queue:
        await queue.submit(make_job(request=replace(REQUEST, seeds=(1, 2))))
        job = await queue.claim()
        await queue.picture(job, make_painted(0, diffusion=2.0, total=3.0))
        await queue.picture(job, make_painted(1, diffusion=4.0, total=7.0))
        await queue.finish(job)
        assert queue.paces.find("flux2-tiny", 64, 64) == Pace(1.5, 2.0)
    async with open_queue(tmp_path) as queue:
        assert queue.paces.find("flux2-tiny", 64, 64) == Pace(1.5, 2.0)
        assert queue.paces.seconds("flux2-tiny", REQUEST) == 2 * 1.5 + 2.0


@run_async
async def test_a_job_without_pictures_teaches_nothing(tmp_path: Path) -> None:
    async with open_queue(tmp_path) as queue:
        await complete_job(queue)
        assert queue.paces.find("flux2-tiny", 64, 64) is None
