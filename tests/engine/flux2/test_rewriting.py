"""Prompt upsampling: the chat, the use of the answer, the events and the memory."""

import gc
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image

from mflux_api.cli import main
from mflux_api.engine.flux2 import prompt_upsampling
from mflux_api.engine.flux2.prompt_upsampling import (
    EDIT_INSTRUCTION,
    INSTRUCTION,
    read_stop_tokens,
    tidy_answer,
    upsample_prompt,
)
from mflux_api.engine.metadata import format_generation_text
from mflux_api.engine.model import Model, load_model
from mflux_api.engine.passes import paint
from mflux_api.errors import ModelUnsupported
from mflux_api.ipc.messages import PaintingEvent, Picture, Step, UpsamplingProgress
from mflux_api.pixels import infotext
from tests.support.marks import slow_but
from tests.support.painting import FakePainter, make_request, paint_blank
from tests.support.paths import CHECKPOINTS

KLEIN = CHECKPOINTS / "klein"
SMALL: dict[str, Any] = {"width": 64, "height": 64, "steps": 2, "seeds": (3,)}
PROMPT = "a red circle"
# Bytes. The language model beyond the text encoder takes 110,000; its key-value cache takes 3 million.
SPARE = 20_000


class FakeWriter:
    """A text generator that returns a fixed text for every prompt."""

    def __init__(self, model: Model, text: str) -> None:
        self.tokenizer = model.pipeline.prompt_encoder.chat_template.tokenizer
        self.ids: list[int] = self.tokenizer(text)["input_ids"]
        self.asked: list[str] = []

    def generate_tokens(self, ids: list[int], stops: frozenset[int], limit: int) -> Iterator[int]:
        self.asked.append(self.tokenizer.decode(ids))
        yield from self.ids[:limit]


