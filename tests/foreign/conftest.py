"""Servers: one that fetches from loopback, so that what it is to fetch can be served here; those of the examples."""

from collections.abc import Iterator

import pytest

from tests.foreign.documents import KEY, SMALL_SERVER
from tests.server.live import LiveServer, run_server


@pytest.fixture(scope="session")
def trusting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    output = tmp_path_factory.mktemp("trusting") / "output"
    with run_server(output, "--set", "security.fetch_hosts=127.0.0.1") as live:
        yield live


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """One that wants a key."""
    output = tmp_path_factory.mktemp("guarded") / "output"
    with run_server(output, "--set", "security.fetch_hosts=127.0.0.1", "--set", f"security.api_keys=me:{KEY}") as live:
        yield live


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """One that paints the sizes that documents fix at 64 pixels a side."""
    with run_server(tmp_path_factory.mktemp("small") / "output", program=SMALL_SERVER) as live:
        yield live
