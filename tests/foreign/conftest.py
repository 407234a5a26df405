"""Servers for the dialects: one that may fetch from loopback, one with an API key, one with small fixed sizes."""

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
    """A server that requires an API key."""
    output = tmp_path_factory.mktemp("guarded") / "output"
    with run_server(output, "--set", "security.fetch_hosts=127.0.0.1", "--set", f"security.api_keys=me:{KEY}") as live:
        yield live


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server that paints the documents' fixed sizes at 64 pixels a side."""
    with run_server(tmp_path_factory.mktemp("small") / "output", program=SMALL_SERVER) as live:
        yield live
