"""A server of the page's own: its tests count what is in the gallery."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext

from tests.page.studio import Studio
from tests.server.live import Live, running


@pytest.fixture(scope="module")
def painter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with running(Path(tmp_path_factory.mktemp("page")) / "output") as live:
        yield live


@pytest.fixture
def studio(context: BrowserContext, painter: Live) -> Iterator[Studio]:
    studio = Studio(context, painter)
    yield studio
    assert studio.troubles == []
