"""Many tabs of the page: one of them holds the event stream, and all of them show what happens."""

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import BrowserContext, expect

from tests.page.studio import StudioPage
from tests.support.live_server import LiveServer

TABS = 8
# A page cannot be hidden in this browser. It believes what it is told.
HIDE = """(hidden) => {
    Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
}"""


@contextmanager
def open_tabs(context: BrowserContext, live: LiveServer, count: int) -> Iterator[list[StudioPage]]:
    tabs = [StudioPage(context, live) for _ in range(count)]
    yield tabs
    assert [tab.troubles for tab in tabs] == [[]] * count


def follow_streams(context: BrowserContext) -> list[str]:
    """Collect the requests for event streams that start from now on."""
    started: list[str] = []
    context.on("request", lambda asked: started.append(asked.url) if "/api/v1/events" in asked.url else None)
    return started


def test_every_tab_loads_and_shows_what_happens_in_another(context: BrowserContext, painter: LiveServer) -> None:
    started = follow_streams(context)
    with open_tabs(context, painter, TABS) as tabs:
        assert len(started) == 1
        tabs[3].paint("a red circle in many tabs")
        for tab in tabs:
            tab.wait_for_newest("a red circle in many tabs")


def test_the_tab_that_holds_the_stream_may_be_closed(context: BrowserContext, painter: LiveServer) -> None:
    started = follow_streams(context)
    with open_tabs(context, painter, 3) as tabs:
        tabs[0].page.close()
        while len(started) < 2:
            tabs[1].page.wait_for_timeout(50)
        tabs[1].paint("after the first was closed")
        tabs[2].wait_for_newest("after the first was closed")


def test_a_hidden_tab_lets_go_and_catches_up(context: BrowserContext, painter: LiveServer) -> None:
    with open_tabs(context, painter, 2) as (first, second):
        second.paint("while both are seen")
        first.wait_for_newest("while both are seen")
        first.page.evaluate(HIDE, True)
        second.paint("while the first was hidden")
        second.wait_for_newest("while the first was hidden")
        expect(first.newest).to_have_attribute("alt", "while both are seen")
        first.page.evaluate(HIDE, False)
        first.wait_for_newest("while the first was hidden")


def test_without_locks_one_visible_tab_has_the_stream_too(context: BrowserContext, painter: LiveServer) -> None:
    """Over plain HTTP from another machine a browser has no locks."""
    context.add_init_script("Object.defineProperty(navigator, 'locks', { value: undefined })")
    started = follow_streams(context)
    with open_tabs(context, painter, TABS) as tabs:
        tabs[0].paint("without locks")
        for tab in tabs:
            tab.wait_for_newest("without locks")
        assert len(started) == 1
        for tab in tabs[:-1]:
            tab.page.evaluate(HIDE, True)
        while len(started) < 2:
            tabs[-1].page.wait_for_timeout(50)
        tabs[-1].paint("by the last one")
        tabs[-1].wait_for_newest("by the last one")
        tabs[0].page.evaluate(HIDE, False)
        tabs[0].wait_for_newest("by the last one")
