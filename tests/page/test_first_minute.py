"""What a newcomer meets: the focus, examples, the demo model's way to a real one, and a form that survives a reload."""

from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, expect

from tests.page.studio import StudioPage, change_reply, file_payload, make_png
from tests.support.live_server import LiveServer

LARGEST_PAGE = 150_000
REAL = "flux2-klein-4b"
EXAMPLES = {
    "a beautiful sunset over mountains",
    "a large yellow star on a blue background",
    "a house on a green field by day",
    "a red circle next to a blue star",
}
# An open database that fails stands for the private windows of some browsers.
NO_DATABASE = {
    "absent": "Object.defineProperty(window, 'indexedDB', { value: undefined })",
    "refused": "indexedDB.open = () => { throw new DOMException('refused', 'SecurityError'); }",
}


def empty_gallery(body: Any) -> None:
    body.update(pictures=[], next=None, total=0)


def let_all_upsample(body: Any) -> None:
    for model in body["models"]:
        model["capabilities"]["prompt_upsampling"] = True


def upsample_prompt(body: Any) -> None:
    body["parameters"]["upsampled_prompt"] = "a prompt in more words"


def test_the_prompt_has_the_focus(studio: StudioPage) -> None:
    expect(studio.page.get_by_label("Prompt", exact=True)).to_be_focused()


def test_a_finger_opens_no_keyboard_by_itself(browser: Browser, painter: LiveServer) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    studio = StudioPage(context, painter)
    expect(studio.page.get_by_label("Prompt", exact=True)).not_to_be_focused()
    context.close()


def test_with_nothing_painted_a_click_on_an_example_paints_it(context: BrowserContext, painter: LiveServer) -> None:
    change_reply(context, "**/api/v1/pictures?*", empty_gallery)
    studio = StudioPage(context, painter)
    examples = studio.page.locator(".examples button")
    expect(examples).to_have_count(4)
    assert set(examples.all_inner_texts()) == EXAMPLES
    studio.fill_number("Steps, as a number", 1)
    with studio.page.expect_response("**/api/v1/generate") as reply:
        studio.button("a house on a green field by day").click()
    job: Any = painter.wait_for_status(reply.value.json()["job_id"])
    assert (job["status"], job["prompt"]) == ("completed", "a house on a green field by day")
    expect(studio.page.get_by_label("Prompt", exact=True)).to_have_value("a house on a green field by day")


def test_examples_are_those_of_the_chosen_model(context: BrowserContext, painter: LiveServer) -> None:
    change_reply(context, "**/api/v1/pictures?*", empty_gallery)
    studio = StudioPage(context, painter)
    studio.page.get_by_label("Model", exact=True).select_option(REAL)
    expect(studio.button("a red fox in fresh snow")).to_be_visible()
    expect(studio.button("a house on a green field by day")).to_have_count(0)


def test_the_demo_model_says_so_and_leads_to_a_real_one(studio: StudioPage) -> None:
    about = studio.page.locator("#about-model")
    expect(about).to_contain_text("This is the demo model. Get FLUX.2 [klein] 4B: 16 GB, Apache-2.0.")
    about.get_by_role("link").click()
    card = studio.card("FLUX.2 [klein] 4B")
    expect(card).to_be_in_viewport()
    expect(card).to_have_class("card wanted")
    expect(card.get_by_role("button", name="Download")).to_be_visible()
    demo = studio.card("Demo model")
    expect(demo).to_contain_text("Demo model: paints coloured shapes and simple landscapes")
    expect(demo.get_by_role("link", name="FLUX.2 [klein] 4B")).to_be_visible()


def test_the_form_asks_for_the_model_and_then_for_its_version(studio: StudioPage) -> None:
    model, version = studio.page.get_by_label("Model", exact=True), studio.page.get_by_label("Version of the model")
    model.select_option("flux2-tiny-base")
    expect(version).to_have_value("flux2-tiny-base")
    version.select_option("flux2-tiny-base-8-bit")
    expect(model).to_have_value("flux2-tiny-base")
    studio.paint("a picture in 8 bits")
    studio.wait_for_newest("a picture in 8 bits")
    assert studio.get_parameters()["model"] == "flux2-tiny-base-8-bit"


