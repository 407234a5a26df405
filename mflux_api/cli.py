"""The command line: arguments to commands, errors to one line and an exit code."""

import argparse
import json
import os
import random
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mflux_api.errors import InvalidImage, InvalidRequest, MfluxError

if TYPE_CHECKING:
    from PIL import Image

    from mflux_api.engine.messages import Event, Picture
    from mflux_api.engine.model import Model

OK, FAILED, BAD_INPUT, CANCELLED = 0, 1, 2, 130
WORDS_IN_NAME = 5
LONGEST_NAME = 40
OTHER_FORMATS = {".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"}

# After one flag or repeating it.
SEVERAL: dict[str, Any] = {"action": "extend", "nargs": "+", "default": []}
# Flags of `generate`: what argparse needs, once.
GENERATE: dict[str, dict[str, Any]] = {
    "--model": {"default": "flux2-tiny", "metavar": "NAME|FOLDER", "help": "default: %(default)s, the embedded model"},
    "--size": {"metavar": "WIDTHxHEIGHT", "help": "pixels, multiples of 16 from 64 up, e.g. 512x512"},
    "--steps": {"type": int, "metavar": "N", "help": "denoising steps (default: the model's)"},
    "--seed": {"type": int, "metavar": "N", "help": "the first picture's seed (default: random)"},
    "--n": {"type": int, "default": 1, "metavar": "N", "help": "pictures, of seeds N, N+1, ... (default: 1)"},
    "--guidance": {"type": float, "metavar": "X", "help": "above 1 follows the prompt closer; base models only"},
    "--negative": {"metavar": "TEXT", "help": "what guidance paints away from"},
    "--image": {"type": Path, "metavar": "FILE", "help": "a picture to repaint"},
    "--strength": {"type": float, "default": 0.75, "metavar": "X", "help": "0 keeps it, 1 ignores it (default: 0.75)"},
    "--mask": {"type": Path, "metavar": "FILE", "help": "where to repaint it: white is painted, black kept"},
    "--reference": {"type": Path, **SEVERAL, "metavar": "FILE", "help": "pictures to look at, for an edit"},
    "--lora": {**SEVERAL, "metavar": "NAME:SCALE", "help": "adapters, by name or path"},
    "--quantize": {"type": int, "metavar": "BITS", "help": "weights in 3, 4, 6 or 8 bits"},
    "--precision": {"default": "auto", "metavar": "TYPE", "help": "auto, float32, bfloat16 or float16"},
    "--low-ram": {"action": "store_true", "help": "let go of the text encoder before denoising"},
    "--models-dir": {"type": Path, "default": Path("models"), "metavar": "DIR", "help": "default: %(default)s"},
    "--output": {"type": Path, "default": Path("output"), "metavar": "DIR|FILE", "help": "default: %(default)s"},
}


def main(argv: Sequence[str]) -> int:
    """Run a command and return its exit code: 0 done, 1 failed, 2 bad input, 130 cancelled."""
    arguments = _parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        return command(arguments)
    except MfluxError as error:
        return _refuse(error, error.message, debug=arguments.debug)
    except KeyboardInterrupt:
        print("Cancelled.", file=sys.stderr)
        return CANCELLED
    except BrokenPipeError:
        # Whoever read our lines has gone; there is nobody left to tell.
        return FAILED
    except OSError as error:
        return _refuse(error, f"{error.filename}: {error.strerror}", debug=arguments.debug)


