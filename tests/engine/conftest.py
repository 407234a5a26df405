"""The engine process shared by the tests in test_process_*.py."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.support.processes import Shared, make_engine


@pytest.fixture(scope="module")
def shared() -> Iterator[Shared]:
    with asyncio.Runner() as runner:
        engine = make_engine()
        yield Shared(engine, runner)
        runner.run(engine.stop())
