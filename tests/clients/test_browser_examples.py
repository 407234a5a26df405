"""The edge worker's browser JavaScript, in a real browser on a page of another origin."""

import re

import pytest
from playwright.sync_api import BrowserContext

from tests.support.documents import edge_replacements, read_example
from tests.support.live_server import LiveServer

pytestmark = pytest.mark.system


def test_the_edge_workers_page_shows_a_picture_and_its_cost(small: LiveServer, context: BrowserContext) -> None:
    page = context.new_page()
    # Another origin that Chrome allows to reach loopback.
    page.goto(small.url.replace("127.0.0.1", "localhost") + "/api/v1/health")
    page.add_script_tag(content=read_example("edge_browser.js", edge_replacements(small)))
    with page.expect_console_message(lambda said: said.text.startswith("Cost"), timeout=60_000) as said:
        page.evaluate("generateImage('a cute cat')")
    # A header that is not exposed to other origins would be null.
    assert re.fullmatch(r"Cost: 0\.0\d\d\d บาท", said.value.text)
    page.wait_for_function("document.images[0].naturalWidth == 64")
