"""Make jobs, pictures and queues for tests."""

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from mflux_api.events import EventBus
from mflux_api.jobs.job import Failure, Inputs, Job, State, new_job_id
from mflux_api.jobs.queue import JobQueue, NewJob, Painted, Progress
from mflux_api.jobs.sqlite_queue import SQLiteQueue
from mflux_api.request import GenerateRequest

P = ParamSpec("P")
T = TypeVar("T")
PATIENCE_SECONDS = 30
MOMENT_SECONDS = 0.05
BROKEN = Failure("GENERATION_FAILED", 500, "It broke.", {"step": 3})
PROGRESS = Progress(stage="painting", step=1, steps=2, image=1, of=1, seconds=0.1)
REQUEST = GenerateRequest(
    prompt="a red fox", negative_prompt="", width=64, height=64, steps=2, guidance=1.0, seeds=(7,)
)

# Fields of a job that its submission sets.
ORDERED: dict[str, Any] = {
    "priority": 0,
    "held": False,
    "owner": "",
    "key": None,
    "digest": None,
    "model": "flux2-tiny",
    "low_ram": False,
    "request": REQUEST,
    "inputs": Inputs(),
}
JOB = Job(
    **ORDERED,
    id="0123456789ab",
    number=1,
    state=State.COMPLETED,
    place=1.0,
    attempts=1,
    pictures=(),
    error=None,
    created=1_800_000_000.0,
    started=None,
    finished=None,
)


def run_async(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an async test on its own event loop; fail it after PATIENCE_SECONDS."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), PATIENCE_SECONDS))

    return run


async def is_waiting(task: Awaitable[object]) -> bool:
    """Whether the task is still pending after MOMENT_SECONDS."""
    _, pending = await asyncio.wait([asyncio.ensure_future(task)], timeout=MOMENT_SECONDS)
    return bool(pending)


def make_job(**changes: Any) -> NewJob:
    return NewJob(**{**ORDERED, "id": new_job_id(), "created": time.time(), **changes})


def make_painted(index: int = 0, data: bytes = b"picture", *, diffusion: float = 2.0, total: float = 3.0) -> Painted:
    return Painted(
        index=index,
        data=data,
        text="fox",
        seed=7 + index,
        width=64,
        height=64,
        guidance=1.0,
        timings={"diffusion": diffusion, "total": total},
    )


def make_queue(folder: Path, *, limit: int = 100, tries: int = 2) -> SQLiteQueue:
    return SQLiteQueue(folder, EventBus(), limit=limit, tries=tries)


@asynccontextmanager
async def open_queue(folder: Path, *, limit: int = 100, tries: int = 2) -> AsyncIterator[SQLiteQueue]:
    queue = make_queue(folder, limit=limit, tries=tries)
    await queue.open()
    try:
        yield queue
    finally:
        await queue.close()


@asynccontextmanager
async def open_crashing_queue(folder: Path, *, tries: int = 2) -> AsyncIterator[SQLiteQueue]:
    """Open a queue and leave it at the end as a killed server does: only the store is closed."""
    queue = make_queue(folder, tries=tries)
    await queue.open()
    try:
        yield queue
    finally:
        await queue.store.close()


async def complete_job(queue: JobQueue, *pictures: bytes, **changes: Any) -> Job:
    """Submit, claim and finish a job with these pictures. No other job may be waiting."""
    await queue.submit(make_job(**changes))
    job = await queue.claim()
    for index, data in enumerate(pictures):
        await queue.picture(job, make_painted(index, data))
    await queue.finish(job)
    return await queue.get(job.id)


async def fail_job(queue: JobQueue) -> Job:
    await queue.submit(make_job())
    job = await queue.claim()
    await queue.fail(job, BROKEN, again=False)
    return await queue.get(job.id)


def list_files(folder: Path) -> set[str]:
    """Paths of pictures and inputs below the folder, incomplete ones included, without the database."""
    found = (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    return {name for name in found if not name.startswith("jobs.")}
