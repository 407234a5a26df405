"""Statistics of finished jobs by hour and by day."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from sqlite3 import Connection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mflux_api.jobs.database import statistics
from mflux_api.jobs.database.connection import connect
from mflux_api.jobs.database.migrations import MIGRATIONS
from mflux_api.jobs.database.statistics import BUCKETS, HOUR, points
from mflux_api.jobs.queue import BucketLength, HistoryBucket, Retention
from tests.support.jobs import complete_job, fail_job, open_queue, run_async

# 01:30 on a Thursday, UTC.
NOW = datetime(2026, 1, 1, 1, 30, tzinfo=UTC).timestamp()
TOP = NOW - HOUR / 2
ENDS = st.lists(st.tuples(st.floats(0, 200 * 24 * HOUR), st.integers(0, 4), st.integers(0, 1), st.floats(0, 100)))


def migrate(path: Path | str, version: int = len(MIGRATIONS)) -> Connection:
    db = connect(Path(path))
    for script in MIGRATIONS[:version]:
        db.executescript(script)
    return db


@pytest.fixture
def db() -> Iterator[Connection]:
    with closing(migrate(":memory:")) as connection:
        yield connection


def test_hours_without_anything_are_there_and_empty(db: Connection) -> None:
    assert points(db, "hour", 3, NOW) == [HistoryBucket(start=TOP - hours * HOUR) for hours in (2, 1, 0)]
    assert points(db, "hour", 1, NOW)[0].pace is None


def test_what_ended_in_one_hour_is_one_point(db: Connection) -> None:
    statistics.add(db, TOP, pictures=1, seconds=2.0)
    statistics.add(db, NOW, pictures=3, seconds=4.0)
    statistics.add(db, NOW, failures=1)
    statistics.add(db, TOP - 0.001, pictures=1, seconds=7.0)
    earlier, current = points(db, "hour", 2, NOW)
    assert (current.pictures, current.failures, current.pace) == (4, 1, 1.5)
    assert (earlier.pictures, earlier.failures, earlier.pace) == (1, 0, 7.0)


def test_days_are_those_of_utc(db: Connection) -> None:
    midnight = TOP - HOUR
    for when in (midnight - 1, midnight, NOW):
        statistics.add(db, when, pictures=1, seconds=1.0)
    yesterday, today = points(db, "day", 2, NOW)
    assert (yesterday.start, yesterday.pictures) == (midnight - 24 * HOUR, 1)
    assert (today.start, today.pictures) == (midnight, 2)


@given(ENDS, st.sampled_from(sorted(BUCKETS)), st.integers(1, 168))
def test_points_hold_all_that_ended_since_the_first_began(
    ends: list[tuple[float, int, int, float]], bucket: BucketLength, count: int
) -> None:
    with closing(migrate(":memory:")) as db:
        for ago, pictures, failures, seconds in ends:
            statistics.add(db, NOW - ago, pictures=pictures, failures=failures, seconds=seconds)
        found = points(db, bucket, count, NOW)
    seconds_each = BUCKETS[bucket] * HOUR
    assert [point.start for point in found] == [found[0].start + index * seconds_each for index in range(count)]
    assert found[-1].start <= NOW < found[-1].start + seconds_each
    since = [end for end in ends if NOW - end[0] >= found[0].start]
    assert sum(point.pictures for point in found) == sum(pictures for _, pictures, _, _ in since)
    assert sum(point.failures for point in found) == sum(failures for _, _, failures, _ in since)


@run_async
async def test_sums_outlive_the_pictures_and_jobs_they_count(tmp_path: Path) -> None:
    async with open_queue(tmp_path) as queue:
        done = await complete_job(queue, b"one", b"two")
        await fail_job(queue)
        await queue.delete_picture(done.id, "0")
        await queue.prune(Retention(days=0, bytes=1))
    async with open_queue(tmp_path) as queue:
        ended = done.finished or 0.0
        found = await queue.store.run(points, "day", 2, ended + 1)
    assert (sum(point.pictures for point in found), sum(point.failures for point in found)) == (2, 1)
    assert sum(point.seconds for point in found) == pytest.approx(done.seconds)


def test_jobs_of_an_earlier_server_are_counted(tmp_path: Path) -> None:
    (script,) = (script for script in MIGRATIONS if "TABLE history" in script)
    with closing(migrate(tmp_path / "jobs.db", MIGRATIONS.index(script))) as db:
        names = "id, state, priority, owner, model, low_ram, request, inputs, created, pictures, started, finished"
        for name, state, pictures in [
            ("a", "completed", "[{}, {}]"),
            ("b", "failed", "[{}]"),
            ("c", "cancelled", "[{}]"),
        ]:
            row = (name, state, 0, "", "m", 0, "{}", "{}", 0.0, pictures, NOW - 6, NOW)
            db.execute(f"INSERT INTO jobs ({names}) VALUES ({', '.join('?' * len(row))})", row)
        db.executescript(script)
        (point,) = points(db, "hour", 1, NOW)
    assert (point.pictures, point.failures, point.pace) == (2, 1, 3.0)
