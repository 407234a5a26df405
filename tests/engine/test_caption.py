import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mflux_api.engine.metadata import format_generation_text
from mflux_api.ipc.messages import LoraReport, Picture
from mflux_api.pixels import infotext
from mflux_api.request import Hires, InpaintOptions, PaintOptions, Tiles, Variation

HIRES = Hires(width=256, height=128, steps=7, strength=0.4, upscaler="Latent", scale=2.0)
# Without an x: text like 64x32 is read back as two numbers.
words = st.text(st.characters(codec="utf-8", exclude_characters="x"), max_size=40)


def make_picture(guidance: float = 2.5, lora: str = "/home/me/loras/oil.safetensors") -> Picture:
    return Picture(
        image=Image.new("RGB", (128, 64)),
        array=np.zeros((64, 128, 3), np.float32),
        seed=42,
        timings={},
        steps=4,
        guidance=guidance,
        loras=(LoraReport(path=lora, scale=0.8, layers=1, keys=2, total_keys=2),),
    )


def text_of(picture: Picture | None = None, **changes: Any) -> str:
    usual = {"prompt": "a fox", "negative": "blue", "model": "m", "bits": None, "strength": None}
    return format_generation_text(picture or make_picture(), **{**usual, **changes})


def facts(**changes: Any) -> dict[str, str]:
    return infotext.parse_infotext(text_of(**changes))


def test_the_generation_data_holds_what_was_used_and_no_path() -> None:
    text = text_of(bits=4, strength=0.75)
    first, second, third = text.split("\n")
    assert (first, second) == ("a fox", "Negative prompt: blue")
    assert third.startswith("Steps: 4, Sampler: Euler, CFG scale: 2.5, Seed: 42, Size: 128x64, Model: m, ")
    assert 'Denoising strength: 0.75, Quantized: 4 bits, Lora: "oil:0.8", Version: mflux-api ' in third
    assert "/home" not in text


def test_a_negative_prompt_that_was_not_used_is_not_claimed() -> None:
    text = text_of(make_picture(1.0))
    assert "blue" not in text
    assert "Denoising" not in text


def test_the_size_is_the_one_that_was_asked_for() -> None:
    assert facts(size=(72, 88), model_hash="0123456789")["Size-1"] == "72"
    assert "Size: 72x88, Model hash: 0123456789, Model: m" in text_of(size=(72, 88), model_hash="0123456789")


def test_a_plain_picture_claims_nothing_of_what_was_not_done() -> None:
    text = text_of(options=PaintOptions())
    for word in ("Variation", "Mask", "Inpaint", "Hires", "SD upscale", "Denoising", "hashes"):
        assert word not in text


# Fields that paint options add


@pytest.mark.parametrize(("index", "seed"), [(0, "9"), (2, "11")])
def test_each_picture_names_its_own_variation(index: int, seed: str) -> None:
    found = facts(options=PaintOptions(variation=Variation(seed=9, strength=0.25)), index=index)
    assert (found["Variation seed"], found["Variation seed strength"]) == (seed, "0.25")


@pytest.mark.parametrize(
    ("retouch", "expected", "absent"),
    [
        (
            InpaintOptions(),
            {"Masked content": "original", "Mask blur": "0"},
            ["Mask blur y", "Mask mode", "Inpaint area"],
        ),
        (InpaintOptions(blur=(4.0, 2.5)), {"Mask blur": "4", "Mask blur y": "2.5"}, []),
        (InpaintOptions(fill="surroundings"), {"Masked content": "fill"}, []),
        (
            InpaintOptions(fill="noise", invert=True),
            {"Masked content": "latent noise", "Mask mode": "Inpaint not masked"},
            [],
        ),
        (InpaintOptions(fill="zero"), {"Masked content": "latent nothing"}, []),
        (InpaintOptions(closeup=0), {"Inpaint area": "Only masked", "Masked area padding": "0"}, []),
        (InpaintOptions(closeup=32), {"Inpaint area": "Only masked", "Masked area padding": "32"}, []),
    ],
)
def test_a_retouched_part_is_described(retouch: InpaintOptions, expected: dict[str, str], absent: list[str]) -> None:
    found = facts(options=PaintOptions(retouch=retouch), masked=True, strength=0.75)
    assert {name: found.get(name) for name in expected} == expected
    assert not found.keys() & {*absent}
    assert "Masked content" not in text_of(options=PaintOptions(retouch=retouch), strength=0.75)


def test_a_hires_pass_is_described_by_its_factor_or_by_its_size() -> None:
    by_factor, by_size = (
        facts(options=PaintOptions(hires=HIRES)),
        facts(options=PaintOptions(hires=replace(HIRES, resized=True))),
    )
    assert (by_factor["Hires upscale"], by_factor["Hires steps"], by_factor["Hires upscaler"]) == ("2", "7", "Latent")
    assert by_factor["Denoising strength"] == "0.4"
    assert "Hires upscale" not in by_size
    assert "Hires resize: 256x128" in text_of(options=PaintOptions(hires=replace(HIRES, resized=True)))
    assert not {"Hires resize-1", "Hires resize"} & by_factor.keys()


def test_a_hires_pass_with_prompts_of_its_own_says_them() -> None:
    found = facts(options=PaintOptions(hires=replace(HIRES, prompt="a fox, fur", negative_prompt="grey: dull")))
    assert (found["Hires prompt"], found["Hires negative prompt"]) == ("a fox, fur", "grey: dull")


def test_tiles_are_described() -> None:
    found = facts(options=PaintOptions(tiles=Tiles(scale=2.0, overlap=64, upscaler="Lanczos")), strength=0.3)
    assert (found["SD upscale overlap"], found["SD upscale upscaler"]) == ("64", "Lanczos")


# The prompt as written


def test_prompts_are_repeated_as_they_were_written() -> None:
    craft = PaintOptions(said=("a [fox:wolf:2] <lora:oil:0.8>", "(blue:1.2)"))
    lines = text_of(make_picture(1.0), options=craft).split("\n")
    assert lines[:2] == ["a [fox:wolf:2] <lora:oil:0.8>", "Negative prompt: (blue:1.2)"]


def test_adapters_are_named_with_a_hash_that_follows_their_file(tmp_path: Path) -> None:
    file, said = tmp_path / "oil.safetensors", PaintOptions(said=("a fox", ""))
    for time, content in enumerate((b"first", b"second"), start=1):
        file.write_bytes(content)
        os.utime(file, (time, time))
        text = text_of(make_picture(lora=str(file)), options=said)
        assert facts(picture=make_picture(lora=str(file)), options=said)["Lora hashes"] == (
            f"oil: {hashlib.sha256(content).hexdigest()[:12]}"
        )
        assert str(tmp_path) not in text


def test_an_adapter_that_is_gone_has_no_hash() -> None:
    assert "Lora hashes" not in facts(options=PaintOptions(said=("a fox", "")))


@given(words, words, words, st.builds(InpaintOptions, blur=st.tuples(st.floats(0, 100), st.floats(0, 100))))
def test_whatever_is_said_the_facts_can_be_read_back(
    prompt: str, first: str, second: str, retouch: InpaintOptions
) -> None:
    hires = replace(HIRES, prompt=first, negative_prompt=second)
    text = text_of(prompt=prompt, negative="", options=PaintOptions(hires=hires, retouch=retouch), masked=True)
    found = infotext.parse_infotext(text)
    assert (found["Steps"], found["Seed"], found["Model"]) == ("4", "42", "m")
    assert (found["Hires prompt"], found["Hires negative prompt"]) == (first, second)
