"""Painting on the page: form, progress, inputs and errors."""

import re
import signal
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, expect

from mflux_api.engine.model import Model
from tests.engine.flux2.test_lora import factors, write
from tests.page.studio import StudioPage, file_payload, make_png
from tests.support.live_server import run_server

LONG = {"steps": 50, "side": 256}


def test_a_picture_is_painted_and_shown(studio: StudioPage) -> None:
    studio.paint("a red circle on a white background")
    studio.wait_for_newest("a red circle on a white background")
    parameters = studio.get_parameters()
    chosen = {name: parameters[name] for name in ("width", "height", "steps", "model", "num_images")}
    assert chosen == {"width": 64, "height": 64, "steps": 1, "model": "flux2-tiny", "num_images": 1}


def test_the_picture_sharpens_while_the_progress_moves_and_can_be_cancelled(studio: StudioPage) -> None:
    studio.paint("a blue square", **LONG)
    expect(studio.page.locator(".status")).to_contain_text(re.compile(r"Step \d+ of 50"))
    preview = studio.page.locator(".frame img")
    expect(preview).to_have_attribute("src", re.compile("^data:image/png"))
    first, share = preview.get_attribute("src"), studio.page.locator("progress").get_attribute("value")
    expect(preview).not_to_have_attribute("src", first or "")
    expect(studio.page.locator("progress")).not_to_have_attribute("value", share or "")
    studio.button("Cancel").first.click()
    expect(studio.page.locator(".painting")).to_have_count(0)
    assert studio.get_job()["status"] == "cancelled"


def test_keys_alone_paint_and_cancel(studio: StudioPage) -> None:
    studio.fill("a green triangle", **LONG)
    studio.page.keyboard.press("/")
    studio.page.get_by_label("Prompt", exact=True).focus()
    studio.page.keyboard.press("Control+Enter")
    expect(studio.page.locator(".painting")).to_be_visible()
    studio.page.keyboard.press("Escape")
    expect(studio.page.locator(".painting")).to_have_count(0)
    assert studio.get_job()["status"] == "cancelled"


def test_a_reload_in_the_middle_of_a_job_shows_it_go_on(studio: StudioPage) -> None:
    studio.paint("a yellow star", **LONG)
    expect(studio.page.locator(".status")).to_contain_text("Step")
    studio.page.reload()
    expect(studio.page.locator(".painting .prompt")).to_have_text("a yellow star")
    expect(studio.page.locator(".status")).to_contain_text(re.compile(r"Step \d+ of 50"))
    expect(studio.page.get_by_label("Prompt", exact=True)).to_have_value("a yellow star")
    studio.page.keyboard.press("Escape")
    expect(studio.page.locator(".painting")).to_have_count(0)


def test_a_restart_of_the_server_in_the_middle_of_a_job_is_survived(context: BrowserContext, tmp_path: Path) -> None:
    output = tmp_path / "output"
    with run_server(output) as first:
        studio = StudioPage(context, first)
        studio.paint("a purple circle", steps=30, side=128)
        expect(studio.page.locator(".status")).to_contain_text("Step")
        port = first.url.rpartition(":")[2]
        first.process.send_signal(signal.SIGKILL)
        expect(studio.page.get_by_role("alert")).to_contain_text("The server does not answer")
    with run_server(output, "--port", port):
        studio.wait_for_newest("a purple circle")
        expect(studio.page.get_by_role("alert")).to_have_count(0)


def test_jobs_in_the_queue_are_reordered_cancelled_and_held_back(studio: StudioPage) -> None:
    studio.server.post("/api/v1/queue/pause")
    for prompt in ("first", "second", "third"):
        studio.paint(prompt)
        expect(studio.page.locator(".queue li .prompt").last).to_have_text(prompt)
    studio.button("Move “third” up").click()
    expect(studio.page.locator(".queue li .prompt")).to_have_text(["first", "third", "second"])
    studio.button("Cancel “first”").click()
    expect(studio.page.locator(".queue li .prompt")).to_have_text(["third", "second"])
    studio.button("Resume").click()
    studio.wait_for_newest("second")
    assert studio.get_job(2)["status"] == "cancelled"


