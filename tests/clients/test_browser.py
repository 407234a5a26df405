"""The JavaScript examples of the API's document in a real browser.

Needs Chromium or Chrome; tests/conftest.py handles a missing browser.
"""

import base64
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, ConsoleMessage, Page, Response

from tests.support.live_server import LiveServer
from tests.support.markdown import read_blocks
from tests.support.paths import EXAMPLE_DOCUMENTS, ROOT

pytestmark = pytest.mark.system

DOCUMENTED_ID = "a3f2b8c9d4e5"
# Copied from the document; the tests replace the job's id.
DOCUMENTED = """\
const eventSource = new EventSource('/api/v1/jobs/a3f2b8c9d4e5/stream');

eventSource.addEventListener('progress', (e) => {
  const data = JSON.parse(e.data);
  console.log(`Progress: ${data.progress * 100}%`);
});

eventSource.addEventListener('complete', (e) => {
  const data = JSON.parse(e.data);
  console.log('Generation complete!', data.result);
  eventSource.close();
});
"""
CANCELLED = """\
const source = new EventSource('/api/v1/jobs/a3f2b8c9d4e5/stream');
for (const name of ['progress', 'complete', 'failed', 'cancelled'])
  source.addEventListener(name, (e) => console.log(name, JSON.parse(e.data).status));
"""
# The document's example without the call of close().
UNCLOSED = """\
const source = new EventSource('/api/v1/jobs/a3f2b8c9d4e5/stream');
source.addEventListener('complete', () => console.log('complete'));
source.onerror = () => console.log(`state ${source.readyState}`);
"""

SCRIPTS = [
    pytest.param(block.text, id=f"{document.relative_to(ROOT)}:{block.line}")
    for document in EXAMPLE_DOCUMENTS
    for block in read_blocks(document)
    if block.language == "javascript"
]
LOCAL = "http://localhost:7861"


