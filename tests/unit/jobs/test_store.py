import asyncio
import os
import random
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mflux_api.errors import InvalidRequest, JobNotFound, StorageFailed
from mflux_api.jobs.database import jobs as job_rows
from mflux_api.jobs.database import pictures, statistics
from mflux_api.jobs.database.connection import Store, connect
from mflux_api.jobs.database.migrations import MIGRATIONS
from mflux_api.jobs.job import Inputs
from mflux_api.jobs.queue import PictureSearch, Totals
from tests.support.jobs import REQUEST, make_job, run_async
from tests.support.marks import slow_but
from tests.support.paths import ROOT

KILLS = 5
# Columns of a job as version 1 of the database stored them.
EARLIER_REQUEST = """{"prompt": "a red fox", "negative_prompt": "", "width": 64, "height": 64, "steps": 2,
    "guidance": 1.0, "seeds": [7, 8], "strength": 1.0, "loras": []}"""
EARLIER_INPUTS = """{"source": "inputs/earlier-source", "mask": null, "references": ["inputs/earlier-reference"]}"""
EARLIER_PICTURES = """[{"file": "2026-01-01/earlier-0.png", "text": "", "seed": 7, "width": 64, "height": 64,
    "guidance": 1.0, "timings": {"total": 1.0}, "size": 100}]"""
# Submits jobs as fast as possible and prints the id of each accepted one.
ACCEPTING = """
import asyncio, sys
from pathlib import Path
from tests.support.jobs import make_job, make_queue

async def main():
    queue = make_queue(Path(sys.argv[1]), limit=10**9)
    await queue.open()
    while True:
        print((await queue.submit(make_job(), awaited=sys.argv[2] == "awaited")).id, flush=True)

asyncio.run(main())
"""


@asynccontextmanager
async def open_store(folder: Path) -> AsyncIterator[Store]:
    store = Store(folder / "jobs.db")
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def pragma(db: sqlite3.Connection, name: str) -> Any:
    return db.execute(f"PRAGMA {name}").fetchone()[0]


def set_pragma(db: sqlite3.Connection, text: str) -> None:
    db.execute(f"PRAGMA {text}")


def add(db: sqlite3.Connection, name: str) -> None:
    db.execute("INSERT INTO totals VALUES (?, 1)", (name,))


async def totals(store: Store) -> set[str]:
    return await store.run(lambda db: {row["name"] for row in db.execute("SELECT name FROM totals")})


# Opening


@run_async
async def test_what_was_written_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    new = make_job(owner="alice", key="k", digest="d", priority=3, held=True, low_ram=True)
    async with open_store(tmp_path / "deep" / "folder") as store:
        job = await store.run(job_rows.insert, new)
    async with open_store(tmp_path / "deep" / "folder") as store:
        assert await store.run(job_rows.find, new.id) == job
    facts = (job.owner, job.key, job.digest, job.priority, job.held, job.low_ram, job.request, job.created)
    assert facts == ("alice", "k", "d", 3, True, True, new.request, new.created)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("journal_mode", "wal"), ("synchronous", 2), ("busy_timeout", 5000), ("foreign_keys", 1)),
        *(("wal_autocheckpoint", 1000), ("journal_size_limit", 67_108_864), ("temp_store", 2)),
    ],
)
@run_async
async def test_the_database_is_set_to_keep_what_was_told(tmp_path: Path, name: str, value: object) -> None:
    async with open_store(tmp_path) as store:
        assert await store.run(pragma, name) == value