@pytest.fixture(autouse=True)
def few_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit the length of answers: random models never emit a stop token."""
    monkeypatch.setattr(prompt_upsampling, "MAX_NEW_TOKENS", 32)


@pytest.fixture(scope="module")
def klein() -> Model:
    return load_model(KLEIN, precision="float32")


@pytest.fixture(scope="module")
def dev() -> Model:
    return load_model(CHECKPOINTS / "dev", precision="float32")


def answer_prompt(
    model: Model, text: str, prompt: str = PROMPT, *, edit: bool = False
) -> tuple[str, FakeWriter, list[UpsamplingProgress]]:
    """Upsample a prompt with a fixed answer; return the new prompt, the fake generator and the progress events."""
    said = FakeWriter(model, text)
    work: Any = upsample_prompt(
        said,  # type: ignore[arg-type]
        model.pipeline.prompt_encoder.chat_template,
        model.pipeline.checkpoint.folder,
        prompt,
        edit=edit,
    )
    heard = []
    while True:
        try:
            heard.append(next(work))
        except StopIteration as end:
            return end.value, said, heard


def paint_rewritten(model: Model, **changes: Any) -> tuple[list[PaintingEvent], Picture]:
    events: list[PaintingEvent] = []
    (picture,) = model.generate(PROMPT, upsample=True, on_event=events.append, **{**SMALL, **changes})
    return events, picture


@pytest.mark.parametrize(("edit", "instruction"), [(False, INSTRUCTION), (True, EDIT_INSTRUCTION)])
def test_it_is_asked_in_the_chat_template_with_thinking_off(klein: Model, edit: bool, instruction: str) -> None:
    _, said, _ = answer_prompt(klein, "x", edit=edit)
    assert said.asked == [
        f"<|im_start|>system\n{instruction}<|im_end|>\n<|im_start|>user\n{PROMPT}<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    ]


def test_dev_is_asked_as_mistral_is_asked_with_one_token_at_the_front(dev: Model) -> None:
    _, said, _ = answer_prompt(dev, "x")
    assert said.asked == [f"<s>[SYSTEM_PROMPT]{INSTRUCTION}[/SYSTEM_PROMPT][INST]{PROMPT}[/INST]"]


def test_work_is_told_from_the_beginning_and_again_after_some_tokens(klein: Model) -> None:
    text = "a red circle above a blue square"
    _, said, heard = answer_prompt(klein, text)
    assert [each.tokens for each in heard] == list(range(0, len(said.ids) + 1, prompt_upsampling.TOKENS_PER_EVENT))


@pytest.mark.parametrize("text", ["", "  \n ", "<think>what?</think>", "<think>what was", "<|im_start|>"])
def test_a_prompt_is_kept_when_nothing_comes_of_it(klein: Model, text: str) -> None:
    assert answer_prompt(klein, text)[0] == PROMPT


def test_a_prompt_that_is_long_already_is_kept_and_nothing_is_asked(klein: Model) -> None:
    long = "a long prompt " * 1000
    new, said, heard = answer_prompt(klein, "x", long)
    assert (new, said.asked, heard) == (long, [], [])


@pytest.mark.parametrize(
    ("text", "whole", "tidy"),
    [
        ("a\n b  c ", True, "a b c"),
        ('"a red circle"', True, "a red circle"),
        ("“a red circle”", True, "a red circle"),
        ('"A" over "B"', True, '"A" over "B"'),
        ("One. Two. Thr", False, "One. Two."),
        ("One. Two. Thr", True, "One. Two. Thr"),
        ("no end", False, "no end"),
        ("no end\ufffd", False, "no end"),
        ('"', True, '"'),
    ],
)
def test_an_answer_is_tidied(text: str, whole: bool, tidy: str) -> None:
    assert tidy_answer(text, whole=whole) == tidy


@pytest.mark.parametrize(("named", "more"), [(None, set()), (7, {7}), ([7, 9], {7, 9})])
def test_it_stops_where_the_tokenizer_and_the_generation_config_say(
    klein: Model, tmp_path: Path, named: Any, more: set[int]
) -> None:
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": named}))
    chat = klein.pipeline.prompt_encoder.chat_template
    assert read_stop_tokens(chat, tmp_path) == {chat.tokenizer.eos_token_id, *more}
    assert read_stop_tokens(chat, tmp_path / "nowhere") == {chat.tokenizer.eos_token_id}


@pytest.mark.parametrize("name", slow_but(["klein", "dev-odd"], "klein"))
def test_a_picture_is_that_of_the_new_prompt_and_knows_it(name: str) -> None:
    model = load_model(CHECKPOINTS / name, precision="float32")
    events, picture = paint_rewritten(model)
    assert picture.prompt not in {None, "", PROMPT}
    assert [type(event) for event in events[:2]] == [UpsamplingProgress, UpsamplingProgress]
    assert [type(event) for event in events if isinstance(event, Step | Picture)] == [Step, Step, Picture]
    (same,) = model.generate(str(picture.prompt), **SMALL)
    np.testing.assert_array_equal(picture.array, same.array)
    assert same.prompt is None


@pytest.mark.slow
def test_a_prompt_is_written_once_and_always_the_same(klein: Model) -> None:
    _, first = paint_rewritten(klein)
    events, again = paint_rewritten(klein)
    assert again.prompt == first.prompt
    assert not any(isinstance(event, UpsamplingProgress) for event in events)
    assert paint_rewritten(load_model(KLEIN, precision="float32"))[1].prompt == first.prompt


@pytest.mark.slow
def test_a_prompt_for_an_edit_is_asked_for_in_other_words(klein: Model) -> None:
    source = Image.linear_gradient("L").convert("RGB").resize((64, 64))
    _, plain = paint_rewritten(klein)
    for changes in ({"image": source}, {"images": [source]}):
        _, edited = paint_rewritten(klein, **changes)
        assert edited.prompt not in {None, plain.prompt}


@pytest.mark.slow
@pytest.mark.parametrize(("quantize", "low_ram"), [(None, False), (8, True)])
def test_what_was_loaded_for_it_is_let_go_again(quantize: int | None, low_ram: bool) -> None:
    model = load_model(KLEIN, quantize=quantize, low_ram=low_ram)
    model.generate(PROMPT, **SMALL)
    before = active_memory()
    paint_rewritten(model)
    # The cache has the embeddings of the old and the new prompt.
    (remembered, *_) = model.pipeline.prompt_encoder.cache._entries.values()
    assert active_memory() <= before + remembered.nbytes + SPARE


def active_memory() -> int:
    gc.collect()
    mx.clear_cache()
    return int(mx.get_active_memory())


@pytest.mark.slow
def test_whoever_stops_while_it_writes_gets_the_memory_back_and_can_go_on() -> None:
    model = load_model(KLEIN)
    before = active_memory()
    painting = paint(model.pipeline, make_request(upsample=True))
    assert isinstance(next(painting), UpsamplingProgress)
    assert isinstance(next(painting), UpsamplingProgress)
    painting.close()
    assert active_memory() <= before + SPARE
    assert paint_rewritten(model)[1].prompt


def test_a_model_without_words_refuses() -> None:
    with pytest.raises(ModelUnsupported, match="prompt_upsampling is not available"):
        paint_blank(FakePainter(), upsample=True)


def test_the_embedded_model_refuses_before_anything_is_computed(tiny: Model) -> None:
    with pytest.raises(ModelUnsupported, match="prompt_upsampling is not available with this model"):
        tiny.generate(PROMPT, upsample=True, **SMALL)


def test_the_text_inside_the_picture_has_the_new_prompt_and_the_old_one(klein: Model) -> None:
    _, picture = paint_rewritten(klein)
    text = format_generation_text(
        picture, prompt="a circle, red: very", negative="", model="x", bits=None, strength=None, original="a, b: c"
    )
    read = infotext.parse_infotext(text)
    assert read["Prompt"] == "a circle, red: very"
    assert read["Original prompt"] == "a, b: c"


def test_a_saved_folder_says_that_it_cannot(tmp_path: Path) -> None:
    load_model(KLEIN).save(tmp_path / "saved")
    shutil.copytree(KLEIN / "tokenizer", tmp_path / "saved" / "tokenizer", dirs_exist_ok=True)
    with pytest.raises(ModelUnsupported, match="only what prompts are read with"):
        load_model(tmp_path / "saved").generate(PROMPT, upsample=True, **SMALL)


@pytest.mark.slow
def test_the_command_line_tells_the_new_prompt_and_names_files_by_the_old_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = ["--size", "64x64", "--steps", "1", "--output", str(tmp_path / "out")]
    assert main(["generate", PROMPT, "--upsample-prompt", "--model", str(KLEIN), "--seed", "3", *output]) == 0
    said = capsys.readouterr()
    assert Path(said.out.strip()).name == "klein_a-red-circle_seed3.png"
    (line,) = [line for line in said.err.splitlines() if line.startswith("prompt: ")]
    with Image.open(said.out.strip()) as picture:
        assert str(picture.info["parameters"]).startswith(line.removeprefix("prompt: "))
    assert main(["generate", PROMPT, "--upsample-prompt", *output]) == 1
    assert "prompt_upsampling is not available" in capsys.readouterr().err