class Tab:
    """A page, the console messages of its scripts, and the statuses of its stream responses."""

    def __init__(self, context: BrowserContext, address: str) -> None:
        self.page: Page = context.new_page()
        self.messages: list[ConsoleMessage] = []
        self.streams: list[int] = []
        self.page.on("console", self._on_console)
        self.page.on("response", self._on_response)
        self.page.goto(address)
        self.devtools = context.new_cdp_session(self.page)

    def _on_console(self, message: ConsoleMessage) -> None:
        self.messages.append(message)

    def _on_response(self, reply: Response) -> None:
        if "/stream" in reply.url:
            self.streams.append(reply.status)

    @property
    def texts(self) -> list[str]:
        return [message.text for message in self.messages]

    def run(self, script: str) -> None:
        """Evaluate a script as the browser's console does: the page's Content-Security-Policy does not apply."""
        answer: dict[str, Any] = self.devtools.send("Runtime.evaluate", {"expression": script})
        assert "exceptionDetails" not in answer, answer

    def run_module(self, script: str) -> None:
        """Evaluate a script with `await` at its top level, and wait for its end."""
        options = {"expression": script, "replMode": True, "awaitPromise": True}
        answer: dict[str, Any] = self.devtools.send("Runtime.evaluate", options)
        assert "exceptionDetails" not in answer, answer

    def wait_until(self, holds: Callable[[], bool], seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, self.texts
            # Playwright delivers events only while a call of it waits.
            self.page.wait_for_timeout(50)


@contextmanager
def hold_queue(server: LiveServer) -> Iterator[Callable[[], object]]:
    """Pause the queue; the function that is yielded resumes it."""

    def go_on() -> None:
        assert server.post("/api/v1/queue/resume").json() == {"paused": False}

    assert server.post("/api/v1/queue/pause").json() == {"paused": True}
    try:
        yield go_on
    finally:
        go_on()


@pytest.fixture
def foreign_page() -> Iterator[str]:
    """Serve an empty page from another origin."""

    class Empty(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = b"<!doctype html><title>elsewhere</title>"
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Empty) as pages:
        thread = threading.Thread(target=pages.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{pages.server_address[1]}/"
        pages.shutdown()
        thread.join()


def run_and_log(tab: Tab, script: str, go_on: Callable[[], object]) -> list[str]:
    """Run the document's script, start the job once the page listens, and return what was logged."""
    tab.run(script)
    tab.wait_until(lambda: bool(tab.texts))
    go_on()
    tab.wait_until(lambda: tab.texts[-1].startswith("Generation complete!"))
    return tab.texts


def assert_painted(tab: Tab, texts: list[str]) -> None:
    assert texts[0] == "Progress: 0%"
    *progress, last = texts
    assert all(text.startswith("Progress: ") and text.endswith("%") for text in progress)
    shares = [float(text.removeprefix("Progress: ").removesuffix("%")) for text in progress]
    assert len(shares) >= 3
    assert shares == sorted(shares)
    assert shares[-1] <= 100
    assert last.startswith("Generation complete!")
    result: dict[str, Any] = tab.messages[-1].args[1].json_value()
    assert result["seeds"] == [42]
    assert base64.b64decode(result["images"][0]).startswith(b"\x89PNG")


def test_the_documents_script_shows_progress_and_the_picture(server: LiveServer, context: BrowserContext) -> None:
    tab = Tab(context, f"{server.url}/docs")
    with hold_queue(server) as go_on:
        job_id = server.submit(steps=4, seed=42)
        assert_painted(tab, run_and_log(tab, DOCUMENTED.replace(DOCUMENTED_ID, job_id), go_on))
    # The page closed its stream, so EventSource must not reconnect (it would within 2 seconds).
    tab.page.wait_for_timeout(2500)
    assert tab.streams == [200]


def test_the_documents_script_works_on_a_page_of_another_origin(
    server: LiveServer, context: BrowserContext, foreign_page: str
) -> None:
    tab = Tab(context, foreign_page)
    with hold_queue(server) as go_on:
        job_id = server.submit(steps=4, seed=42)
        script = DOCUMENTED.replace(DOCUMENTED_ID, job_id).replace("'/api/", f"'{server.url}/api/")
        assert_painted(tab, run_and_log(tab, script, go_on))


def test_a_page_of_another_origin_can_order_and_cancel(
    server: LiveServer, context: BrowserContext, foreign_page: str
) -> None:
    tab = Tab(context, foreign_page)
    script = """\
const ask = async (method, path, body) =>
  (await fetch('SERVER' + path, {method, body, headers: {'Content-Type': 'application/json'}})).json();
(async () => {
  const order = {prompt: 'a red circle', width: 64, height: 64, steps: 1};
  const job = await ask('POST', '/api/v1/generate', JSON.stringify(order));
  console.log((await ask('DELETE', `/api/v1/jobs/${job.job_id}`)).status);
})();
"""
    with hold_queue(server):
        tab.run(script.replace("SERVER", server.url))
        tab.wait_until(lambda: bool(tab.texts))
    assert tab.texts == ["cancelled"]


def test_a_cancelled_job_is_told_to_the_browser(server: LiveServer, context: BrowserContext) -> None:
    tab = Tab(context, f"{server.url}/docs")
    with hold_queue(server):
        job_id = server.submit()
        tab.run(CANCELLED.replace(DOCUMENTED_ID, job_id))
        tab.wait_until(lambda: bool(tab.texts))
        assert server.delete(f"/api/v1/jobs/{job_id}").status_code == 200
        tab.wait_until(lambda: tab.texts[-1] == "cancelled cancelled")
    assert tab.texts[0] == "progress queued"


def test_a_job_that_is_done_is_told_at_once(server: LiveServer, context: BrowserContext) -> None:
    job_id = server.submit(seed=42)
    server.wait_for_status(job_id)
    tab = Tab(context, f"{server.url}/docs")
    tab.run(DOCUMENTED.replace(DOCUMENTED_ID, job_id))
    tab.wait_until(lambda: bool(tab.texts))
    assert [text.partition("!")[0] for text in tab.texts] == ["Generation complete"]


def test_a_browser_that_does_not_close_stops_coming_back(server: LiveServer, context: BrowserContext) -> None:
    job_id = server.submit()
    server.wait_for_status(job_id)
    tab = Tab(context, f"{server.url}/docs")
    tab.run(UNCLOSED.replace(DOCUMENTED_ID, job_id))
    # EventSource.CLOSED is 2: it does not reconnect any more.
    tab.wait_until(lambda: "state 2" in tab.texts)
    assert tab.texts == ["complete", "state 0", "state 2"]
    assert tab.streams == [200, 204]


def test_the_page_of_the_documentation_shows_every_endpoint(server: LiveServer, context: BrowserContext) -> None:
    tab = Tab(context, f"{server.url}/docs")
    tab.page.locator("summary").first.wait_for()
    paths = server.get("/openapi.json").json()["paths"]
    assert tab.page.locator("summary").count() == sum(map(len, paths.values()))
    assert "Version" in tab.page.locator("#about").inner_text()
    # The console would report a blocked resource or a broken script.
    assert tab.texts == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_scripts_of_the_documents_show_the_picture(
    server: LiveServer, context: BrowserContext, foreign_page: str, script: str
) -> None:
    tab = Tab(context, foreign_page)
    # Previews are smaller than the picture.
    tab.run("sides = []; document.addEventListener('load', (e) => sides.push(e.target.naturalWidth), true)")
    tab.run_module(script.replace(LOCAL, server.url))
    tab.wait_until(lambda: tab.page.evaluate("sides.includes(256)"))
    assert min(tab.page.evaluate("sides")) < 256
    assert tab.texts == []
