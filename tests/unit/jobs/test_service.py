"""The job service: waiting, orders and downloads. Tests of the dialects cover the results of orders."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn
from unittest.mock import AsyncMock

import pytest

from mflux_api.errors import (
    DownloadFailed,
    GenerationFailed,
    JobCancelled,
    JobConflict,
    JobNotFound,
    MfluxError,
    ModelGated,
    ModelNotDownloaded,
    OutOfMemory,
    ShuttingDown,
)
from mflux_api.events import Event
from mflux_api.jobs.job import State
from mflux_api.jobs.order import Defaults, Order
from mflux_api.jobs.service import JobService
from mflux_api.jobs.sqlite_queue import SQLiteQueue
from mflux_api.models.download_queue import DownloadProgress as Bytes
from mflux_api.models.download_queue import DownloadQueue
from mflux_api.models.inventory import ModelInventory, ModelLoader
from mflux_api.models.loras import LoraFolder
from mflux_api.models.registry import ModelSpec, ResolvedModel
from mflux_api.request import Upload
from tests.support.empty_weights import write_model
from tests.support.jobs import BROKEN, complete_job, fail_job, is_waiting, list_files, make_job, open_queue, run_async

AWAY = "flux2-klein-4b"
FOX = Order(prompt="a fox", model="flux2-tiny", width=64, height=64)
AWAY_FOX = Order(prompt="a fox", model=AWAY, width=64, height=64)
GATED = ModelGated("Accept the licence.", repository="b")


@dataclass
class Hub:
    """A fake hub. `gate`: downloads wait for it. `error`: raised instead. `asked`: folders of requested models."""

    models_dir: Path
    error: MfluxError | None = None
    gate: threading.Event = field(default_factory=threading.Event)
    asked: list[str] = field(default_factory=list)

    def fetch(self, spec: ModelSpec, tell: Callable[[Bytes], None], stop: threading.Event) -> Path:
        self.asked.append(spec.folder)
        tell(Bytes(0, 2, 25, 100, 1.0))
        self.gate.wait()
        if stop.is_set():
            raise DownloadFailed("Stopped.")
        if self.error is not None:
            raise self.error
        return write_model(self.models_dir / spec.folder)


@dataclass
class House:
    queue: SQLiteQueue
    service: JobService
    hub: Hub


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))


async def _no_engine(model: ResolvedModel) -> None:
    """Stand in for loading and unloading, without an engine."""


def no_loaded() -> Iterable[str]:
    return ()


def make_service(queue: SQLiteQueue, hub: Hub, *, auto_download: bool = True) -> JobService:
    door = ModelLoader(load=_no_engine, unload=_no_engine, loaded_names=no_loaded, estimate_memory=lambda *_: None)
    models = ModelInventory(hub.models_dir, "flux2-tiny", door)
    return JobService(
        queue,
        models,
        DownloadQueue(hub.fetch, queue.job_events.events),
        defaults=Defaults(),
        loras=LoraFolder(folder=hub.models_dir / "loras", anywhere=False),
        admit=lambda *_: None,
        auto_download=auto_download,
        low_ram=False,
    )


@asynccontextmanager
async def house(tmp_path: Path, *, limit: int = 100, auto_download: bool = True) -> AsyncIterator[House]:
    hub = Hub(tmp_path / "models")
    async with open_queue(tmp_path / "output", limit=limit) as queue:
        service = make_service(queue, hub, auto_download=auto_download)
        try:
            yield House(queue, service, hub)
        finally:
            service.downloads.close()
            hub.gate.set()


async def watched(queue: SQLiteQueue, job_id: str, last_id: str | None = None) -> list[Event]:
    return [event async for event in queue.watch(job_id, last_id, previews=False)]


def names(events: list[Event]) -> list[str]:
    return [event.name for event in events]


async def until(events: AsyncIterator[Event], name: str) -> Event:
    return await anext(event async for event in events if event.name == name)


@run_async
async def test_nobody_is_left_listening_to_a_job_that_is_unknown_or_over(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        with pytest.raises(JobNotFound):
            await watched(it.queue, "nothing")
        job = await complete_job(it.queue)
        await watched(it.queue, job.id)
        assert not it.queue.job_events.events._listeners


# Waiting for the end


@run_async
async def test_a_completed_job_is_returned(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        job = await complete_job(it.queue, b"one", b"two")
        assert await it.service.wait_finished(job) == job
        assert await it.service.read_pictures(job) == [b"one", b"two"]


@run_async
async def test_the_error_of_a_failed_job_is_raised_again(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        with pytest.raises(GenerationFailed) as caught:
            await it.service.wait_finished(await fail_job(it.queue))
        assert (caught.value.message, caught.value.details) == (BROKEN.message, BROKEN.details)


@run_async
async def test_a_cancelled_job_is_said_to_be_cancelled(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        job = await it.queue.submit(make_job())
        waiting = asyncio.create_task(it.service.wait_finished(job))
        assert await is_waiting(waiting)
        await it.service.cancel(job.id)
        with pytest.raises(JobCancelled):
            await waiting


@run_async
async def test_who_waits_for_a_job_is_told_that_the_server_stops(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        job = await it.queue.submit(make_job())
        waiting = asyncio.create_task(it.service.wait_finished(job))
        assert await is_waiting(waiting)
        it.queue.drain()
        with pytest.raises(ShuttingDown):
            await waiting
        with pytest.raises(ShuttingDown):
            await it.service.wait_finished(job)


# Orders


@run_async
async def test_an_order_is_a_job_with_its_pictures_on_disk(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        source, reference = Upload(b"source", 128, 64), Upload(b"reference", 64, 64)
        order = Order(prompt="a fox", source=source, references=(reference,), seed=5, count=2)
        job = await it.service.submit(order)
        assert (job.model, job.held, job.request.seeds) == ("flux2-tiny", False, (5, 6))
        assert (job.request.width, job.request.height) == (128, 64)
        assert [it.queue.read_picture(file) for file in job.inputs.files] == [b"source", b"reference"]
        assert await it.queue.claim() == await it.queue.get(job.id)


@run_async
async def test_a_refused_order_leaves_no_pictures(tmp_path: Path) -> None:
    async with house(tmp_path, limit=1) as it:
        order = Order(prompt="a fox", source=Upload(b"source", 64, 64), key="k", digest="d")
        first = await it.service.submit(order)
        kept = list_files(tmp_path / "output")
        assert (await it.service.submit(order)).id == first.id
        with pytest.raises(MfluxError, match="wait already"):
            await it.service.submit(Order(prompt="a fox", source=Upload(b"source", 64, 64)))
        with pytest.raises(JobConflict):
            await it.service.submit(Order(prompt="a fox", source=Upload(b"source", 64, 64), key="k", digest="e"))
        assert list_files(tmp_path / "output") == kept


@run_async
async def test_what_does_not_fit_in_memory_is_refused_before_it_is_queued(tmp_path: Path) -> None:
    def refuse(*_: object) -> NoReturn:
        raise OutOfMemory("Too large.")

    async with house(tmp_path) as it:
        it.service.admit = refuse
        with pytest.raises(OutOfMemory):
            await it.service.submit(FOX)
        assert it.queue.count_waiting() == 0


@pytest.mark.parametrize("door", ["told", "awaited", "painted"])
@run_async
async def test_a_client_that_waits_for_its_picture_does_not_wait_for_the_disk_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, door: str
) -> None:
    async with house(tmp_path) as it:
        ahead = AsyncMock(wraps=it.queue.store.run_ahead)
        monkeypatch.setattr(it.queue.store, "run_ahead", ahead)
        if door == "painted":
            painting = asyncio.create_task(it.service.submit_and_wait(FOX))
            assert await is_waiting(painting)
            painting.cancel()
            await asyncio.wait([painting])
        else:
            await it.service.submit(FOX, awaited=door == "awaited")
        assert ahead.await_count == (door != "told")


# Downloads


@run_async
async def test_a_job_waits_for_its_model_and_then_runs(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        job = await it.service.submit(AWAY_FOX)
        events = it.queue.watch(job.id, None, previews=False)
        told = await anext(event async for event in events if "download" in event.data)
        assert (told.data["stage"], told.data["download"], told.data["status"]) == ("downloading", 0.25, "queued")
        assert job.held
        claim = asyncio.create_task(it.queue.claim())
        assert await is_waiting(claim)
        it.hub.gate.set()
        assert (await claim).id == job.id
        await events.aclose()


@run_async
async def test_jobs_whose_model_cannot_come_fail_with_the_reason(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        it.hub.error = GATED
        jobs = [await it.service.submit(AWAY_FOX) for _ in range(2)]
        other = await it.service.submit(FOX)
        gone = await it.service.submit(AWAY_FOX)
        await it.queue.cancel(gone.id)
        it.hub.gate.set()
        for job in jobs:
            with pytest.raises(ModelGated) as caught:
                await it.service.wait_finished(job)
            assert (caught.value.message, caught.value.details) == (GATED.message, GATED.details)
        assert (await it.queue.get(gone.id)).state is State.CANCELLED
        assert (await it.queue.claim()).id == other.id


@run_async
async def test_variants_that_share_their_files_wait_for_one_download(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        orders = [AWAY_FOX, Order(prompt="a fox", model=f"{AWAY}-4-bit", width=64, height=64)]
        jobs = [await it.service.submit(order) for order in orders]
        it.hub.gate.set()
        assert {(await it.queue.claim()).id for _ in jobs} == {job.id for job in jobs}
        assert it.hub.asked == [AWAY]


@run_async
async def test_another_download_changes_nothing_for_a_waiting_job(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        job = await it.service.submit(AWAY_FOX)
        other = await it.service.models.find_spec("flux2-klein-9b")
        await it.service.model_settled(other, GATED)
        await it.service.model_settled(other, None)
        found = await it.queue.get(job.id)
        assert (found.state, found.held) == (State.QUEUED, True)


@run_async
async def test_without_downloads_a_model_that_is_away_is_refused(tmp_path: Path) -> None:
    async with house(tmp_path, auto_download=False) as it:
        with pytest.raises(ModelNotDownloaded):
            await it.service.submit(AWAY_FOX)
        assert it.hub.asked == []


@run_async
async def test_a_download_that_was_going_on_at_a_stop_goes_on_at_the_start(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        job = await it.service.submit(AWAY_FOX)
    async with house(tmp_path) as it:
        claim = asyncio.create_task(it.queue.claim())
        await it.service.resume_downloads()
        assert await is_waiting(claim)
        it.hub.gate.set()
        assert (await claim).id == job.id


@run_async
async def test_a_model_that_came_while_the_server_was_off_lets_its_jobs_run(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        jobs = [await it.queue.submit(make_job(model=AWAY, held=True)) for _ in range(2)]
        write_model(it.hub.models_dir / AWAY)
    async with house(tmp_path) as it:
        await it.service.resume_downloads()
        assert [(await it.queue.claim()).id for _ in jobs] == [job.id for job in jobs]
        assert it.hub.asked == []


@pytest.mark.parametrize("model", [AWAY, "a-folder-that-was-deleted"])
@run_async
async def test_a_job_whose_model_can_no_longer_come_fails_at_the_start(tmp_path: Path, model: str) -> None:
    async with house(tmp_path, auto_download=False) as it:
        lost = await it.queue.submit(make_job(model=model, held=True))
        other = await it.queue.submit(make_job(held=True))
        await it.service.resume_downloads()
        found = await it.queue.get(lost.id)
        assert found.state is State.FAILED
        assert found.error is not None
        assert found.error.code in {"MODEL_NOT_DOWNLOADED", "MODEL_NOT_FOUND"}
        assert (await it.queue.claim()).id == other.id


@run_async
async def test_a_sender_that_goes_away_leaves_a_job_with_its_download(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        with it.queue.job_events.events.listen(None) as box:
            sender = asyncio.create_task(it.service.submit(AWAY_FOX))
            queued = await until(box, "queued")
            sender.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sender
        it.hub.gate.set()
        assert (await it.queue.claim()).id == queued.job


@run_async
async def test_a_retry_brings_the_model_again(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        it.hub.error = DownloadFailed("The connection broke.")
        it.hub.gate.set()
        job = await it.service.submit(AWAY_FOX)
        with pytest.raises(DownloadFailed):
            await it.service.wait_finished(job)
        it.hub.error = None
        assert (await it.service.retry(job.id)).held
        assert (await it.queue.claim()).id == job.id
        assert it.hub.asked == [AWAY, AWAY]
