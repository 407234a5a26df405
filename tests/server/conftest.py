"""One server for all tests that leave it as they find it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.live import Live, running


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with running(Path(tmp_path_factory.mktemp("server")) / "output") as live:
        yield live
