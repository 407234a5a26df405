"""A server that fetches from loopback, so that what it is to fetch can be served here."""

from collections.abc import Iterator

import pytest

from tests.server.live import Live, running


@pytest.fixture(scope="session")
def trusting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    output = tmp_path_factory.mktemp("trusting") / "output"
    with running(output, "--set", "security.fetch_hosts=127.0.0.1") as live:
        yield live
