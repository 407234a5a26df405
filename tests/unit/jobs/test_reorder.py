"""Moving waiting jobs: the memory, the database and the workers keep the same order."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mflux_api.errors import JobConflict, JobNotFound
from mflux_api.jobs.job import Job
from mflux_api.jobs.sqlite_queue import SQLiteQueue
from tests.support.jobs import BROKEN, fail_job, make_job, make_queue, open_crashing_queue, open_queue, run_async

VERBS = ["submit", "submit", "move", "move", "cancel", "claim", "release", "fail", "retry", "restart"]
STEPS = st.lists(st.tuples(st.sampled_from(VERBS), st.integers(-2, 2), st.integers(0, 99), st.integers(1, 12)))


async def in_order(queue: SQLiteQueue) -> list[str]:
    """Ids of the waiting jobs by the database. Asserts that the order in memory is the same."""
    jobs = await queue.waiting_jobs(1000)
    assert [queue.position(job.id) for job in jobs] == list(range(1, len(jobs) + 1))
    assert queue.count_waiting() == len(jobs)
    return [job.id for job in jobs]


async def put(queue: SQLiteQueue, *priorities: int) -> list[str]:
    return [(await queue.submit(make_job(priority=priority))).id for priority in priorities]


class Model:
    """A reference implementation of the queue's order: a plain list of (priority, id)."""

    def __init__(self) -> None:
        self.line: list[tuple[int, str]] = []

    def submit(self, job_id: str, priority: int) -> None:
        behind = [index for index, (other, _) in enumerate(self.line) if other < priority]
        self.line.insert(behind[0] if behind else len(self.line), (priority, job_id))

    def move(self, job_id: str, position: int) -> None:
        ((priority, _),) = (each for each in self.line if each[1] == job_id)
        self.line.remove((priority, job_id))
        ahead, behind = self.line[: position - 1], self.line[position - 1 :]
        if behind:
            priority = max(priority, behind[0][0])
        if ahead:
            priority = min(priority, ahead[-1][0])
        self.line = [*ahead, (priority, job_id), *behind]

    def leave(self, job_id: str) -> None:
        self.line = [each for each in self.line if each[1] != job_id]

    @property
    def ids(self) -> list[str]:
        return [job_id for _, job_id in self.line]


@given(
    st.lists(
        st.tuples(st.sampled_from(["submit", "move", "move", "cancel"]), st.integers(-2, 2), *[st.integers(0, 30)] * 2)
    )
)
def test_any_series_of_submits_moves_and_cancels_leaves_the_order_of_a_plain_list(
    steps: list[tuple[str, int, int, int]],
) -> None:
    @run_async
    async def take_steps() -> None:
        with tempfile.TemporaryDirectory() as folder:
            model = Model()
            async with open_crashing_queue(Path(folder)) as queue:
                for verb, priority, which, position in steps:
                    if verb == "submit" or not model.line:
                        model.submit((await put(queue, priority))[0], priority)
                        continue
                    job_id = model.ids[which % len(model.line)]
                    if verb == "move":
                        moved = await queue.move(job_id, position + 1)
                        model.move(job_id, position + 1)
                        assert (moved.priority, job_id) in model.line
                    else:
                        await queue.cancel(job_id)
                        model.leave(job_id)
                    assert await in_order(queue) == model.ids
            async with open_queue(Path(folder)) as queue:
                assert await in_order(queue) == model.ids
                assert [(await queue.claim()).id for _ in model.line] == model.ids

    take_steps()


@given(STEPS)
def test_whatever_is_done_the_line_is_what_the_database_says(steps: list[tuple[str, int, int, int]]) -> None:
    @run_async
    async def take_steps() -> None:
        with tempfile.TemporaryDirectory() as folder:
            queue = await begin(folder)
            for verb, priority, which, position in steps:
                if verb == "restart":
                    await queue.close()
                    queue = await begin(folder)
                else:
                    await act(queue, verb, priority, which, position)
                await in_order(queue)
            await queue.close()

    take_steps()


async def begin(folder: str) -> SQLiteQueue:
    queue = make_queue(Path(folder))
    await queue.open()
    return queue


async def act(queue: SQLiteQueue, verb: str, priority: int, which: int, position: int) -> None:
    jobs = (await queue.list_jobs(None, None, 1000)).jobs
    if verb == "submit":
        await queue.submit(make_job(priority=priority, held=which % 5 == 0))
    elif verb == "claim":
        if any(not job.held for job in await queue.waiting_jobs(1000)):
            await queue.claim()
    elif jobs:
        await meddle(queue, verb, jobs[which % len(jobs)], position)


