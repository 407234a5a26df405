"""Page object: user actions on the page in a real browser."""

import io
import re
from collections.abc import Callable
from typing import Any

from PIL import Image
from playwright.sync_api import BrowserContext, FilePayload, Locator, Page, Route, expect

from tests.support.live_server import LiveServer

# Milliseconds. Long, because a busy machine is slow.
PATIENCE = 60_000
expect.set_options(timeout=PATIENCE)
DRAGGED = """(bytes) => {
    const files = new DataTransfer();
    files.items.add(new File([new Uint8Array(bytes)], "dragged.png", { type: "image/png" }));
    return files;
}"""


class StudioPage:
    """One open page. `troubles`: errors of its scripts and violations of its content security policy."""

    def __init__(self, context: BrowserContext, server: LiveServer, view: str = "") -> None:
        self.server = server
        self.page: Page = context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.troubles: list[str] = []
        self.page.on("pageerror", lambda error: self.troubles.append(str(error)))
        self.page.on("console", lambda said: self.troubles.append(said.text) if "Refused to" in said.text else None)
        self.open(view)

    def open(self, view: str = "") -> None:
        self.page.goto(f"{self.server.url}/#{view}")
        expect(self.page.locator(".connection")).to_have_text(re.compile("ready|in the queue"))
        if view == "":
            # The model's defaults are loaded.
            expect(self.page.get_by_label("Width", exact=True)).to_have_value("256")

    def fill(self, prompt: str, *, steps: int = 1, side: int = 64) -> None:
        """Fill the form for a small picture, which is painted fast."""
        self.page.get_by_label("Prompt", exact=True).fill(prompt)
        self.fill_number("Width", side)
        self.fill_number("Height", side)
        self.fill_number("Steps, as a number", steps)

    def choose(self, *files: FilePayload) -> None:
        self.page.locator("input[type=file]").set_input_files(files)

    def drop(self, content: bytes, role: str) -> None:
        """Drag a PNG over the page and drop it in one of the zones."""
        dragged = self.page.evaluate_handle(DRAGGED, list(content))
        self.page.dispatch_event("body", "dragover", {"dataTransfer": dragged})
        self.page.dispatch_event(f"[data-role={role}]", "drop", {"dataTransfer": dragged})

    def fill_number(self, label: str, value: float) -> None:
        field = self.page.get_by_label(label, exact=True)
        field.fill(str(value))
        field.press("Tab")

    def paint(self, prompt: str, **small: int) -> None:
        self.fill(prompt, **small)
        self.page.get_by_role("button", name="Paint", exact=False).first.click()

    @property
    def newest(self) -> Locator:
        return self.page.locator(".finished img")

    def wait_for_newest(self, prompt: str) -> None:
        """Wait until a picture of this prompt is the newest."""
        expect(self.newest).to_have_attribute("alt", prompt)

    def card(self, label: str) -> Locator:
        """Return the card of a model in the view of models."""
        return self.page.get_by_role("listitem", name=label, exact=True)

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name)

    def get_job(self, at: int = 0) -> dict[str, Any]:
        """Return a job from the server's list, newest first."""
        listed = self.server.get("/api/v1/jobs").json()["jobs"][at]
        found: dict[str, Any] = self.server.get(f"/api/v1/jobs/{listed['id']}?images=false").json()
        return found

    def get_parameters(self) -> dict[str, Any]:
        """Return the parameters of the newest job."""
        found: dict[str, Any] = self.get_job()["parameters"]
        return found


def change_reply(context: BrowserContext, path: str, change: Callable[[Any], None]) -> None:
    """Let `change` edit the server's JSON replies to this path before the page reads them."""

    def edit(route: Route) -> None:
        reply = route.fetch()
        body = reply.json()
        change(body)
        route.fulfill(response=reply, json=body)

    context.route(path, edit)


def file_payload(name: str, content: bytes) -> FilePayload:
    """Return a file as if chosen in the file dialog."""
    return {"name": name, "mimeType": "image/png", "buffer": content}


def make_png(colour: str = "red", size: tuple[int, int] = (64, 64)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()