def test_a_model_with_guidance_takes_words_to_paint_away_from(studio: StudioPage) -> None:
    studio.page.get_by_label("Model", exact=True).select_option("flux2-tiny-base")
    studio.page.get_by_label("Negative prompt").fill("people")
    studio.fill_number("Guidance, as a number", 3.5)
    studio.paint("a quiet beach")
    studio.wait_for_newest("a quiet beach")
    parameters = studio.get_parameters()
    assert (parameters["negative_prompt"], parameters["guidance"]) == ("people", 3.5)
    studio.page.get_by_label("Model", exact=True).select_option("flux2-tiny")
    expect(studio.page.get_by_label("Negative prompt")).to_have_count(0)


def test_a_model_that_only_enlarges_is_asked_for_nothing_it_has_no_use_for(studio: StudioPage) -> None:
    studio.choose(file_payload("start.png", make_png()))
    asked = [studio.page.get_by_label("Steps, as a number"), studio.button("Paint a mask")]
    asked.append(studio.page.get_by_role("group", name="LoRAs"))
    for model, count in (("flux2-tiny", 1), ("seedvr2", 0), ("flux2-tiny", 1)):
        studio.page.get_by_label("Model", exact=True).select_option(model)
        for each in asked:
            expect(each).to_have_count(count)


