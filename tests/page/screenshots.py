"""`make screenshots`: save screenshots of the page in docs/images.

Paints a small gallery first; takes a minute or two.
"""

import io
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.page.studio import StudioPage
from tests.support.browsers import FLAGS, INSTALL, find_browser
from tests.support.live_server import LiveServer, run_server
from tests.support.paths import ROOT

IMAGES = ROOT / "docs" / "images"
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
Scheme = Literal["light", "dark"]
PROMPTS = (
    "a green triangle on a black background",
    "mountains at night",
    "a green field by day",
    "a desert at sunset",
    "a pink heart on a white background",
    "a calm sea at sunrise",
    "a blue square on a yellow background",
    "snow at sunrise",
    "a red circle next to a blue star",
    "a lake at night",
    "a house on a green field by day",
    "a large yellow star on a blue background",
    "a beautiful sunset over mountains",
)
LAST = "a calm sea at sunset"


def main() -> None:
    found = find_browser()
    if found is None:
        sys.exit(INSTALL)
    IMAGES.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        run_server(Path(folder) / "output") as live,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        for seed, prompt in enumerate(PROMPTS, start=1):
            live.wait_for_status(live.submit(prompt=prompt, seed=seed, width=256, height=256, steps=4))
        _save_desktop(browser, live)
        _save_phone(browser, live)
        browser.close()


def _save_desktop(browser: Browser, live: LiveServer) -> None:
    with _open_studio(browser, live, "light", **DESKTOP) as studio:
        studio.fill(LAST, side=256, steps=30)
        studio.page.keyboard.press("Control+Enter")
        expect(studio.page.locator(".status")).to_contain_text(re.compile(r"Step 2\d of 30"))
        _save_screenshot(studio.page, "painting")
        studio.wait_for_newest(LAST)
    with _open_studio(browser, live, "dark", **DESKTOP) as studio:
        studio.open("gallery")
        _wait_for_pictures(studio.page)
        _save_screenshot(studio.page, "gallery")
        studio.page.locator(".cell").first.click()
        expect(studio.page.locator("dialog dl")).to_contain_text("Seed")
        _wait_for_pictures(studio.page)
        _save_screenshot(studio.page, "detail")
    with _open_studio(browser, live, "light", **DESKTOP) as studio:
        studio.open("models/flux2-klein-4b")
        expect(studio.card("FLUX.2 [klein] 4B")).to_be_in_viewport()
        _save_screenshot(studio.page, "models")


def _save_phone(browser: Browser, live: LiveServer) -> None:
    with _open_studio(browser, live, "dark", **PHONE) as studio:
        studio.page.get_by_label("Prompt", exact=True).fill(LAST)
        _wait_for_pictures(studio.page)
        _save_screenshot(studio.page, "phone")


@contextmanager
def _open_studio(
    browser: Browser, live: LiveServer, scheme: Scheme, *, width: int, height: int
) -> Iterator[StudioPage]:
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    yield StudioPage(context, live)
    context.close()


def _wait_for_pictures(page: Page) -> None:
    """Wait until every visible picture is loaded."""
    there = "[...document.images].every((image) => image.complete || image.loading === 'lazy')"
    while not page.evaluate(there):
        page.wait_for_timeout(100)
    page.wait_for_timeout(300)


def _save_screenshot(page: Page, name: str) -> None:
    """Save as JPEG: every screenshot contains a picture."""
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    image.save(IMAGES / f"{name}.jpg", quality=82, subsampling=0, optimize=True)
    print(f"docs/images/{name}.jpg", flush=True)


if __name__ == "__main__":
    main()
