"""`chat`: an interactive prompt loop with the commands of the FLUX.2 web server's own loop."""

import argparse
import random
import re
import secrets
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mflux_api.errors import InvalidRequest, MfluxError

if TYPE_CHECKING:
    from mflux_api.engine.model import Model
    from mflux_api.ipc.messages import Picture

HELP = """quit, q          leave                        same, s         repeat the last prompt with a new seed
reseed NUMBER    repeat it with this seed     /steps N        set the number of steps
/square /portrait /landscape /16:9   shape    /1k /2k /4k     size; both work inside a prompt too
"""
SHAPES = {"/square": (1024, 1024), "/portrait": (768, 1344), "/landscape": (1344, 768), "/16:9": (1360, 768)}
SCALES = {"/1k": 1, "/2k": 2, "/4k": 4}
STEPS = re.compile(r"/steps\s+(\d{1,3})")
RESEED = re.compile(r"reseed\s+(\d{1,20})")
MODIFIER = re.compile(r"(?:^|(?<=\s))(/\S+)(?=\s|$)")
AGAIN, END = {"same", "s"}, {"quit", "q"}


@dataclass(frozen=True)
class ChatState:
    """Parameters of the next picture. `raw`: the prompt as typed; `scale`: factor on `shape`."""

    steps: int
    shape: tuple[int, int]
    scale: int = 1
    raw: str = ""
    prompt: str = ""
    seed: int | None = None

    @property
    def size(self) -> tuple[int, int]:
        return self.shape[0] * self.scale, self.shape[1] * self.scale


def parse_line(line: str, choices: ChatState) -> tuple[ChatState, bool]:
    """Interpret a line: return the new choices, and whether to paint. Raises InvalidRequest, and EOFError to leave."""
    words = line.strip()
    if words.lower() in END:
        raise EOFError
    if match := STEPS.fullmatch(words):
        return replace(choices, steps=int(match[1])), False
    if words.lower() in AGAIN or (match := RESEED.fullmatch(words)):
        if not choices.prompt:
            raise InvalidRequest("There is no prompt yet.", field="prompt")
        return replace(choices, seed=None if words.lower() in AGAIN else int(words.split()[1])), True
    return _parse_prompt(words, choices)


def _parse_prompt(words: str, choices: ChatState) -> tuple[ChatState, bool]:
    """Interpret a prompt and the modifiers in it. Modifiers alone change the choices without painting."""
    for word in MODIFIER.findall(words):
        if word in SHAPES:
            choices = replace(choices, shape=SHAPES[word])
        elif word in SCALES:
            choices = replace(choices, scale=SCALES[word])
        elif words.startswith(word):
            raise InvalidRequest(f"There is no command {word}.\n{HELP}", field="prompt")
    prompt = " ".join(MODIFIER.sub(_drop_modifier, words).split())
    if not prompt:
        return choices, False
    return replace(choices, raw=words, prompt=prompt, seed=None), True


def _drop_modifier(match: "re.Match[str]") -> str:
    return "" if match[0] in SHAPES or match[0] in SCALES else match[0]


def chat(arguments: argparse.Namespace, ask: Callable[[str], str] = input) -> None:
    """Ask for prompts and paint them until the user leaves."""
    from mflux_api.commands.generate import load_from_arguments

    model = load_from_arguments(arguments)
    steps = arguments.steps if arguments.steps is not None else model.spec.capabilities.default_steps
    choices = ChatState(steps=steps, shape=_default_shape(model.spec.capabilities.native_side))
    print(HELP, file=sys.stderr)
    while True:
        try:
            choices, wanted = parse_line(ask("Prompt: "), choices)
            if wanted:
                print(_paint(model, choices, arguments.output), flush=True)
            else:
                width, height = choices.size
                print(f"{width}x{height}, {choices.steps} steps", file=sys.stderr)
        except EOFError:
            return
        except MfluxError as error:
            print(error.message, file=sys.stderr)


def _default_shape(side: int) -> tuple[int, int]:
    """Return the first picture's size: landscape, or for a smaller model the square it was trained on."""
    return SHAPES["/landscape"] if side >= 1024 else (side, side)


def _paint(model: "Model", choices: ChatState, folder: Path) -> Path:
    """Paint a picture, and store it with its `.prompt` file. The model caches the prompt's embedding for `same`."""
    seed = choices.seed if choices.seed is not None else random.randrange(2**32)
    width, height = choices.size
    picture = model.generate(choices.prompt, width=width, height=height, steps=choices.steps, seeds=[seed])[0]
    return _save_picture(model, picture, choices, folder)


def _save_picture(model: "Model", picture: "Picture", choices: ChatState, folder: Path) -> Path:
    from mflux_api.engine.metadata import format_generation_text
    from mflux_api.pixels.naming import format_sidecar, make_picture_name
    from mflux_api.pixels.png import encode_png, write_new_file

    facts = {"prompt": choices.prompt, "negative": "", "model": model.spec.name, "bits": model.bits}
    text = format_generation_text(picture, **facts, strength=None)  # type: ignore[arg-type]
    data = encode_png(picture.image, {"parameters": text})
    path = write_new_file(folder / make_picture_name(time.time(), secrets.token_hex(4)), data)
    timings = _format_timings(picture.timings)
    words = format_sidecar(
        raw=choices.raw,
        prompt=choices.prompt,
        size=picture.image.size,
        seed=picture.seed,
        steps=picture.steps,
        timings=picture.timings,
    )
    path.with_suffix(".prompt").write_text(words, encoding="utf-8")
    print(f"seed {picture.seed}, {timings}", file=sys.stderr)
    return path


def _format_timings(timings: Mapping[str, float]) -> str:
    return ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in timings.items())
