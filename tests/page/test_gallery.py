"""The gallery: listing, search and actions on pictures."""

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import BrowserContext, expect

from tests.page.crowd import copy_first_job
from tests.page.studio import StudioPage, change_reply
from tests.support.live_server import LiveServer, run_server

MANY = 2_000


@pytest.fixture(scope="module")
def painter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server with three pictures: two of one prompt, one by another model."""
    with run_server(Path(tmp_path_factory.mktemp("gallery")) / "output") as live:
        live.wait_for_status(live.submit(prompt="a red circle", seed=5, negative_prompt="blue"))
        live.wait_for_status(live.submit(prompt="a red square", seed=6, num_images=1))
        live.wait_for_status(live.submit(prompt="a green circle", seed=7, model="flux2-tiny-base"))
        yield live


@pytest.fixture
def gallery(context: BrowserContext, painter: LiveServer) -> Iterator[StudioPage]:
    studio = StudioPage(context, painter, "gallery")
    expect(studio.page.locator(".cell").first).to_be_visible()
    yield studio
    assert studio.troubles == []


def expect_pictures(gallery: StudioPage, *prompts: str) -> None:
    """Expect exactly these pictures in this order."""
    expect(gallery.page.locator(".cell")).to_have_count(len(prompts))
    for at, prompt in enumerate(prompts):
        expect(gallery.page.locator(f".cell[data-at='{at}'] img")).to_have_attribute("alt", prompt)


def test_the_newest_picture_is_first(gallery: StudioPage) -> None:
    expect_pictures(gallery, "a green circle", "a red square", "a red circle")


def test_words_and_models_find_pictures(gallery: StudioPage) -> None:
    gallery.page.get_by_label("Search the prompts").fill("CIRCLE red")
    expect_pictures(gallery, "a red circle")
    gallery.page.get_by_label("Search the prompts").fill("")
    gallery.page.get_by_label("Filter by model").select_option("flux2-tiny-base")
    expect_pictures(gallery, "a green circle")
    gallery.page.get_by_label("Search the prompts").fill("zebra")
    expect(gallery.page.get_by_text("No pictures found")).to_be_visible()


def open_detail(gallery: StudioPage, prompt: str) -> None:
    gallery.page.locator(".cell", has=gallery.page.get_by_alt_text(prompt, exact=True)).last.click()
    expect(gallery.page.locator("dialog h2.prompt")).to_have_text(prompt)


def test_a_picture_says_what_it_was_painted_with(gallery: StudioPage) -> None:
    open_detail(gallery, "a red circle")
    facts = gallery.page.locator("dialog dl")
    for fact in ("64 × 64", "flux2-tiny", "Seed5", "Steps1", "blue"):
        expect(facts).to_contain_text(fact)


def test_arrows_go_from_picture_to_picture_and_escape_goes_back(gallery: StudioPage) -> None:
    gallery.page.locator(".cell").first.focus()
    gallery.page.keyboard.press("End")
    expect(gallery.page.locator(".cell:focus img")).to_have_attribute("alt", "a red circle")
    gallery.page.keyboard.press("ArrowLeft")
    expect(gallery.page.locator(".cell:focus img")).to_have_attribute("alt", "a red square")
    gallery.page.keyboard.press("Enter")
    expect(gallery.page.locator("dialog h2.prompt")).to_have_text("a red square")
    gallery.page.keyboard.press("ArrowRight")
    expect(gallery.page.locator("dialog h2.prompt")).to_have_text("a red circle")
    gallery.page.keyboard.press("Escape")
    expect(gallery.page.locator("dialog.detail")).to_have_count(0)


def test_again_paints_the_same_and_vary_another(gallery: StudioPage, painter: LiveServer) -> None:
    open_detail(gallery, "a red circle")
    gallery.button("Again").click()
    expect(gallery.page.get_by_text("The same picture is in the queue again.")).to_be_visible()
    again = painter.wait_for_status(gallery.get_job()["id"])
    open_detail(gallery, "a red circle")
    gallery.button("Vary").click()
    expect(gallery.page.get_by_text("A variation is in the queue.")).to_be_visible()
    varied = painter.wait_for_status(gallery.get_job()["id"])
    seeds = [dict(job["parameters"])["seed"] for job in (again, varied)]  # type: ignore[call-overload]
    assert seeds[0] == 5
    assert seeds[1] != 5
    expect(gallery.page.locator("output").first).to_have_text("5 pictures")


def test_upscale_makes_it_twice_as_large(gallery: StudioPage, painter: LiveServer) -> None:
    open_detail(gallery, "a red square")
    gallery.button("Upscale 2× to 128 × 128 by repainting with Demo model").click()
    expect(gallery.page.get_by_text(re.compile("The enlarged picture is in the queue"))).to_be_visible()
    done = painter.wait_for_status(gallery.get_job()["id"])
    image = Image.open(io.BytesIO(painter.get(f"/api/v1/jobs/{done['id']}/images/0").content))
    assert image.size == (128, 128)


def test_upscale_names_the_model_for_it_if_one_is_here(context: BrowserContext, painter: LiveServer) -> None:
    def bring_upscaler(body: Any) -> None:
        for model in body["models"]:
            model["downloaded"] |= model["upscaler"]

    change_reply(context, "**/api/v1/models", bring_upscaler)
    gallery = StudioPage(context, painter, "gallery")
    open_detail(gallery, "a red square")
    expect(gallery.button("Upscale 2× to 128 × 128 with SeedVR2 3B")).to_be_visible()


def test_a_picture_goes_back_into_the_form(gallery: StudioPage) -> None:
    open_detail(gallery, "a red square")
    gallery.button("Load into the form").click()
    expect(gallery.page.get_by_label("Prompt", exact=True)).to_have_value("a red square")
    expect(gallery.page.get_by_label("Seed", exact=True)).to_have_value("6")
    expect(gallery.page.get_by_label("Width", exact=True)).to_have_value("64")


def test_a_picture_becomes_the_start_or_a_reference(gallery: StudioPage) -> None:
    open_detail(gallery, "a red square")
    gallery.button("Use as reference").click()
    expect(gallery.page.get_by_text("Reference 1", exact=True)).to_be_visible()
    gallery.open("gallery")
    open_detail(gallery, "a red square")
    gallery.button("Edit this").click()
    expect(gallery.page.get_by_text("Start from this", exact=True)).to_be_visible()


@pytest.mark.parametrize(("label", "kind"), [("PNG", "PNG"), ("JPEG", "JPEG"), ("WebP", "WEBP")])
def test_a_picture_is_downloaded_in_each_format(gallery: StudioPage, label: str, kind: str) -> None:
    open_detail(gallery, "a red square")
    with gallery.page.expect_download() as waiting:
        gallery.button(f"↓ {label}").click()
    assert Image.open(io.BytesIO(waiting.value.path().read_bytes())).format == kind


def test_a_deletion_can_be_undone_and_is_done_when_it_is_not(gallery: StudioPage, painter: LiveServer) -> None:
    job = painter.wait_for_status(painter.submit(prompt="to be deleted"))
    url = f"/api/v1/jobs/{job['id']}/images/0"
    open_detail(gallery, "to be deleted")
    gallery.page.get_by_role("button", name="Delete", exact=True).click()
    expect(gallery.page.get_by_alt_text("to be deleted")).to_have_count(0)
    gallery.button("Undo").click()
    expect(gallery.page.get_by_alt_text("to be deleted")).to_have_count(1)
    assert painter.get(url).status_code == 200
    open_detail(gallery, "to be deleted")
    gallery.page.get_by_role("button", name="Delete", exact=True).click()
    with gallery.page.expect_response(lambda reply: reply.request.method == "DELETE"):
        gallery.button("Dismiss").click()
    assert painter.get(url).status_code == 404
    expect(gallery.page.get_by_alt_text("to be deleted")).to_have_count(0)


def test_a_file_of_this_server_or_of_sdwebui_fills_the_form(gallery: StudioPage, painter: LiveServer) -> None:
    job = painter.get("/api/v1/jobs?limit=200").json()["jobs"][-1]
    content = painter.get(f"/api/v1/jobs/{job['id']}/images/0").content
    gallery.drop(content, "parameters")
    expect(gallery.page.get_by_label("Prompt", exact=True)).to_have_value("a red circle")
    expect(gallery.page.get_by_label("Seed", exact=True)).to_have_value("5")
    expect(gallery.page.get_by_label("Width", exact=True)).to_have_value("64")


def test_of_thousands_only_the_rows_in_sight_are_in_the_page(context: BrowserContext, tmp_path: Path) -> None:
    output = tmp_path / "output"
    with run_server(output) as live:
        live.wait_for_status(live.submit(prompt="one of many"))
        live.stop()
    copy_first_job(output, MANY)
    with run_server(output) as live:
        studio = StudioPage(context, live, "gallery")
        expect(studio.page.locator("output").first).to_have_text(f"{MANY + 1:,} pictures")
        cells = studio.page.locator(".cell")
        expect(cells.first).to_be_visible()
        assert cells.count() < 100
        studio.page.locator(".cell").first.focus()
        for _ in range(12):
            studio.page.locator(".grid").evaluate("(grid) => (grid.scrollTop = grid.scrollHeight)")
            studio.page.wait_for_timeout(100)
        last = studio.page.locator(f".cell[data-at='{MANY}']")
        expect(last).to_be_visible()
        assert cells.count() < 100
