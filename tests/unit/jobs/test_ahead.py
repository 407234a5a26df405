"""Transactions that do not wait for the disk, and their delayed fsync."""

import asyncio
import errno
import logging
import os
import queue
import sqlite3
from pathlib import Path

import pytest

from mflux_api.errors import JobNotFound
from mflux_api.jobs.database import jobs as job_rows
from mflux_api.jobs.database import statistics
from mflux_api.jobs.database.connection import Store, connect
from mflux_api.jobs.queue import Totals
from tests.support.jobs import make_job, make_painted, open_queue, run_async

LEVEL = "PRAGMA synchronous="


class Disk:
    """Records the `synchronous` level of each transaction and the files synced outside SQLite."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch
        monkeypatch.setattr("mflux_api.jobs.database.connection.connect", self.connect)
        monkeypatch.setattr("mflux_api.jobs.database.connection._sync", self.sync)
        self.statements: list[str] = []
        self.synced: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.broken = False

    def sync_after(self, seconds: float) -> None:
        self.monkeypatch.setattr("mflux_api.jobs.database.connection.SYNC_SECONDS", seconds)

    def connect(self, path: Path) -> sqlite3.Connection:
        connection = connect(path)
        connection.set_trace_callback(self.statements.append)
        return connection

    def sync(self, descriptor: int) -> None:
        self.synced.put(os.fstat(descriptor).st_ino)
        if self.broken:
            raise OSError(errno.EIO, "Input/output error")

    @property
    def latest(self) -> str:
        """The `synchronous` level of the last commit: FULL if it waited for the disk."""
        committed = len(self.statements) - self.statements[::-1].index("COMMIT")
        levels = [statement for statement in self.statements[:committed] if statement.startswith(LEVEL)]
        return levels[-1].removeprefix(LEVEL)

    async def next_sync(self) -> int:
        """Wait for the next sync and return the inode number of the file."""
        return await asyncio.to_thread(self.synced.get, timeout=10)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.mark.parametrize(("awaited", "level"), [(False, "FULL"), (True, "NORMAL")])
@pytest.mark.parametrize("worker", ["idle", "busy"])
@run_async
async def test_the_disk_is_waited_for_where_the_client_is_told_of_its_job(
    tmp_path: Path, disk: Disk, awaited: bool, level: str, worker: str
) -> None:
    async with open_queue(tmp_path) as jobs:
        claim = asyncio.create_task(jobs.claim() if worker == "idle" else asyncio.sleep(0))
        await asyncio.sleep(0)
        await jobs.submit(make_job(), awaited=awaited)
        assert disk.latest == level
        await claim


@pytest.mark.parametrize(("tries", "level"), [(2, "NORMAL"), (1, "FULL")])
@run_async
async def test_the_disk_is_waited_for_where_a_picture_could_not_be_painted_again(
    tmp_path: Path, disk: Disk, tries: int, level: str
) -> None:
    async with open_queue(tmp_path, tries=tries) as jobs:
        job, other = [await jobs.submit(make_job()) for _ in range(2)]
        await jobs.finish(await jobs.claim(), make_painted())
        assert disk.latest == level
        assert (await jobs.get(job.id)).pictures
        await jobs.cancel(other.id)
        assert disk.latest == "FULL"


@run_async
async def test_what_was_written_ahead_of_the_disk_is_there_soon_and_at_once_for_several(
    tmp_path: Path, disk: Disk
) -> None:
    disk.sync_after(0.5)
    async with open_queue(tmp_path) as jobs:
        for _ in range(3):
            await jobs.submit(make_job(), awaited=True)
        log = (tmp_path / "jobs.db-wal").stat().st_ino
        assert await disk.next_sync() == log
        # A second sync would come within this time.
        await asyncio.sleep(0.2)
        assert disk.synced.empty()
        await jobs.submit(make_job(), awaited=True)
        assert await disk.next_sync() == log


@run_async
async def test_a_server_that_stops_needs_no_sync_of_its_own(tmp_path: Path, disk: Disk) -> None:
    disk.sync_after(60.0)
    async with open_queue(tmp_path) as jobs:
        accepted = await jobs.submit(make_job(), awaited=True)
    async with open_queue(tmp_path) as jobs:
        assert await jobs.get(accepted.id) == accepted
    assert disk.synced.empty()


@run_async
async def test_a_disk_that_cannot_sync_is_told_in_the_log(
    tmp_path: Path, disk: Disk, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("mflux_api"), "propagate", True)
    disk.broken = True
    async with open_queue(tmp_path) as jobs:
        for _ in range(2):
            await jobs.submit(make_job(), awaited=True)
            await disk.next_sync()
    assert [record.message for record in caplog.records] == ["storage.unsynced"] * 2


@run_async
async def test_a_transaction_that_fails_leaves_the_next_ones_as_they_were(tmp_path: Path, disk: Disk) -> None:
    def half(db: sqlite3.Connection) -> None:
        statistics.add_totals(db, images=1)
        job_rows.find(db, "nothing")

    store = Store(tmp_path / "jobs.db")
    await store.open()
    with pytest.raises(JobNotFound):
        await store.run_ahead(half)
    assert await store.run(statistics.totals) == Totals()
    assert disk.latest == "FULL"
    await store.close()
