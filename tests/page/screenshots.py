"""`make screenshots`: the page as it is, into docs/images. Paints a small gallery first; takes a minute or two."""

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

from tests.browsers import FLAGS, INSTALL, find_browser
from tests.page.studio import Studio
from tests.server.live import ROOT, Live, running

IMAGES = ROOT / "docs" / "images"
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
Scheme = Literal["light", "dark"]
PROMPTS = (
    "a red circle on a white background",
    "a green triangle on a black background",
    "mountains at night with a full moon",
    "a field of flowers at noon",
    "a desert at sunset",
    "a forest in the morning",
    "a calm sea at dawn",
    "a blue square on a yellow background",
    "snowy mountains at noon",
    "a city at night",
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
        running(Path(folder) / "output") as live,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        for seed, prompt in enumerate(PROMPTS, start=1):
            live.until(live.submit(prompt=prompt, seed=seed, width=256, height=256, steps=4))
        _desktop(browser, live)
        _phone(browser, live)
        browser.close()


def _desktop(browser: Browser, live: Live) -> None:
    with _opened(browser, live, "light", **DESKTOP) as studio:
        studio.fill(LAST, side=256, steps=30)
        studio.page.keyboard.press("Control+Enter")
        expect(studio.page.locator(".status")).to_contain_text(re.compile(r"Step 2\d of 30"))
        _save(studio.page, "painting")
        studio.made(LAST)
    with _opened(browser, live, "dark", **DESKTOP) as studio:
        studio.open("gallery")
        _loaded(studio.page)
        _save(studio.page, "gallery")
        studio.page.locator(".cell").first.click()
        expect(studio.page.locator("dialog dl")).to_contain_text("Seed")
        _loaded(studio.page)
        _save(studio.page, "detail")
    with _opened(browser, live, "light", **DESKTOP) as studio:
        studio.open("models")
        expect(studio.page.locator(".card").first).to_be_visible()
        _save(studio.page, "models")


def _phone(browser: Browser, live: Live) -> None:
    with _opened(browser, live, "dark", **PHONE) as studio:
        studio.page.get_by_label("Prompt", exact=True).fill(LAST)
        _loaded(studio.page)
        _save(studio.page, "phone")
        studio.open("gallery")
        _loaded(studio.page)
        _save(studio.page, "phone-gallery")


@contextmanager
def _opened(browser: Browser, live: Live, scheme: Scheme, *, width: int, height: int) -> Iterator[Studio]:
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    yield Studio(context, live)
    context.close()


def _loaded(page: Page) -> None:
    """Every picture in sight is there."""
    there = "[...document.images].every((image) => image.complete || image.loading === 'lazy')"
    while not page.evaluate(there):
        page.wait_for_timeout(100)
    page.wait_for_timeout(300)


def _save(page: Page, name: str) -> None:
    """JPEG: a picture is on every one of them."""
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    image.save(IMAGES / f"{name}.jpg", quality=88, subsampling=0, optimize=True)
    print(f"docs/images/{name}.jpg", flush=True)


if __name__ == "__main__":
    main()
