"""Rows of webhook deliveries: an event is due once it has happened, and dropped once it cannot happen."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from mflux_api.jobs.database import deliveries
from mflux_api.jobs.database import jobs as job_rows
from mflux_api.jobs.database.connection import connect
from mflux_api.jobs.database.migrations import MIGRATIONS
from mflux_api.jobs.job import State
from mflux_api.jobs.queue import Delivery
from tests.support.jobs import REQUEST, make_job

EVENTS = "start,output,completed"
# The first version of the database with webhooks.
FIRST = 3


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(connect(tmp_path / "jobs.db")) as db:
        for script in MIGRATIONS:
            db.executescript(script)
        yield db


def order(db: sqlite3.Connection, events: str = EVENTS) -> str:
    return order_to(db, "https://a.test/", events)


def order_to(db: sqlite3.Connection, webhook: str, events: str = "completed") -> str:
    note = {"webhook": webhook, "events": events}
    return job_rows.insert(db, make_job(request=replace(REQUEST, note=note))).id


def due(db: sqlite3.Connection, now: float = 1.0) -> list[str]:
    """Return the events that are due, one after the other as a sender gets them."""
    found: list[Delivery] = []
    while more := deliveries.due(db, now, [each.number for each in found], [], 10):
        found += more
    return [each.event for each in found]


def states(db: sqlite3.Connection) -> dict[str, str]:
    return {each.event: each.state for each in deliveries.page(db, None, None, 50).deliveries}


def test_an_event_is_told_once_it_has_come_about(db: sqlite3.Connection) -> None:
    job_id = order(db)
    assert due(db) == []
    job_rows.claim(db, 1.0)
    assert due(db) == ["start"]
    job_rows.change_state(db, job_id, State.COMPLETED, now=2.0)
    assert due(db) == ["start", "output", "completed"]


@pytest.mark.parametrize("end", [State.FAILED, State.CANCELLED])
def test_what_never_came_about_is_dropped(db: sqlite3.Connection, end: State) -> None:
    job_id = order(db)
    job_rows.change_state(db, job_id, end, now=2.0)
    assert due(db) == ["completed"]
    assert states(db) == {"start": "dropped", "output": "dropped", "completed": "waiting"}
    # A retry makes all of them wait again.
    job_rows.reset(db, job_id, held=False)
    assert set(states(db).values()) == {"waiting"}


def test_what_failed_is_due_again_when_its_time_has_come(db: sqlite3.Connection) -> None:
    job_rows.change_state(db, order(db, "completed"), State.FAILED, now=2.0)
    (tried,) = deliveries.due(db, 10.0, [], [], 10)
    deliveries.settle(db, tried.number, state="waiting", next_try=15.0, status=503, error="answered with status 503")
    assert (due(db, 14.0), due(db, 15.0)) == ([], ["completed"])
    (again,) = deliveries.due(db, 15.0, [], [], 10)
    assert (again.attempts, again.status, again.error) == (1, 503, "answered with status 503")
    deliveries.settle(db, tried.number, state="delivered", next_try=0.0, status=200, error="")
    assert due(db, 99.0) == []
    assert deliveries.page(db, "delivered", None, 50).total == 1


def test_each_host_gets_one_delivery_and_a_busy_one_none(db: sqlite3.Connection) -> None:
    for webhook in ("https://a.test/1", "https://A.test/2?x", "http://b.test:81", "https://c.test"):
        job_rows.change_state(db, order_to(db, webhook), State.FAILED, now=2.0)
    assert [each.host for each in deliveries.due(db, 1.0, [], [], 10)] == ["a.test", "b.test:81", "c.test"]
    assert [each.host for each in deliveries.due(db, 1.0, [], ["a.test"], 1)] == ["b.test:81"]
    (first, *_) = deliveries.due(db, 1.0, [], [], 10)
    (second, *_) = deliveries.due(db, 1.0, [first.number], [], 10)
    assert (second.host, second.number) == ("a.test", first.number + 1)


def test_a_page_is_the_newest_first_and_goes_with_its_jobs(db: sqlite3.Connection) -> None:
    ids = [order(db, "completed") for _ in range(3)]
    first = deliveries.page(db, "waiting", None, 2)
    assert ([each.job.id for each in first.deliveries], first.total) == ([ids[2], ids[1]], 3)
    following = deliveries.page(db, "waiting", first.deliveries[-1].number, 2)
    assert [each.job.id for each in following.deliveries] == [ids[0]]
    job_rows.delete(db, ids[:2])
    assert deliveries.page(db, None, None, 2).total == 1


def test_an_earlier_servers_deliveries_are_told_of_the_end(tmp_path: Path) -> None:
    with closing(connect(tmp_path / "jobs.db")) as db:
        for script in MIGRATIONS[:FIRST]:
            db.executescript(script)
        db.execute("INSERT INTO deliveries (job, state, attempts, due) VALUES ('a', 'waiting', 2, 5.0)")
        for script in MIGRATIONS[FIRST:]:
            db.executescript(script)
        (row,) = db.execute("SELECT * FROM deliveries").fetchall()
        assert (row["job"], row["event"], row["state"], row["attempts"], row["due"]) == (
            *("a", "completed", "waiting", 2, 5.0),
        )
