"""Scheduling class, session and process group of the engine process."""

import os
import sys

import psutil
import pytest

from tests.support.jobs import run_async
from tests.support.processes import make_engine

linux = pytest.mark.skipif(sys.platform != "linux", reason="the scheduler's classes are Linux's")


@pytest.fixture(autouse=True)
def several_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")


async def policies(*, background: bool) -> set[int]:
    """Return the scheduling policies of all threads of a started engine."""
    engine = make_engine(background=background)
    await engine.start()
    try:
        return {os.sched_getscheduler(thread.id) for thread in psutil.Process(engine.pid).threads()}
    finally:
        await engine.stop()


@linux
@run_async
async def test_every_thread_of_the_engine_lets_the_server_go_first() -> None:
    assert await policies(background=True) == {os.SCHED_IDLE}


@pytest.mark.slow
@linux
@run_async
async def test_it_takes_its_share_where_the_setting_says_so() -> None:
    assert await policies(background=False) == {os.SCHED_OTHER}


@run_async
async def test_it_shares_the_servers_session_and_not_the_terminals_signals() -> None:
    engine = make_engine()
    await engine.start()
    try:
        assert engine.pid is not None
        # In a separate session, Linux would weigh it against the whole server, whatever its priority (autogroup).
        assert os.getsid(engine.pid) == os.getsid(0)
        assert os.getpgid(engine.pid) == engine.pid != os.getpgid(0)
    finally:
        await engine.stop()
