"""The views of models and system, API keys, and messages about missing things."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Route, expect

from tests.page.studio import StudioPage, change_reply
from tests.support.live_server import LiveServer, run_server

KEY = "a-key-for-the-page"


@pytest.fixture
def models(studio: StudioPage) -> StudioPage:
    studio.open("models")
    return studio


def test_a_model_is_loaded_and_let_go(models: StudioPage) -> None:
    models.card("Demo model with guidance").get_by_role("radio", name="4 bits").check()
    models.button("Load flux2-tiny-base-4-bit").click()
    expect(models.page.locator(".legend")).to_contain_text("flux2-tiny-base-4-bit")
    models.button("Unload flux2-tiny-base-4-bit").click()
    expect(models.button("Load flux2-tiny-base-4-bit")).to_be_visible()


def test_a_model_has_one_card_with_all_its_versions(models: StudioPage) -> None:
    rows = models.server.get("/api/v1/models").json()["models"]
    expect(models.page.locator(".card")).to_have_count(len({row["variant_of"] or row["title"] for row in rows}))
    expect(models.page.get_by_role("heading", name="Available for download")).to_be_visible()
    tiny = models.card("Demo model")
    expect(tiny.get_by_role("radio")).to_have_count(5)
    expect(tiny.get_by_role("radio", name=re.compile(r"full, \d+ MB of memory, fits"))).to_be_checked()
    expect(tiny).to_contain_text(re.compile(r"\d+ MB on disk"))
    expect(tiny).to_contain_text(re.compile(r"8 bits\d+ MBfits"))


def test_a_model_that_is_not_here_says_what_it_takes(models: StudioPage) -> None:
    klein = models.card("FLUX.2 [klein] 4B")
    for fact in ("16 GB to download", "Apache-2.0", "4 bits, stored4.6 GB4.4 GBfits"):
        expect(klein).to_contain_text(fact)
    expect(klein).not_to_contain_text("HF_TOKEN")
    dev = models.card("FLUX.2 [dev]")
    expect(dev.get_by_role("radio", name="does not fit on this machine").first).to_be_visible()
    expect(dev.get_by_role("button")).to_have_count(1)
    expect(dev).to_contain_text("Accept first: its licence")
    expect(dev.get_by_role("link")).to_have_attribute("href", "https://huggingface.co/black-forest-labs/FLUX.2-dev")


def test_a_card_leads_to_painting_with_its_version(models: StudioPage) -> None:
    models.card("Demo model").get_by_role("radio", name="8 bits").check()
    models.button("Paint with it: flux2-tiny-8-bit").click()
    expect(models.page.get_by_label("Version of the model")).to_have_value("flux2-tiny-8-bit")


def test_a_download_that_cannot_begin_says_why(context: BrowserContext, tmp_path: Path) -> None:
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0", "MFLUX_MODELS_DIR": str(tmp_path / "models")}
    with run_server(tmp_path / "output", environ=nowhere) as live:
        studio = StudioPage(context, live, "models")
        studio.card("FLUX.2 [klein] 4B").get_by_role("button", name="Download").click()
        expect(studio.page.locator(".card [role=alert]").first).to_be_visible()
        expect(studio.button("Try again").first).to_be_visible()


def test_the_system_is_shown_with_its_plots(studio: StudioPage) -> None:
    studio.server.wait_for_status(studio.server.submit())
    studio.open("system")
    expect(studio.page.locator(".health")).to_contain_text("Engineidle")
    expect(studio.page.locator(".health")).to_contain_text("Chip")
    expect(studio.page.locator(".legend")).to_contain_text("flux2-tiny")
    expect(studio.page.locator(".health")).to_contain_text(re.compile(r"\d+ pictures in \d+ jobs"))
    expect(studio.page.locator(".plot svg")).to_have_count(4)
    expect(studio.page.locator(".plot").first).to_contain_text(re.compile(r"Pictures per hour, last 24 hours: [1-9]"))


def test_a_background_task_that_failed_is_among_the_errors(context: BrowserContext, painter: LiveServer) -> None:
    def fail_one(body: Any) -> None:
        body["tasks"][0].update(error="The disk is full.", restarts=2)

    change_reply(context, "**/api/v1/health", fail_one)
    studio = StudioPage(context, painter, "system")
    errors = studio.page.locator(".errors")
    expect(errors).to_contain_text("The disk is full.")
    expect(errors).to_contain_text("started again 2 times")


def test_a_plot_without_values_says_why(context: BrowserContext, painter: LiveServer) -> None:
    def empty_points(body: Any) -> None:
        for point in body["points"]:
            point.update(pictures=0, seconds_per_picture=None)

    change_reply(context, "**/api/v1/stats/history*", empty_points)
    studio = StudioPage(context, painter, "system")
    expect(studio.page.get_by_text("Nothing painted in the last 24 hours.")).to_be_visible()
    expect(studio.page.get_by_text("Nothing painted in the last 30 days.")).to_have_count(2)


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    output = Path(tmp_path_factory.mktemp("locked")) / "output"
    with run_server(output, "--set", f"security.api_keys=me:{KEY}") as live:
        yield live


def test_a_server_with_keys_asks_for_one_and_works_with_it(context: BrowserContext, locked: LiveServer) -> None:
    page = context.new_page()
    page.goto(locked.url)
    box = page.get_by_label("API key")
    box.get_by_label("API key").fill("a wrong one")
    page.get_by_role("button", name="Open").click()
    expect(box.get_by_label("API key")).to_have_js_property("validationMessage", "The server does not know this key.")
    box.get_by_label("API key").fill(KEY)
    page.get_by_role("button", name="Open").click()
    expect(page.get_by_role("heading", name="This server requires an API key")).to_be_hidden()
    page.close()
    studio = StudioPage(context, locked)
    studio.paint("a red circle behind a lock")
    studio.wait_for_newest("a red circle behind a lock")
    expect(studio.newest).to_have_attribute("src", re.compile("^blob:"))
    assert studio.newest.evaluate("(image) => image.decode().then(() => image.naturalWidth)") == 64
    assert studio.troubles == []


def test_a_key_may_be_put_right_before_the_wrong_one_was_refused(context: BrowserContext, locked: LiveServer) -> None:
    page, asked = context.new_page(), list[Route]()

    def hold(route: Route) -> None:
        asked.append(route)

    page.goto(locked.url)
    box = page.get_by_label("API key").get_by_label("API key")
    box.fill("a wrong one")
    page.route("**/api/v1/queue", hold)
    with page.expect_request("**/api/v1/queue"):
        page.get_by_role("button", name="Open").click()
    box.fill(KEY)
    with page.expect_response("**/api/v1/queue"):
        asked[0].continue_()
    page.unroute("**/api/v1/queue")
    page.get_by_role("button", name="Open").click()
    expect(page.get_by_role("heading", name="This server requires an API key")).to_be_hidden()


def test_what_failed_says_why_and_can_be_tried_again(studio: StudioPage) -> None:
    studio.paint("will be killed", steps=50, side=256)
    expect(studio.page.locator(".status")).to_contain_text("Step")
    for _ in range(2):
        studio.server.engine_processes[0].kill()
        studio.page.wait_for_timeout(1500)
    expect(studio.page.get_by_role("heading", name="The job failed")).to_be_visible()
    studio.open("system")
    expect(studio.page.locator(".errors li").first).to_contain_text("will be killed")
    studio.page.get_by_role("link", name="Paint", exact=True).click()
    studio.button("Try again").click()
    expect(studio.page.locator(".status")).to_contain_text("Step")
    studio.button("Cancel").first.click()
    expect(studio.page.locator(".painting")).to_have_count(0)


def test_a_lack_of_memory_says_what_to_do(context: BrowserContext, tmp_path: Path) -> None:
    with run_server(tmp_path / "output", "--set", "engine.memory_budget_gb=0.05") as live:
        studio = StudioPage(context, live)
        studio.paint("too much for so little", side=512)
        expect(studio.page.get_by_role("alert")).to_contain_text("Choose a smaller size")


def test_the_servers_own_model_paints_where_none_was_chosen(context: BrowserContext, tmp_path: Path) -> None:
    with run_server(tmp_path / "output", "--model", "flux2-tiny-base") as live:
        live.post("/api/v1/models/flux2-tiny/load")
        studio = StudioPage(context, live)
        expect(studio.page.get_by_label("Model", exact=True)).to_have_value("flux2-tiny-base")


@pytest.mark.parametrize("view", ["paint", "gallery", "models", "system"])
def test_nothing_is_wider_than_a_phone(studio: StudioPage, view: str) -> None:
    studio.page.set_viewport_size({"width": 360, "height": 740})
    studio.open(view)
    widths = studio.page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert widths[0] <= widths[1]


def test_keys_go_from_part_to_part(studio: StudioPage) -> None:
    for number, part in enumerate(("Paint", "Gallery", "Models", "System"), start=1):
        studio.page.keyboard.press(f"Alt+{number}")
        expect(studio.page.get_by_role("link", name=part, exact=True)).to_have_attribute("aria-current", "page")
    studio.page.keyboard.press("?")
    expect(studio.page.get_by_role("heading", name="Keyboard shortcuts")).to_be_visible()


def test_progress_is_announced_to_those_who_listen(studio: StudioPage) -> None:
    studio.page.evaluate(
        """() => {
            window.heard = [];
            const status = document.querySelector("p[role=status]");
            new MutationObserver(() => window.heard.push(status.textContent))
                .observe(status, { childList: true, characterData: true, subtree: true });
        }"""
    )
    studio.paint("an announced circle", steps=4)
    studio.wait_for_newest("an announced circle")
    heard = studio.page.evaluate("window.heard")
    assert heard[0] == "Painting begins."
    assert any("percent painted" in each for each in heard)
    assert heard[-1] == "The picture is finished."