@run_async
async def test_a_new_database_has_the_latest_version(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        assert await store.run(pragma, "user_version") == len(MIGRATIONS)


@run_async
async def test_a_database_of_a_newer_server_is_refused_and_left_alone(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await store.run(add, "kept")
        await store.run(set_pragma, f"user_version = {len(MIGRATIONS) + 1}")
    with pytest.raises(StorageFailed, match="newer version"):
        await Store(tmp_path / "jobs.db").open()
    with closing(sqlite3.connect(tmp_path / "jobs.db")) as db:
        assert pragma(db, "user_version") == len(MIGRATIONS) + 1
        set_pragma(db, f"user_version = {len(MIGRATIONS)}")
    async with open_store(tmp_path) as store:
        assert await totals(store) == {"kept"}


def write_version(path: Path, version: int) -> None:
    """Create a database of an earlier version with one queued job."""
    columns = {
        "id": "earlier",
        "state": "queued",
        "priority": 3,
        "owner": "alice",
        "model": "flux2-tiny",
        "low_ram": 0,
        "request": EARLIER_REQUEST,
        "inputs": EARLIER_INPUTS,
        "created": 12.5,
    }
    names, marks = ", ".join(columns), ", ".join(f":{name}" for name in columns)
    with closing(connect(path)) as db:
        for script in MIGRATIONS[:version]:
            db.executescript(script)
        db.execute(f"INSERT INTO jobs ({names}) VALUES ({marks})", columns)
        db.execute("INSERT INTO totals VALUES ('images', 7)")
        set_pragma(db, f"user_version = {version}")


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS) + 1))
@run_async
async def test_a_database_of_an_earlier_server_is_brought_up_to_date_and_keeps_its_jobs(
    tmp_path: Path, version: int
) -> None:
    write_version(tmp_path / "jobs.db", version)
    async with open_store(tmp_path) as store:
        assert await store.run(pragma, "user_version") == len(MIGRATIONS)
        job = await store.run(job_rows.claim, 13.0)
        assert job is not None
        assert (job.id, job.priority, job.owner, job.created) == ("earlier", 3, "alice", 12.5)
        assert job.request == replace(REQUEST, seeds=(7, 8))
        assert job.inputs == Inputs(source="inputs/earlier-source", references=("inputs/earlier-reference",))
        assert await store.run(statistics.totals) == Totals(images=7)
        await store.run(job_rows.save_value, "options", "new")
        assert await store.run(job_rows.load_value, "options") == "new"
    async with open_store(tmp_path) as store:
        assert (await store.run(job_rows.find, "earlier")).request == job.request


@run_async
async def test_pictures_of_an_earlier_server_are_listed_and_found_by_their_prompt(tmp_path: Path) -> None:
    write_version(tmp_path / "jobs.db", 3)
    with closing(connect(tmp_path / "jobs.db")) as db:
        prompt = EARLIER_REQUEST.replace("a red fox", "Ein ÄLTERER Fuchs")
        db.execute("UPDATE jobs SET state = 'completed', request = ?, pictures = ?", (prompt, EARLIER_PICTURES))
    async with open_store(tmp_path) as store:
        for search in (PictureSearch(), PictureSearch(words=frozenset({"älterer"}), model="flux2-tiny")):
            page = await store.run(pictures.page, search, None, 10)
            assert ([job.id for job in page.jobs], page.total) == (["earlier"], 1)
            assert page.jobs[0].present[0].seed == 7


@run_async
async def test_a_database_is_brought_up_to_date_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_version(tmp_path / "jobs.db", 1)
    monkeypatch.setattr(
        "mflux_api.jobs.database.connection.MIGRATIONS", (*MIGRATIONS, "CREATE TABLE half (name); CREATE nonsense;")
    )
    with pytest.raises(StorageFailed, match="cannot be opened"):
        await Store(tmp_path / "jobs.db").open()
    monkeypatch.undo()
    async with open_store(tmp_path) as store:
        assert await store.run(pragma, "user_version") == len(MIGRATIONS)
        tables = await store.run(lambda db: {row[0] for row in db.execute("SELECT name FROM sqlite_master")})
        assert "half" not in tables


@run_async
async def test_what_is_kept_under_a_name_is_there_until_something_else_is(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        assert await store.run(job_rows.load_value, "options") is None
        for value in ("first", "second", "日本語 🌅"):
            await store.run(job_rows.save_value, "options", value)
        await store.run(job_rows.save_value, "styles", "")
    async with open_store(tmp_path) as store:
        assert await store.run(job_rows.load_value, "options") == "日本語 🌅"
        assert await store.run(job_rows.load_value, "styles") == ""


@pytest.mark.parametrize("content", [b"this is no database" * 100, b"SQLite format 3\0" + b"\xff" * 4096])
@run_async
async def test_a_file_that_is_no_database_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "jobs.db").write_bytes(content)
    with pytest.raises(StorageFailed, match="cannot be opened"):
        await Store(tmp_path / "jobs.db").open()
    assert (tmp_path / "jobs.db").read_bytes() == content


@run_async
async def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageFailed, match="cannot be opened"):
        await Store(tmp_path / "file" / "jobs.db").open()


