import asyncio

import pytest

from mflux_api.events import MAX_PENDING_EVENTS, REMEMBERED, Event, EventBus, Listener
from tests.support.jobs import is_waiting, run_async


async def next_names(box: Listener) -> list[str]:
    """The names of the events left in a listener, until its stream ends."""
    return [event.name async for event in box]


def event_names_since(events: EventBus, last_id: str, job: str | None) -> list[str] | None:
    past = events.list_since(last_id, job)
    return None if past is None else [event.name for event in past]


@run_async
async def test_a_listener_hears_its_own_job_and_the_end_of_the_server() -> None:
    events = EventBus()
    with events.listen("a") as box:
        events.publish("a", "queued", {})
        events.publish("b", "queued", {})
        events.publish("", "paused", {})
        events.publish("a", "progress", {})
        events.close()
        assert await next_names(box) == ["queued", "progress", "closing"]


@run_async
async def test_a_listener_to_everything_hears_everything_once() -> None:
    events = EventBus()
    with events.listen(None) as box:
        for job, name in (("a", "queued"), ("b", "started"), ("", "paused")):
            events.publish(job, name, {})
        events.close()
        assert await next_names(box) == ["queued", "started", "paused", "closing"]


@run_async
async def test_nothing_is_heard_from_before_and_after() -> None:
    events = EventBus()
    events.publish("a", "before", {})
    with events.listen("a") as box:
        pass
    events.publish("a", "after", {})
    assert box.queue.empty()


@run_async
async def test_a_listener_that_empties_nothing_is_dropped_and_harms_nobody() -> None:
    events = EventBus()
    with events.listen("a") as slow, events.listen("a") as quick:
        for number in range(3 * MAX_PENDING_EVENTS):
            event = events.publish("a", "progress", {"number": number})
            assert await anext(quick) is event
        assert len(await next_names(slow)) == MAX_PENDING_EVENTS
        assert slow.queue.empty()
        assert await is_waiting(asyncio.ensure_future(anext(quick)))


@run_async
async def test_a_listener_with_a_full_box_is_not_dropped_before_the_next_event() -> None:
    events = EventBus()
    with events.listen("a") as box:
        last = [events.publish("a", "progress", {}) for _ in range(MAX_PENDING_EVENTS)][-1]
        heard = [await anext(box) for _ in range(MAX_PENDING_EVENTS)]
        assert heard[-1] is last
        following = events.publish("a", "progress", {})
        assert await anext(box) is following


@run_async
async def test_a_full_box_still_ends_when_the_server_stops() -> None:
    events = EventBus()
    with events.listen("a") as box:
        for _ in range(MAX_PENDING_EVENTS):
            events.publish("a", "progress", {})
        events.close()
        assert await next_names(box) == ["progress"] * MAX_PENDING_EVENTS


def test_a_stream_is_resumed_after_the_last_event_that_was_heard() -> None:
    events = EventBus()
    first, *_ = (events.publish(job, name, {}) for job, name in (("a", "one"), ("b", "two"), ("a", "three")))
    assert event_names_since(events, first.id, "a") == ["three"]
    assert event_names_since(events, first.id, None) == ["two", "three"]
    assert event_names_since(events, events.publish("a", "four", {}).id, "a") == []


@pytest.mark.parametrize("last_id", [None, "", "0", "abcdef-1", "end-a-1"])
def test_an_unknown_event_cannot_be_resumed_from(last_id: str | None) -> None:
    events = EventBus()
    events.publish("a", "one", {})
    assert events.list_since(last_id, "a") is None


def test_an_event_of_an_earlier_run_is_unknown() -> None:
    earlier, now = EventBus(), EventBus()
    event = earlier.publish("a", "one", {})
    now.publish("a", "one", {})
    assert now.list_since(event.id, "a") is None


def test_only_the_last_events_are_remembered() -> None:
    events = EventBus()
    past = [events.publish("a", "one", {}) for _ in range(REMEMBERED + 1)]
    assert events.list_since(past[0].id, "a") is None
    assert events.list_since(past[1].id, "a") == past[2:]


def test_the_latest_progress_of_each_job_is_known_until_it_ends() -> None:
    events = EventBus()
    events.publish("a", "progress", {"step": 1})
    latest = events.publish("a", "progress", {"step": 2}, b"preview")
    events.publish("a", "other", {})
    events.publish("b", "progress", {"step": 1})
    assert events.get_latest_progress("a") is latest
    assert latest.preview == b"preview"
    events.forget_progress("a")
    assert events.get_latest_progress("a") is None
    assert events.get_latest_progress("b") is not None


def test_ids_are_told_apart() -> None:
    events = EventBus()
    assert len({events.publish("a", "one", {}).id for _ in range(100)}) == 100
    assert Event("1", "a", "one", {"x": 1}) == Event("1", "a", "one", {"x": 2})
