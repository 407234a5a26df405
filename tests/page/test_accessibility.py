"""Accessibility: axe-core, and checks that it cannot make."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import BrowserContext, expect

from tests.conftest import NODE_CLIENTS
from tests.page.studio import StudioPage, file_payload, make_png
from tests.support.live_server import LiveServer, run_server

# axe-core comes with the JavaScript clients.
pytestmark = pytest.mark.node

AXE = NODE_CLIENTS.parent / "node_modules" / "axe-core" / "axe.min.js"
SCHEMES: list[Literal["light", "dark"]] = ["light", "dark"]


@pytest.fixture(scope="module")
def painter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with run_server(Path(tmp_path_factory.mktemp("axe")) / "output") as live:
        live.wait_for_status(live.submit(prompt="a red circle"))
        yield live


def find_violations(studio: StudioPage) -> list[str]:
    """Return the serious and critical violations that axe-core finds.

    The debugger injects its script, because the page's policy allows no other scripts.
    """
    devtools = studio.page.context.new_cdp_session(studio.page)
    devtools.send("Runtime.evaluate", {"expression": AXE.read_text(encoding="utf-8")})
    asked = {"expression": "axe.run().then(JSON.stringify)", "awaitPromise": True, "returnByValue": True}
    found: dict[str, Any] = json.loads(devtools.send("Runtime.evaluate", asked)["result"]["value"])
    assert found["passes"], "it has looked"
    return [
        f"{each['id']}: {node['html']}: {node['failureSummary']}"
        for each in found["violations"]
        if each["impact"] in {"serious", "critical"}
        for node in each["nodes"]
    ]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("view", ["paint", "gallery", "models", "system"])
def test_every_part_is_accessible(
    context: BrowserContext, painter: LiveServer, view: str, scheme: Literal["light", "dark"]
) -> None:
    studio = StudioPage(context, painter)
    studio.page.emulate_media(color_scheme=scheme)
    studio.open(view)
    studio.page.wait_for_timeout(300)
    assert find_violations(studio) == []


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_stands_in_front_is_accessible(
    context: BrowserContext, painter: LiveServer, scheme: Literal["light", "dark"]
) -> None:
    studio = StudioPage(context, painter)
    studio.page.emulate_media(color_scheme=scheme)
    studio.choose(file_payload("red.png", make_png()))
    studio.button("Paint a mask").click()
    expect(studio.page.get_by_role("heading", name="Mask")).to_be_visible()
    assert find_violations(studio) == []
    studio.page.keyboard.press("Escape")
    studio.open("gallery")
    studio.page.locator(".cell").first.click()
    expect(studio.page.locator("dialog dl")).to_contain_text("Seed")
    assert find_violations(studio) == []


def test_who_wants_less_motion_gets_none(context: BrowserContext, painter: LiveServer) -> None:
    studio = StudioPage(context, painter)
    studio.page.emulate_media(reduced_motion="reduce")
    studio.paint("a blue square", steps=50, side=256)
    expect(studio.page.locator(".painting")).to_be_visible()
    moving = "document.getAnimations().filter((each) => each.playState === 'running').length"
    assert studio.page.evaluate(moving) == 0
    studio.page.keyboard.press("Escape")
    expect(studio.page.locator(".painting")).to_have_count(0)
