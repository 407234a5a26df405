"""Warnings of the server, such as a disk that gets short, are shown once and can be dismissed."""

from playwright.sync_api import BrowserContext, Route, expect

from tests.page.studio import StudioPage
from tests.support.live_server import LiveServer


def test_a_warning_of_the_server_is_shown_until_it_is_dismissed(context: BrowserContext, painter: LiveServer) -> None:
    def warn(route: Route) -> None:
        found = route.fetch().json()
        route.fulfill(json={**found, "warnings": ["The disk has only 1.2 GiB left."]})

    context.route("**/api/v1/system", warn)
    studio = StudioPage(context, painter)
    expect(studio.page.get_by_text("only 1.2 GiB left")).to_have_count(1)
    studio.page.get_by_role("button", name="Dismiss").click()
    studio.paint("after the warning")
    studio.wait_for_newest("after the warning")
    expect(studio.page.get_by_text("only 1.2 GiB left")).to_have_count(0)
    assert studio.troubles == []
    context.unroute_all(behavior="ignoreErrors")
