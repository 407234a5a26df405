"""The prompt loop, with typed lines."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from mflux_api.commands import chat
from mflux_api.commands.chat import ChatState, parse_line
from mflux_api.engine.model import Model
from mflux_api.errors import InvalidRequest
from mflux_api.pixels.naming import NAME

START = ChatState(steps=25, shape=(1344, 768))
BEFORE = ChatState(steps=4, shape=(64, 64), raw="a fox", prompt="a fox", seed=7)


@pytest.mark.parametrize(
    ("line", "size", "prompt"),
    [
        ("a beautiful sunset", (1344, 768), "a beautiful sunset"),
        ("a beautiful sunset /4k /portrait", (3072, 5376), "a beautiful sunset"),
        ("/square a fox", (1024, 1024), "a fox"),
        ("a fox /16:9 in snow /2k", (2720, 1536), "a fox in snow"),
        ("a fox and/or a hare", (1344, 768), "a fox and/or a hare"),
        ("a fox, 1/2 of it /now", (1344, 768), "a fox, 1/2 of it /now"),
    ],
)
def test_modifiers_in_a_prompt_choose_the_size(line: str, size: tuple[int, int], prompt: str) -> None:
    choices, wanted = parse_line(line, START)
    assert (choices.size, choices.prompt, choices.raw, wanted) == (size, prompt, line, True)


@pytest.mark.parametrize(
    ("line", "size", "steps"),
    [
        ("/steps 30", (1344, 768), 30),
        ("/square", (1024, 1024), 25),
        ("/2k", (2688, 1536), 25),
        ("/portrait /2k", (1536, 2688), 25),
        ("  ", (1344, 768), 25),
    ],
)
def test_commands_alone_change_what_comes(line: str, size: tuple[int, int], steps: int) -> None:
    choices, wanted = parse_line(line, START)
    assert (choices.size, choices.steps, wanted) == (size, steps, False)


def test_the_last_prompt_is_painted_again() -> None:
    for word in ("same", "s", "SAME"):
        choices, wanted = parse_line(word, BEFORE)
        assert (choices.prompt, choices.seed, wanted) == ("a fox", None, True)
    choices, wanted = parse_line("reseed 99", BEFORE)
    assert (choices.prompt, choices.seed, wanted) == ("a fox", 99, True)


@pytest.mark.parametrize("line", ["same", "reseed 3", "/nothing", "/huge a fox"])
def test_what_cannot_be_done_is_said(line: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_line(line, START)


@pytest.mark.parametrize("line", ["quit", "q", " Q "])
def test_it_ends_when_told_to(line: str) -> None:
    with pytest.raises(EOFError):
        parse_line(line, START)


def lines(*typed: str) -> Callable[[str], str]:
    left = iter(typed)
    return lambda _: next(left)


def test_each_prompt_leaves_a_picture_and_how_it_was_painted(
    tiny: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mflux_api.commands.generate.load_from_arguments", lambda _: tiny)
    monkeypatch.setitem(chat.SHAPES, "/square", (64, 64))
    from argparse import Namespace

    before = tiny.pipeline.prompt_encoder.cache.hits
    typed = ("/square", "/steps 1", "a red circle\t/square", "reseed 5", "same", "same nothing /huge", "q")
    chat.chat(Namespace(steps=None, output=tmp_path), lines(*typed))
    paths = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert len(paths) == 4
    assert all(NAME.fullmatch(path.name) for path in paths)
    with Image.open(paths[1]) as image:
        assert (image.size, "Seed: 5" in image.info["parameters"]) == ((64, 64), True)
    told = paths[1].with_suffix(".prompt").read_text(encoding="utf-8").splitlines()
    assert told[:5] == [
        "# Raw input: a red circle /square",
        "# Prompt: a red circle",
        "# Dimensions: 64x64",
        "# Seed: 5",
        "# Steps: 1",
    ]
    # The prompt was not encoded again.
    assert tiny.pipeline.prompt_encoder.cache.hits >= before + 2
