"""The page's part of `make bench`: first load, and a gallery of thousands, in a real browser."""

import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import BrowserContext, Page, expect, sync_playwright

from tests.page.crowd import copy_first_job
from tests.page.studio import StudioPage
from tests.support.browsers import FLAGS, INSTALL, find_browser
from tests.support.live_server import run_server

PICTURES = 5_000
SWEEPS = 20
MEBIBYTE = 1024**2
# Scrolls one screen per frame and returns the milliseconds between frames.
SCROLL = """(screens) => new Promise((resolve) => {
    const grid = document.querySelector(".grid");
    const times = [];
    let last = performance.now();
    const frame = (now) => {
        times.push(now - last);
        last = now;
        grid.scrollTop += grid.clientHeight / 4;
        if (times.length < screens) requestAnimationFrame(frame);
        else resolve(times.slice(1).sort((one, other) => one - other));
    };
    requestAnimationFrame(frame);
})"""


def main() -> None:
    found = find_browser()
    if found is None:
        sys.exit(f"{INSTALL} The page is not timed.")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        output = Path(folder) / "output"
        with run_server(output) as live:
            live.wait_for_status(live.submit(prompt="one of many", width=256, height=256))
            live.stop()
        copy_first_job(output, PICTURES - 1)
        with run_server(output) as live:
            browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
            context = browser.new_context(viewport={"width": 1280, "height": 800})
            _time_first_look(StudioPage(context, live).page)
            _time_gallery(context, StudioPage(context, live, "gallery"))
            browser.close()


def _time_first_look(page: Page) -> None:
    """Measure what is loaded before the page is usable; pictures of the gallery load later."""
    entries = page.evaluate(
        "[...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]"
        ".filter((each) => !each.name.includes('/api/')).map((each) => each.decodedBodySize)"
    )
    painted = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    _print_figure("files of the page", len(entries), "")
    _print_figure("bytes of the page", sum(entries) / 1000, "kB")
    _print_figure("first contentful paint", painted, "ms")


def _time_gallery(context: BrowserContext, studio: StudioPage) -> None:
    began = time.perf_counter()
    expect(studio.page.locator("output").first).to_have_text(f"{PICTURES:,} pictures")
    expect(studio.page.locator(".cell").first).to_be_visible()
    _print_figure(f"gallery of {PICTURES}: first cells after", (time.perf_counter() - began) * 1000, "ms")
    _print_figure("cells in the page at the top", studio.page.locator(".cell").count(), "")
    devtools = context.new_cdp_session(studio.page)
    before = _heap_mib(devtools.send)
    times = [time for _ in range(SWEEPS) for time in studio.page.evaluate(SCROLL, 30)]
    _print_figure("while scrolling: milliseconds a frame, median", sorted(times)[len(times) // 2], "ms")
    _print_figure("while scrolling: p95", sorted(times)[int(len(times) * 0.95)], "ms")
    _print_figure("cells in the page after it", studio.page.locator(".cell").count(), "")
    _print_figure("memory of its scripts: before", before, "MiB")
    _print_figure("memory of its scripts: after", _heap_mib(devtools.send), "MiB")


def _heap_mib(send: object) -> float:
    assert callable(send)
    send("HeapProfiler.collectGarbage")
    used: float = send("Runtime.getHeapUsage")["usedSize"]
    return used / MEBIBYTE


def _print_figure(name: str, value: float, unit: str) -> None:
    print(f"{name:52} {value:10.1f} {unit}", flush=True)


if __name__ == "__main__":
    main()