async def meddle(queue: SQLiteQueue, verb: str, job: Job, position: int) -> None:
    active = queue.running.find(job.id)
    try:
        if verb == "move":
            await queue.move(job.id, position)
        elif verb == "cancel":
            await queue.cancel(job.id)
        elif verb == "retry":
            await queue.retry(job.id, held=False)
        elif active is not None:
            await (queue.release(active.job) if verb == "release" else queue.fail(active.job, BROKEN, again=True))
    except JobConflict:
        return


# Examples


@pytest.mark.parametrize(
    ("which", "position", "expected"),
    [
        *((2, 1, [2, 0, 1, 3]), (0, 4, [1, 2, 3, 0]), (0, 99, [1, 2, 3, 0]), (3, 2, [0, 3, 1, 2])),
        *((1, 2, [0, 1, 2, 3]), (0, 2**70, [1, 2, 3, 0])),
    ],
)
@run_async
async def test_a_job_stands_where_it_was_put(tmp_path: Path, which: int, position: int, expected: list[int]) -> None:
    async with open_queue(tmp_path) as queue:
        ids = await put(queue, 0, 0, 0, 0)
        await queue.move(ids[which], position)
        assert await in_order(queue) == [ids[index] for index in expected]


@pytest.mark.parametrize(
    ("which", "position", "priority"), [(3, 1, 5), (3, 2, 0), (0, 4, -5), (0, 2, 0), (1, 1, 5), (1, 4, -5), (2, 2, 0)]
)
@run_async
async def test_a_moved_job_has_the_priority_that_its_position_asks_for(
    tmp_path: Path, which: int, position: int, priority: int
) -> None:
    async with open_queue(tmp_path) as queue:
        ids = await put(queue, 5, 0, 0, -5)
        moved = await queue.move(ids[which], position)
        assert moved.priority == priority
        assert queue.position(moved.id) == position


@run_async
async def test_a_job_submitted_after_a_move_stands_behind_its_like(tmp_path: Path) -> None:
    async with open_queue(tmp_path) as queue:
        first, second = await put(queue, 0, 0)
        await queue.move(first, 2)
        (third,) = await put(queue, 0)
        assert await in_order(queue) == [second, first, third]


@run_async
async def test_a_move_is_told_and_kept_over_a_crash(tmp_path: Path) -> None:
    async with open_crashing_queue(tmp_path) as queue:
        ids = await put(queue, 0, 0, 0)
        with queue.job_events.events.listen(None) as box:
            await queue.move(ids[2], 1)
            event = await anext(box)
        assert (event.job, event.name, event.data) == (ids[2], "moved", {"job_id": ids[2], "position": 1})
    async with open_queue(tmp_path) as queue:
        assert await in_order(queue) == [ids[2], ids[0], ids[1]]


@run_async
async def test_a_held_job_can_be_moved_and_is_still_passed_over(tmp_path: Path) -> None:
    async with open_queue(tmp_path) as queue:
        first, second = await put(queue, 0, 0)
        held = await queue.submit(make_job(held=True, model="away"))
        await queue.move(held.id, 1)
        assert await in_order(queue) == [held.id, first, second]
        assert (await queue.claim()).id == first
        await queue.release_held(["away"])
        assert (await queue.claim()).id == held.id


@run_async
async def test_only_waiting_jobs_can_be_moved(tmp_path: Path) -> None:
    async with open_queue(tmp_path) as queue:
        over = await fail_job(queue)
        await put(queue, 0)
        running = await queue.claim()
        (gone,) = await put(queue, 0)
        await queue.cancel(gone)
        for job_id in (over.id, running.id, gone):
            with pytest.raises(JobConflict):
                await queue.move(job_id, 1)
        with pytest.raises(JobNotFound):
            await queue.move("nothing", 1)


@run_async
async def test_any_number_of_moves_to_the_same_position_find_room(tmp_path: Path) -> None:
    async with open_queue(tmp_path) as queue:
        ids = await put(queue, 0, 0, 0, 0)
        running = await queue.claim()
        waiting = ids[1:]
        for position in (2, 3, 1):
            for _ in range(70):
                moved = waiting.pop() if position == 2 else waiting.pop(0)
                await queue.move(moved, position)
                waiting.insert(position - 1, moved)
                assert await in_order(queue) == waiting
        waiting += await put(queue, 0)
        assert await in_order(queue) == waiting
        await queue.release(running)
        assert set(await in_order(queue)) == {*waiting, running.id}