# Exclusive use


@run_async
async def test_a_second_server_is_refused_and_told_which_is_the_first(tmp_path: Path) -> None:
    async with open_store(tmp_path) as first:
        for _ in range(2):
            with pytest.raises(InvalidRequest, match=f"process {os.getpid()}\\).*{tmp_path}") as caught:
                await Store(tmp_path / "jobs.db").open()
            assert caught.value.details["field"] == "generation.output_dir"
        await first.run(add, "unharmed")
        assert await totals(first) == {"unharmed"}
    async with open_store(tmp_path) as second:
        assert await totals(second) == {"unharmed"}


@run_async
async def test_two_servers_with_folders_of_their_own_get_on(tmp_path: Path) -> None:
    async with open_store(tmp_path / "a") as a, open_store(tmp_path / "b") as b:
        await a.run(add, "a")
        assert await totals(b) == set()


# Transactions


@run_async
async def test_an_action_that_fails_writes_nothing(tmp_path: Path) -> None:
    def half(db: sqlite3.Connection) -> None:
        add(db, "half")
        job_rows.find(db, "nothing")

    async with open_store(tmp_path) as store:
        with pytest.raises(JobNotFound):
            await store.run(half)
        assert await totals(store) == set()
        await store.run(add, "whole")
        assert await totals(store) == {"whole"}


@run_async
async def test_a_caller_that_goes_away_leaves_no_half_transaction(tmp_path: Path) -> None:
    begun, gate = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def slow(db: sqlite3.Connection) -> None:
        add(db, "first half")
        loop.call_soon_threadsafe(begun.set)
        gate.wait()
        add(db, "second half")

    async with open_store(tmp_path) as store:
        caller = asyncio.create_task(store.run(slow))
        await begun.wait()
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        gate.set()
        assert await totals(store) == {"first half", "second half"}


@run_async
async def test_many_callers_take_turns(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        jobs = await asyncio.gather(*(store.run(job_rows.insert, make_job()) for _ in range(50)))
        assert sorted(job.number for job in jobs) == list(range(1, 51))


# A broken disk


@run_async
async def test_a_full_disk_is_told_and_everything_works_when_there_is_room_again(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await store.run(job_rows.insert, make_job(id="first"))
        await store.run(set_pragma, f"max_page_count = {await store.run(pragma, 'page_count')}")
        with pytest.raises(StorageFailed, match="is the disk full") as caught:
            await store.run(job_rows.insert, make_job(id="large", key="x" * 1_000_000))
        assert caught.value.status == 507
        assert (await store.run(job_rows.find, "first")).id == "first"
        await store.run(set_pragma, "max_page_count = 1000000")
        with pytest.raises(JobNotFound):
            await store.run(job_rows.find, "large")
        await store.run(job_rows.insert, make_job(id="large", key="x" * 1_000_000))
        assert await store.run(pragma, "integrity_check") == "ok"


@run_async
async def test_a_damaged_database_is_told_as_a_broken_disk(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await store.run(add, "first")
    content = (tmp_path / "jobs.db").read_bytes()
    (tmp_path / "jobs.db").write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    async with open_store(tmp_path) as store:
        with pytest.raises(StorageFailed):
            await store.run(statistics.totals)


# kill -9


def write_until_killed(folder: Path, whose: str) -> list[str]:
    command = [sys.executable, "-c", ACCEPTING, str(folder), whose]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        told = [server.stdout.readline() for _ in range(random.randint(1, 100))]
        server.kill()
        # Lines still in the pipe were printed before the kill; only the last may be incomplete.
        told += server.stdout.readlines()
    return [line.strip() for line in told if line.endswith("\n")]


@pytest.mark.parametrize("whose", slow_but(["told", "awaited"], "told"))
def test_every_job_that_was_accepted_survives_a_kill(tmp_path: Path, whose: str) -> None:
    accepted: list[str] = []
    for _ in range(KILLS):
        accepted += write_until_killed(tmp_path, whose)
        with closing(sqlite3.connect(tmp_path / "jobs.db")) as db:
            assert pragma(db, "integrity_check") == "ok"
            stored = {row[0] for row in db.execute("SELECT id FROM jobs")}
        assert set(accepted) <= stored
    assert len(accepted) == len(set(accepted)) >= KILLS
