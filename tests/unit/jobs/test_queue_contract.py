from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from mflux_api.jobs.job import Job
from mflux_api.jobs.sqlite_queue import SQLiteQueue
from mflux_api.request import EarlyStop
from tests.support.jobs import make_job, open_queue
from tests.unit.jobs import client_contract
from tests.unit.jobs.client_contract import ClientQueueContract
from tests.unit.jobs.picture_contract import PictureContract
from tests.unit.jobs.watch_contract import WatchContract
from tests.unit.jobs.worker_contract import WorkQueueContract
from tests.unit.jobs.worker_harness import Opening, QueueHarness


class SqliteQueueHarness:
    def __init__(self, queue: SQLiteQueue) -> None:
        self.queue = queue
        self.tries = queue.retry_policy.tries

    async def submit(self, *, priority: int = 0) -> str:
        return (await self.queue.submit(make_job(priority=priority))).id

    async def cancel(self, job_id: str) -> None:
        await self.queue.cancel(job_id)

    async def move(self, job_id: str, position: int) -> None:
        await self.queue.move(job_id, position)

    def cut(self, job_id: str, how: EarlyStop) -> None:
        self.queue.end_early(job_id, how)

    def watch_previews(self, job_id: str | None) -> AbstractContextManager[None]:
        return self.queue.viewers.watching(job_id)

    async def get_job(self, job_id: str) -> Job:
        return await self.queue.get(job_id)

    def set_lease(self, seconds: float) -> None:
        self.queue.running.lease = seconds

    def disk_state(self) -> object:
        facts = {path: path.stat() for path in self.queue.pictures.folder.rglob("*")}
        return {path: (fact.st_size, fact.st_mtime_ns) for path, fact in facts.items()}

    def read_picture(self, file: str) -> bytes:
        return self.queue.read_picture(file)

    def read_stored_pictures(self, job_id: str) -> list[bytes]:
        return [path.read_bytes() for path in sorted(self.queue.pictures.folder.glob(f"*/{job_id}*"))]


class TestSQLiteWorkQueue(WorkQueueContract):
    @pytest.fixture
    def opening(self, tmp_path: Path) -> Opening:
        @asynccontextmanager
        async def open_shop() -> AsyncIterator[QueueHarness]:
            async with open_queue(tmp_path) as queue:
                yield SqliteQueueHarness(queue)

        return open_shop


class OpensSQLite:
    @pytest.fixture
    def opening(self, tmp_path: Path) -> client_contract.Opening:
        return partial(open_queue, tmp_path)


class TestSQLiteClientQueue(OpensSQLite, ClientQueueContract):
    pass


class TestSQLiteWatch(OpensSQLite, WatchContract):
    pass


class TestSQLitePictures(OpensSQLite, PictureContract):
    pass
