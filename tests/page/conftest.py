"""A server for the page's tests only: they count the pictures in the gallery."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext

from tests.page.studio import StudioPage
from tests.support.live_server import LiveServer, run_server


@pytest.fixture(scope="module")
def painter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with run_server(Path(tmp_path_factory.mktemp("page")) / "output") as live:
        yield live


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context()
    yield context
    # A request may be under way in a route of the test.
    context.unroute_all(behavior="ignoreErrors")
    context.close()


@pytest.fixture
def studio(context: BrowserContext, painter: LiveServer) -> Iterator[StudioPage]:
    studio = StudioPage(context, painter)
    yield studio
    assert studio.troubles == []
