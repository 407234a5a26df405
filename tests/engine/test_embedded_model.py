"""The embedded model: its size, its files, and whether its pictures match their prompts."""

import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from mflux_api.engine.model import Model
from mflux_api.ipc.messages import Picture, Preview
from mflux_api.models.registry import EMBEDDED_MODELS_DIR
from tests.support.paths import ROOT

FOLDER = EMBEDDED_MODELS_DIR / "flux2-tiny"
MEBIBYTE = 1024**2
# Minimum per cent right over 24 captions. The model card has the figures over 300.
FLOORS = {"background": 85, "colour": 85, "shape": 85, "place": 85, "time": 80}


def test_it_takes_at_most_16_megabytes() -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) <= 16 * MEBIBYTE


def test_it_lies_as_published_checkpoints_do() -> None:
    published = {"transformer", "text_encoder", "vae", "tokenizer", "scheduler", "model_index.json"}
    assert published <= {path.name for path in FOLDER.iterdir()}


def score(*arguments: str) -> dict[str, float]:
    """Return the per cent right of each property that the judge checks."""
    script = ROOT / "tools" / "embedded_model" / "score.py"
    command = [sys.executable, str(script), *arguments]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=True)
    return {name.strip(): float(right) for name, right in re.findall(r"^(.+?) +([\d.]+) %", run.stdout, re.MULTILINE)}


def test_the_judge_finds_the_grammars_own_drawings_right() -> None:
    assert all(right == 100 for right in score("drawings", "--count", "60").values())


@pytest.mark.slow
def test_it_paints_what_captions_it_never_saw_ask_for() -> None:
    found = score("project", "--model", "flux2-tiny", "--count", "24", "--wording", "plain")
    assert {name: found[name] for name in FLOORS if found[name] < FLOORS[name]} == {}


def mean_colour(image: Image.Image) -> tuple[float, float, float]:
    red, green, blue = np.asarray(image, np.float32).mean(axis=(0, 1)) / 255
    return float(red), float(green), float(blue)


@pytest.mark.parametrize("words", ["zxqv blorf", "daguerreotype of"])
def test_words_it_never_saw_do_not_break_it(tiny: Model, words: str) -> None:
    prompt = f"{words} a red circle on a yellow background"
    red, green, blue = mean_colour(tiny.generate(prompt, width=128, height=128, steps=4, seeds=(1,))[0].image)
    assert red > 0.8
    assert green > 2 * blue


def test_a_sunset_is_warmer_than_a_night(tiny: Model) -> None:
    sunset, night = (
        mean_colour(tiny.generate(prompt, width=128, height=128, steps=4, seeds=(1,))[0].image)
        for prompt in ("a beautiful sunset over mountains", "a night over mountains")
    )
    assert sunset[0] > sunset[2] + 0.1
    assert sum(night) < 0.6 * sum(sunset)


def test_its_previews_look_like_the_picture(tiny: Model) -> None:
    previews: list[Preview] = []
    pictures: list[Picture] = tiny.generate(
        "a beautiful sunset over mountains",
        width=128,
        height=128,
        steps=4,
        seeds=(1,),
        on_event=lambda event: previews.append(event) if isinstance(event, Preview) else None,
    )
    last = np.asarray(previews[-1].image, np.float32)
    small = np.asarray(pictures[0].image.resize((16, 16), Image.Resampling.BOX), np.float32)
    assert np.corrcoef(last.ravel(), small.ravel())[0, 1] > 0.85