def test_a_number_that_is_being_typed_survives_the_end_of_a_job(studio: StudioPage) -> None:
    width = studio.page.get_by_label("Width", exact=True)
    width.fill("12")
    with studio.page.expect_response("**/api/v1/models"):
        studio.server.submit(prompt="from elsewhere")
    studio.wait_for_newest("from elsewhere")
    # Let the page redraw the form after the new list of models.
    studio.page.evaluate("() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
    expect(width).to_have_value("12")
    width.press_sequentially("8")
    width.press("Tab")
    expect(width).to_have_value("128")


def test_a_number_taken_back_makes_way_for_what_is_chosen_next(studio: StudioPage) -> None:
    width = studio.page.get_by_label("Width", exact=True)
    width.fill("25")
    width.fill("256")
    width.press("Tab")
    studio.page.get_by_label("Area").select_option("512²")
    expect(width).to_have_value("512")


def test_a_locked_seed_stays_and_the_dice_throws_another(studio: StudioPage) -> None:
    studio.fill_number("Seed", 41)
    studio.paint("a locked seed")
    studio.wait_for_newest("a locked seed")
    expect(studio.page.get_by_label("Seed", exact=True)).to_have_value("41")
    studio.button("Keep this seed").click()
    studio.paint("another seed")
    studio.wait_for_newest("another seed")
    expect(studio.page.get_by_label("Seed", exact=True)).not_to_have_value("41")


def test_shapes_areas_and_the_corner_of_the_canvas_set_the_size(studio: StudioPage) -> None:
    width, height = (studio.page.get_by_label(name, exact=True) for name in ("Width", "Height"))
    studio.page.get_by_label("Area").select_option("512")
    studio.button("16:9").first.click()
    expect(width).to_have_value("688")
    expect(height).to_have_value("384")
    studio.button("Swap").click()
    expect(width).to_have_value("384")
    studio.page.locator(".corner").press("ArrowRight")
    expect(width).to_have_value("400")
    box = studio.page.locator(".pad").bounding_box()
    assert box is not None
    studio.page.mouse.move(box["x"] + 20, box["y"] + 20)
    studio.page.mouse.down()
    studio.page.mouse.move(box["x"] + 64, box["y"] + 32)
    studio.page.mouse.up()
    expect(width).to_have_value("768")
    expect(height).to_have_value("384")


def test_a_file_is_repainted_by_as_much_as_the_slider_says(studio: StudioPage) -> None:
    studio.choose(file_payload("red.png", make_png()))
    expect(studio.page.get_by_text("Start from this", exact=True)).to_be_visible()
    studio.fill_number("Change, as a number", 0.5)
    studio.paint("a blue circle", steps=2)
    studio.wait_for_newest("a blue circle")
    parameters = studio.get_parameters()
    assert parameters["image_strength"] == 0.5


def test_a_brush_marks_what_may_change(studio: StudioPage) -> None:
    studio.choose(file_payload("red.png", make_png(size=(128, 128))))
    studio.button("Paint a mask").click()
    studio.fill_number("Brush, as a number", 32)
    box = studio.page.locator(".easel canvas").bounding_box()
    assert box is not None
    tenth = box["y"] + box["height"] / 10
    studio.page.mouse.move(box["x"] + 5, tenth)
    studio.page.mouse.down()
    studio.page.mouse.move(box["x"] + box["width"] - 5, tenth, steps=5)
    studio.page.mouse.up()
    studio.button("Use this mask").click()
    expect(studio.page.get_by_text("Only the painted part changes.")).to_be_visible()
    studio.fill_number("Change, as a number", 1)
    studio.paint("a blue background", steps=2, side=128)
    studio.wait_for_newest("a blue background")
    below = studio.page.evaluate(
        """async (url) => {
            const bitmap = await createImageBitmap(await (await fetch(url)).blob());
            const pen = new OffscreenCanvas(128, 128).getContext("2d");
            pen.drawImage(bitmap, 0, 0);
            return [...pen.getImageData(64, 110, 1, 1).data, ...pen.getImageData(64, 10, 1, 1).data];
        }""",
        studio.newest.get_attribute("src"),
    )
    assert below[:3] == [255, 0, 0], "what was not painted over has not changed"
    assert below[4:7] != [255, 0, 0], "what was painted over has"


def test_references_are_looked_at(studio: StudioPage) -> None:
    studio.choose(file_payload("red.png", make_png()), file_payload("blue.png", make_png("blue")))
    studio.button("Use as reference").click()
    expect(studio.page.get_by_text("Reference 2", exact=True)).to_be_visible()
    studio.paint("both of them")
    studio.wait_for_newest("both of them")
    parameters = studio.get_parameters()
    assert parameters["references"] == 2


def test_a_prompt_is_never_read_as_html(studio: StudioPage) -> None:
    prompt = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    studio.paint(prompt)
    studio.wait_for_newest(prompt)
    studio.page.locator(".finished").click()
    expect(studio.page.locator("dialog h2.prompt")).to_have_text(prompt)
    assert studio.page.title() == "Studio"
    assert studio.page.locator("img[src=x]").count() == 0


@pytest.mark.parametrize("role", ["start", "reference"])
def test_a_picture_may_be_dropped(studio: StudioPage, role: str) -> None:
    studio.drop(make_png(), role)
    name = {"start": "Start from this", "reference": "Reference 1"}[role]
    expect(studio.page.get_by_text(name, exact=True)).to_be_visible()
    expect(studio.page.locator(".zones")).to_be_hidden()


def test_what_is_no_picture_is_told(studio: StudioPage) -> None:
    studio.choose(file_payload("words.png", b"words"))
    expect(studio.page.get_by_text("words.png cannot be read as a picture.")).to_be_visible()


def test_a_refusal_of_the_server_is_shown(studio: StudioPage) -> None:
    studio.paint("too large", side=4096)
    expect(studio.page.locator(".toast.error")).to_be_visible()


def test_without_words_nothing_is_ordered(studio: StudioPage) -> None:
    studio.button("Paint").first.click()
    expect(studio.page.get_by_text("Enter a prompt first.")).to_be_visible()
    expect(studio.page.locator(".painting")).to_have_count(0)


def test_pictures_may_be_pasted(studio: StudioPage) -> None:
    studio.page.evaluate(
        """(bytes) => {
            const clipboardData = new DataTransfer();
            clipboardData.items.add(new File([new Uint8Array(bytes)], "pasted.png", { type: "image/png" }));
            document.body.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true }));
        }""",
        list(make_png()),
    )
    expect(studio.page.get_by_text("Start from this", exact=True)).to_be_visible()


def test_adapters_are_put_on_with_a_weight(context: BrowserContext, tiny: Model, tmp_path: Path) -> None:
    (tmp_path / "loras").mkdir()
    write(tmp_path / "loras" / "warm.safetensors", factors(tiny))
    with run_server(tmp_path / "output", "--set", f"models.lora_dir={tmp_path / 'loras'}") as live:
        studio = StudioPage(context, live)
        studio.page.get_by_label("Add a LoRA").select_option("warm")
        studio.fill_number("warm, as a number", 0.5)
        studio.paint("a circle in warm colours")
        studio.wait_for_newest("a circle in warm colours")
        assert studio.get_parameters()["loras"] == [{"name": "warm.safetensors", "scale": 0.5}]
        studio.button("Remove warm").click()
        studio.paint("without it")
        studio.wait_for_newest("without it")
        assert studio.get_parameters()["loras"] == []