def _refuse(error: Exception, message: str, *, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    # A path may hold a line break; the message is one line whatever it quotes.
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return BAD_INPUT if isinstance(error, InvalidRequest) else FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mflux_api", description="FLUX.2 on MLX.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    # argparse would write the prompt last, where --reference and --lora take it for one of theirs.
    usage = "mflux_api generate PROMPT [OPTION ...]"
    painting = commands.add_parser("generate", help="paint pictures of a prompt", usage=usage)
    painting.add_argument("prompt")
    for flag, options in GENERATE.items():
        painting.add_argument(flag, **options)
    painting.set_defaults(command=generate)
    listing = commands.add_parser("models", help="list the models and which of them are on this machine")
    listing.add_argument("--models-dir", **GENERATE["--models-dir"])
    listing.set_defaults(command=models)
    saving = commands.add_parser("save", help="write a model, quantized, to a folder that loads without quantizing")
    saving.add_argument("folder", type=Path)
    for flag in ("--model", "--quantize", "--models-dir"):
        saving.add_argument(flag, **GENERATE[flag])
    saving.set_defaults(command=save)
    timing = commands.add_parser("bench", help="time a model on this machine")
    for flag in ("--model", "--models-dir"):
        timing.add_argument(flag, **GENERATE[flag])
    timing.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    timing.add_argument("--sizes", type=int, nargs="+", default=[256, 512], metavar="N", help="default: 256 512")
    timing.add_argument("--repeats", type=int, default=5, metavar="N", help="default: %(default)s")
    timing.set_defaults(command=bench)
    for command in commands.choices.values():
        command.add_argument("--debug", action="store_true", help="show where an error comes from")
    return parser


def generate(arguments: argparse.Namespace) -> int:
    """Paint, and print the path of each picture on standard output as soon as it is there."""
    width, height = parse_size(arguments.size)
    seeds = _seeds(arguments.seed, arguments.n)
    _check_output(arguments.output)
    image, mask, *references = map(_open, [arguments.image, arguments.mask, *arguments.reference])
    model = _load(arguments)
    progress = _Progress(len(seeds))

    def on_event(event: "Event") -> None:
        from mflux_api.engine.messages import Picture

        progress(event)
        if isinstance(event, Picture):
            progress.clear()
            print(_store(event, model, arguments), flush=True)
            _tell(event, model, arguments)

    with closing(progress):
        model.generate(
            arguments.prompt,
            negative_prompt=arguments.negative,
            width=width,
            height=height,
            steps=arguments.steps,
            guidance=arguments.guidance,
            seeds=seeds,
            images=[reference for reference in references if reference is not None],
            image=image,
            strength=arguments.strength,
            mask=mask,
            loras=arguments.lora,
            on_event=on_event,
        )
    return OK


def models(arguments: argparse.Namespace) -> int:
    """One line a model: whether it is here, its name, what it is."""
    from mflux_api.catalogue.models import is_here, registry

    for spec in registry().values():
        mark = "here" if is_here(spec, arguments.models_dir) else "-"
        bits = f", quantized to {spec.quantize} bits while loading" if spec.quantize else ""
        print(f"{mark:5} {spec.name:32} {spec.description}{bits}")
    return OK


def save(arguments: argparse.Namespace) -> int:
    """Load, quantize, write."""
    from mflux_api.engine.model import load_model

    model = load_model(arguments.model, quantize=arguments.quantize, models_dir=arguments.models_dir)
    model.save(arguments.folder)
    print(arguments.folder)
    return OK


def bench(arguments: argparse.Namespace) -> int:
    """Print the bench table, each line when it is known."""
    if arguments.repeats < 1:
        raise InvalidRequest(f"--repeats must be 1 or more, not {arguments.repeats}.", field="repeats")
    # mflux draws a bar of its own; tqdm reads this when it is imported.
    os.environ["TQDM_DISABLE"] = "1"
    from mflux_api.engine.bench import run

    figures = []
    for figure in run(arguments.model, arguments.sizes, arguments.repeats, arguments.models_dir):
        print(figure, flush=True)
        figures.append(vars(figure))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return OK


def parse_size(text: str | None) -> tuple[int | None, int | None]:
    """Width and height of "512x768"; None, None when not given. Raises InvalidRequest."""
    if text is None:
        return None, None
    match = re.fullmatch(r"(\d{1,6})x(\d{1,6})", text.lower())
    if match is None:
        raise InvalidRequest(f"--size must look like 512x512, not {text!r}.", field="size")
    return int(match[1]), int(match[2])


def _seeds(first: int | None, count: int) -> list[int]:
    if count < 1:
        raise InvalidRequest(f"--n must be 1 or more, not {count}.", field="n")
    start = first if first is not None else random.randrange(2**32)
    return [start + offset for offset in range(count)]


def _check_output(output: Path) -> None:
    """Say before painting what would fail after it. Raises InvalidRequest."""
    if output.suffix.lower() in OTHER_FORMATS and not output.is_dir():
        raise InvalidRequest(f"--output must be a folder or end in .png, not {output}.", field="output")
    folder = output.parent if output.suffix.lower() == ".png" and not output.is_dir() else output
    nearest = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise InvalidRequest(f"--output: {nearest} is not a folder that can be written to.", field="output")


def _open(path: Path | None) -> "Image.Image | None":
    if path is None:
        return None
    from PIL import Image, ImageOps

    try:
        # Pillow warns about odd files on standard error, which holds our lines only.
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
            return ImageOps.exif_transpose(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise InvalidImage(f"{path} is not a picture that can be read.", path=str(path)) from None


def _load(arguments: argparse.Namespace) -> "Model":
    from mflux_api.engine.model import load_model

    return load_model(
        arguments.model,
        quantize=arguments.quantize,
        precision=arguments.precision,
        low_ram=arguments.low_ram,
        models_dir=arguments.models_dir,
    )


class _Progress:
    """A bar over all steps of all pictures, with the time left; drawn only where somebody watches."""

    def __init__(self, pictures: int) -> None:
        self.pictures = pictures
        self.bar: Any = None

    def __call__(self, event: "Event") -> None:
        from tqdm import tqdm

        from mflux_api.engine.messages import Step

        if isinstance(event, Step):
            if self.bar is None:
                self.bar = tqdm(total=event.steps * self.pictures, unit="step", disable=None, leave=False)
            self.bar.update()

    def clear(self) -> None:
        """Take the bar away so that a line can be printed."""
        if self.bar is not None:
            self.bar.clear()

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def _store(picture: "Picture", model: "Model", arguments: argparse.Namespace) -> Path:
    """Write the picture under a name of its own, its generation data inside."""
    from mflux_api.engine.encode import encode_png, generation_text, write_new

    text = generation_text(
        picture,
        prompt=arguments.prompt,
        negative=arguments.negative or "",
        model=model.spec.name,
        bits=model.pipeline.bits,
        strength=arguments.strength if arguments.image else None,
    )
    return write_new(_target(picture, model, arguments), encode_png(picture.image, {"parameters": text}))


def _target(picture: "Picture", model: "Model", arguments: argparse.Namespace) -> Path:
    output: Path = arguments.output
    if output.suffix.lower() == ".png" and not output.is_dir():
        return output if arguments.n == 1 else output.with_stem(f"{output.stem}_seed{picture.seed}")
    words = re.findall(r"[a-z0-9]+", arguments.prompt.lower())[:WORDS_IN_NAME]
    name = "-".join(words)[:LONGEST_NAME].strip("-") or "picture"
    return output / f"{model.spec.name}_{name}_seed{picture.seed}.png"


def _tell(picture: "Picture", model: "Model", arguments: argparse.Namespace) -> None:
    """One line for a person, beside the path for a program."""
    size = "{}x{}".format(*picture.image.size)
    seconds = picture.timings["total"]
    print(f"{model.spec.name}, {size}, {picture.steps} steps, seed {picture.seed}, {seconds:.1f} s", file=sys.stderr)
    if arguments.guidance is not None and arguments.guidance > 1 >= picture.guidance:
        print(f"{model.spec.name} is distilled: guidance ran at 1.", file=sys.stderr)
    for use in picture.loras:
        print(f"{Path(use.path).name}: {use.keys} of {use.total_keys} keys, {use.layers} layers", file=sys.stderr)