def test_only_models_that_can_upsample_prompts_offer_it(studio: StudioPage) -> None:
    expect(studio.page.get_by_role("switch")).to_have_count(0)
    studio.page.get_by_label("Model", exact=True).select_option(REAL)
    expect(studio.page.get_by_role("switch")).to_be_visible()


def test_the_switch_asks_for_an_upsampled_prompt(context: BrowserContext, painter: LiveServer) -> None:
    change_reply(context, "**/api/v1/models", let_all_upsample)
    studio = StudioPage(context, painter)
    asked = []
    studio.page.on("request", lambda sent: asked.append(sent.post_data_json) if sent.method == "POST" else None)
    studio.paint("as it is written")
    studio.wait_for_newest("as it is written")
    studio.page.get_by_role("switch").check()
    with studio.page.expect_response("**/api/v1/generate"):
        studio.paint("in more words")
    assert [body.get("prompt_upsampling") for body in asked] == [None, True]


def test_what_the_model_wrote_is_shown_with_the_picture(context: BrowserContext, painter: LiveServer) -> None:
    job = painter.wait_for_status(painter.submit(prompt="a short prompt"))
    change_reply(context, f"**/api/v1/jobs/{job['id']}?images=false", upsample_prompt)
    studio = StudioPage(context, painter)
    studio.wait_for_newest("a short prompt")
    studio.page.locator(".finished").click()
    expect(studio.page.locator("dialog dl")).to_contain_text("Upsampled prompta prompt in more words")


def test_pictures_of_the_form_survive_a_reload_and_are_forgotten_with_it(studio: StudioPage) -> None:
    studio.choose(file_payload("red.png", make_png()), file_payload("blue.png", make_png("blue")))
    expect(studio.page.get_by_text("Reference 1", exact=True)).to_be_visible()
    studio.page.reload()
    expect(studio.page.get_by_text("Start from this", exact=True)).to_be_visible()
    expect(studio.page.get_by_text("Reference 1", exact=True)).to_be_visible()
    studio.paint("from a kept picture")
    studio.wait_for_newest("from a kept picture")
    assert studio.get_job()["inputs"]["source"]
    assert studio.get_parameters()["references"] == 1
    studio.button("Clear the form").click()
    expect(studio.page.get_by_text("Start from this", exact=True)).to_have_count(0)
    expect(studio.page.get_by_label("Prompt", exact=True)).to_have_value("")
    expect(studio.page.get_by_label("Width", exact=True)).to_have_value("256")
    studio.open()
    studio.page.reload()
    expect(studio.page.get_by_label("Width", exact=True)).to_have_value("256")
    expect(studio.page.locator(".source")).to_have_count(0)


@pytest.mark.parametrize("database", NO_DATABASE)
def test_without_a_database_the_page_only_forgets_pictures(
    context: BrowserContext, painter: LiveServer, database: str
) -> None:
    context.add_init_script(NO_DATABASE[database])
    studio = StudioPage(context, painter)
    studio.choose(file_payload("red.png", make_png()))
    studio.paint("without a database")
    studio.wait_for_newest("without a database")
    assert studio.get_job()["inputs"]["source"]
    studio.page.reload()
    expect(studio.page.get_by_label("Prompt", exact=True)).to_have_value("without a database")
    expect(studio.page.locator(".source")).to_have_count(0)
    assert studio.troubles == []


def test_the_page_is_small(studio: StudioPage) -> None:
    sizes = studio.page.evaluate(
        "[...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]"
        ".filter((each) => !each.name.includes('/api/')).map((each) => each.decodedBodySize)"
    )
    assert len(sizes) > 10
    assert sum(sizes) <= LARGEST_PAGE
