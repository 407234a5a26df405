"""The contract that every implementation of `WorkQueue` keeps.

Subclass it as Test... with a fixture `opening`.
"""

import asyncio

import pytest

from mflux_api.errors import JobConflict
from mflux_api.jobs.job import State
from mflux_api.request import EarlyStop
from tests.support.jobs import BROKEN, PROGRESS, is_waiting, make_painted, run_async
from tests.unit.jobs.worker_harness import (
    LONG,
    SHORT,
    VERBS,
    Opening,
    Verb,
    assert_refused,
    claim_after_takeover,
    every_verb,
    submit_and_claim,
)


class WorkQueueContract:
    @pytest.fixture
    def opening(self) -> Opening:
        raise NotImplementedError

    # Claims

    @run_async
    async def test_a_claim_waits_until_a_job_is_there(self, opening: Opening) -> None:
        async with opening() as shop:
            claim = asyncio.create_task(shop.queue.claim())
            assert await is_waiting(claim)
            job_id = await shop.submit()
            job = await claim
            assert (job.id, job.state, job.attempts) == (job_id, State.GENERATING, 1)
            assert (await shop.get_job(job_id)).state is State.GENERATING

    @run_async
    async def test_jobs_come_by_priority_and_then_by_submission(self, opening: Opening) -> None:
        async with opening() as shop:
            ids = [await shop.submit(priority=priority) for priority in (0, -1, 5, 0, 5)]
            came = [(await shop.queue.claim()).id for _ in ids]
            assert came == [ids[2], ids[4], ids[0], ids[3], ids[1]]

    @run_async
    async def test_a_moved_job_comes_at_its_new_position_and_later_ones_behind(self, opening: Opening) -> None:
        async with opening() as shop:
            ids = [await shop.submit(priority=priority) for priority in (5, 0, 0, -1)]
            await shop.move(ids[3], 1)
            await shop.move(ids[0], 3)
            ids.append(await shop.submit())
            came = [(await shop.queue.claim()).id for _ in ids]
            assert came == [ids[3], ids[1], ids[0], ids[2], ids[4]]

    @run_async
    async def test_a_job_that_was_moved_comes_back_where_it_stood(self, opening: Opening) -> None:
        async with opening() as shop:
            ids = [await shop.submit() for _ in range(3)]
            await shop.move(ids[2], 1)
            moved = await shop.queue.claim()
            await shop.queue.release(moved)
            assert [(await shop.queue.claim()).id for _ in ids] == [ids[2], ids[0], ids[1]]

    @run_async
    async def test_a_job_that_does_not_wait_cannot_be_moved(self, opening: Opening) -> None:
        async with opening() as shop:
            job = await submit_and_claim(shop)
            with pytest.raises(JobConflict):
                await shop.move(job.id, 1)
            await shop.queue.finish(job)
            with pytest.raises(JobConflict):
                await shop.move(job.id, 1)

    @run_async
    async def test_no_job_is_claimed_twice(self, opening: Opening) -> None:
        async with opening() as shop:
            claims = [asyncio.create_task(shop.queue.claim()) for _ in range(5)]
            ids = {await shop.submit() for _ in range(5)}
            assert {job.id for job in await asyncio.gather(*claims)} == ids
            another = asyncio.create_task(shop.queue.claim())
            assert await is_waiting(another)
            another.cancel()

    @run_async
    async def test_a_claim_that_is_given_up_takes_no_job(self, opening: Opening) -> None:
        async with opening() as shop:
            claim = asyncio.create_task(shop.queue.claim())
            assert await is_waiting(claim)
            claim.cancel()
            assert (await submit_and_claim(shop)).attempts == 1

    # Pictures and completion

    @run_async
    async def test_a_picture_is_on_disk_when_it_was_taken_and_named_when_the_job_is_finished(
        self, opening: Opening
    ) -> None:
        async with opening() as shop:
            job = await submit_and_claim(shop)
            for index, data in enumerate((b"first", b"second")):
                await shop.queue.picture(job, make_painted(index, data))
                assert data in shop.read_stored_pictures(job.id)
            await shop.queue.finish(job)
            done = await shop.get_job(job.id)
            assert done.state is State.COMPLETED
            assert [shop.read_picture(picture.file) for picture in done.pictures] == [b"first", b"second"]
            assert [(picture.seed, picture.size, picture.text) for picture in done.pictures] == [
                (7, 5, "fox"),
                (8, 6, "fox"),
            ]
            assert done.finished is not None
            assert done.error is None

    @run_async
    async def test_the_last_picture_may_come_with_the_end(self, opening: Opening) -> None:
        async with opening() as shop:
            job = await submit_and_claim(shop)
            await shop.queue.picture(job, make_painted(0, b"first"))
            await shop.queue.finish(job, make_painted(1, b"last"))
            done = await shop.get_job(job.id)
            assert done.state is State.COMPLETED
            assert [shop.read_picture(picture.file) for picture in done.pictures] == [b"first", b"last"]
            assert [(picture.seed, picture.size) for picture in done.pictures] == [(7, 5), (8, 4)]

    @run_async
    async def test_a_failed_job_says_why(self, opening: Opening) -> None:
        async with opening() as shop:
            job = await submit_and_claim(shop)
            assert not await shop.queue.fail(job, BROKEN, again=False)
            found = await shop.get_job(job.id)
            assert (found.state, found.error) == (State.FAILED, BROKEN)

    @run_async
    async def test_a_job_that_may_be_tried_again_comes_back_until_its_tries_are_used_up(self, opening: Opening) -> None:
        async with opening() as shop:
            job_id = await shop.submit()
            for attempt in range(1, shop.tries + 1):
                job = await shop.queue.claim()
                assert (job.id, job.attempts) == (job_id, attempt)
                assert await shop.queue.fail(job, BROKEN, again=True) is (attempt < shop.tries)
            found = await shop.get_job(job_id)
            assert (found.state, found.error) == (State.FAILED, BROKEN)

    @run_async
    async def test_pictures_of_a_broken_try_are_not_left(self, opening: Opening) -> None:
        async with opening() as shop:
            job = await submit_and_claim(shop)
            for index in range(2):
                await shop.queue.picture(job, make_painted(index, b"first try"))
            await shop.queue.fail(job, BROKEN, again=True)
            job = await shop.queue.claim()
            await shop.queue.picture(job, make_painted(0, b"second try"))
            await shop.queue.finish(job)
            assert len((await shop.get_job(job.id)).pictures) == 1
            assert shop.read_stored_pictures(job.id) == [b"second try"]

    @run_async
    async def test_a_released_job_comes_back_at_its_old_place_and_the_try_does_not_count(
        self, opening: Opening
    ) -> None:
        async with opening() as shop:
            first, second = await shop.submit(), await shop.submit()
            for _ in range(shop.tries + 1):
                job = await shop.queue.claim()
                assert (job.id, job.attempts) == (first, 1)
                await shop.queue.picture(job, make_painted())
                await shop.queue.release(job)
                assert shop.read_stored_pictures(first) == []
            assert (await shop.queue.claim()).id == first
            assert (await shop.queue.claim()).id == second

    @every_verb
    @run_async
    async def test_after_the_end_every_verb_is_refused(self, opening: Opening, verb: Verb) -> None:
        async with opening() as shop:
            job = await submit_and_claim(shop)
            await shop.queue.picture(job, make_painted())
            await shop.queue.finish(job)
            await assert_refused(shop, job, verb)

    @every_verb
    @run_async
    async def test_after_a_release_every_verb_is_refused(self, opening: Opening, verb: Verb) -> None:
        async with opening() as shop:
            job = await submit_and_claim(shop)
            await shop.queue.release(job)
            await assert_refused(shop, job, verb)
            await shop.queue.claim()
            await assert_refused(shop, job, verb)

    # Cancellation

    @run_async
    async def test_a_cancelled_job_is_not_claimed(self, opening: Opening) -> None:
        async with opening() as shop:
            first, second = await shop.submit(), await shop.submit()
            await shop.cancel(first)
            assert (await shop.queue.claim()).id == second

    @run_async
    async def test_a_worker_hears_that_its_job_was_cancelled(self, opening: Opening) -> None:
        async with opening() as shop:
            job = await submit_and_claim(shop)
            cancelled = asyncio.create_task(shop.queue.wait_cancelled(job))
            assert await is_waiting(cancelled)
            await shop.cancel(job.id)
            await cancelled

    @run_async
    async def test_a_worker_that_asks_late_hears_at_once_that_its_job_was_cancelled(self, opening: Opening) -> None:
        async with opening() as shop:
            job = await submit_and_claim(shop)
            await shop.cancel(job.id)
            await shop.queue.wait_cancelled(job)

    @every_verb
    @run_async
    async def test_a_cancelled_job_stays_cancelled(self, opening: Opening, verb: Verb) -> None:
        async with opening() as shop:
            job = await submit_and_claim(shop)
            await shop.queue.picture(job, make_painted())
            await shop.cancel(job.id)
            await assert_refused(shop, job, verb)
            assert (await shop.get_job(job.id)).state is State.CANCELLED
            assert shop.read_stored_pictures(job.id) == [b"picture"]

    # Viewers

    @pytest.mark.parametrize("which", ["this job", "all jobs"])
    @run_async
    async def test_a_worker_hears_that_somebody_looks(self, opening: Opening, which: str) -> None:
        async with opening() as shop:
            job = await submit_and_claim(shop)
            watched = asyncio.create_task(shop.queue.wait_for_viewer(job))
            assert await is_waiting(watched)
            with shop.watch_previews(job.id if which == "this job" else None):
                await watched
                await shop.queue.wait_for_viewer(job)

    @run_async
    async def test_who_looks_at_another_job_or_has_gone_does_not_look(self, opening: Opening) -> None:
        async with opening() as shop:
            first, second = await submit_and_claim(shop), await submit_and_claim(shop)
            with shop.watch_previews(first.id):
                pass
            with shop.watch_previews(second.id):
                watched = asyncio.create_task(shop.queue.wait_for_viewer(first))
                assert await is_waiting(watched)
                watched.cancel()

    # Early stops

    @pytest.mark.parametrize("how", EarlyStop)
    @run_async
    async def test_a_worker_hears_that_its_picture_is_to_end(self, opening: Opening, how: EarlyStop) -> None:
        async with opening() as shop:
            job = await submit_and_claim(shop)
            cut = asyncio.create_task(shop.queue.next_early_stop(job))
            assert await is_waiting(cut)
            shop.cut(job.id, how)
            assert await cut is how

    @run_async
    async def test_a_worker_that_asks_late_hears_of_every_cut_once_and_in_order(self, opening: Opening) -> None:
        async with opening() as shop:
            job = await submit_and_claim(shop)
            cuts = [EarlyStop.SKIP, EarlyStop.SKIP, EarlyStop.INTERRUPT]
            for how in cuts:
                shop.cut(job.id, how)
            assert [await shop.queue.next_early_stop(job) for _ in cuts] == cuts
            another = asyncio.create_task(shop.queue.next_early_stop(job))
            assert await is_waiting(another)
            another.cancel()

    @run_async
    async def test_a_question_that_is_given_up_takes_no_cut(self, opening: Opening) -> None:
        async with opening() as shop:
            job = await submit_and_claim(shop)
            given_up = asyncio.create_task(shop.queue.next_early_stop(job))
            assert await is_waiting(given_up)
            given_up.cancel()
            shop.cut(job.id, EarlyStop.SKIP)
            assert await shop.queue.next_early_stop(job) is EarlyStop.SKIP

    @run_async
    async def test_a_job_cut_short_is_finished_with_the_pictures_it_has(self, opening: Opening) -> None:
        async with opening() as shop:
            job = await submit_and_claim(shop)
            shop.cut(job.id, EarlyStop.INTERRUPT)
            await shop.queue.picture(job, make_painted())
            await shop.queue.finish(job)
            found = await shop.get_job(job.id)
            assert (found.state, len(found.pictures)) == (State.COMPLETED, 1)

    @run_async
    async def test_a_cut_is_for_the_try_it_was_meant_for(self, opening: Opening) -> None:
        async with opening() as shop:
            job = await submit_and_claim(shop)
            shop.cut(job.id, EarlyStop.INTERRUPT)
            await shop.queue.release(job)
            cut = asyncio.create_task(shop.queue.next_early_stop(await shop.queue.claim()))
            assert await is_waiting(cut)
            cut.cancel()

    @run_async
    async def test_a_cut_of_one_job_is_not_for_the_next(self, opening: Opening) -> None:
        async with opening() as shop:
            first, second = await submit_and_claim(shop), await submit_and_claim(shop)
            shop.cut(first.id, EarlyStop.INTERRUPT)
            cut = asyncio.create_task(shop.queue.next_early_stop(second))
            assert await is_waiting(cut)
            cut.cancel()
            await shop.queue.finish(first)
            cut = asyncio.create_task(shop.queue.next_early_stop(second))
            assert await is_waiting(cut)
            cut.cancel()

    # Leases

    @run_async
    async def test_a_job_whose_worker_fell_silent_is_given_to_another(self, opening: Opening) -> None:
        async with opening() as shop:
            first, second = await claim_after_takeover(shop)
            assert (second.id, second.attempts) == (first.id, 2)
            await shop.queue.wait_cancelled(first)

    @every_verb
    @run_async
    async def test_a_worker_that_was_silent_changes_nothing_any_more(self, opening: Opening, verb: Verb) -> None:
        async with opening() as shop:
            first, second = await claim_after_takeover(shop)
            await shop.queue.picture(second, make_painted(0, b"successor's"))
            await assert_refused(shop, first, verb)
            await shop.queue.finish(second)
            assert [shop.read_picture(picture.file) for picture in (await shop.get_job(second.id)).pictures] == [
                b"successor's"
            ]

    @pytest.mark.parametrize("verb", [VERBS["heartbeat"], VERBS["progress"]], ids=["heartbeat", "progress"])
    @run_async
    async def test_a_worker_that_is_heard_of_keeps_its_job(self, opening: Opening, verb: Verb) -> None:
        async with opening() as shop:
            shop.set_lease(SHORT)
            job = await submit_and_claim(shop)
            shop.set_lease(LONG)
            await verb(shop.queue, job)
            shop.set_lease(SHORT)
            another = asyncio.create_task(shop.queue.claim())
            assert await is_waiting(another)
            another.cancel()
            await shop.queue.finish(job)

    @run_async
    async def test_a_job_that_loses_every_worker_fails(self, opening: Opening) -> None:
        async with opening() as shop:
            shop.set_lease(SHORT)
            job_id = await shop.submit()
            for _ in range(shop.tries):
                assert (await shop.queue.claim()).id == job_id
            following = asyncio.create_task(shop.queue.claim())
            assert await is_waiting(following)
            found = await shop.get_job(job_id)
            assert found.state is State.FAILED
            assert found.error is not None
            assert (await shop.submit()) == (await following).id

    # Progress

    @run_async
    async def test_progress_and_heartbeats_write_nothing_to_disk(self, opening: Opening) -> None:
        async with opening() as shop:
            job = await submit_and_claim(shop)
            before = shop.disk_state()
            for _ in range(100):
                await shop.queue.progress(job, PROGRESS)
                await shop.queue.heartbeat(job)
            assert shop.disk_state() == before
            await shop.queue.finish(job)
            assert shop.disk_state() != before
