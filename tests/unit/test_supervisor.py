"""Background tasks: a failure is logged and the task is started again."""

import asyncio
import logging
from collections.abc import Callable, Coroutine

import pytest

from mflux_api.supervisor import SupervisedTask, Supervisor
from tests.support.jobs import run_async

Work = Callable[[], Coroutine[None, None, None]]
AT_ONCE = (0.0,)


def fail_first(times: int, then: asyncio.Event) -> Work:
    left = [times]

    async def work() -> None:
        if left[0]:
            left[0] -= 1
            raise ValueError("the disk is odd")
        then.set()
        await asyncio.Event().wait()

    return work


@run_async
async def test_a_task_that_fails_is_logged_with_its_trace_and_started_again(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []
    supervisor, steady = Supervisor(lambda task: seen.append(task.state), AT_ONCE), asyncio.Event()
    with caplog.at_level(logging.ERROR):
        supervisor.start("prune", fail_first(3, steady))
        await steady.wait()
    assert supervisor.tasks["prune"] == SupervisedTask("prune", "running", 3, "ValueError: the disk is odd")
    assert seen == ["running", *(["restarting", "running"] * 3)]
    assert len(caplog.records) == 3
    assert all(record.exc_info for record in caplog.records)
    supervisor.cancel()
    await supervisor.wait_ended()


@run_async
async def test_a_task_that_fails_leaves_the_others_alone() -> None:
    supervisor, one, other = Supervisor(lambda task: None, (60.0,)), asyncio.Event(), asyncio.Event()
    supervisor.start("broken", fail_first(1, one))
    supervisor.start("whole", fail_first(0, other))
    await other.wait()
    assert (supervisor.tasks["broken"].state, supervisor.tasks["whole"].state) == ("restarting", "running")
    supervisor.cancel()
    await supervisor.wait_ended()


@run_async
async def test_a_task_that_returns_has_finished() -> None:
    supervisor, ended = Supervisor(lambda task: ended.set() if task.state == "finished" else None), asyncio.Event()

    async def work() -> None:
        pass

    supervisor.start("engine start", work)
    await ended.wait()
    await supervisor.wait_ended()
    assert supervisor.tasks["engine start"].restarts == 0
