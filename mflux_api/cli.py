"""The command line: arguments to commands, errors to one line and an exit code."""

import argparse
import itertools
import os
import random
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mflux_api.errors import InvalidImage, InvalidRequest, MfluxError
from mflux_api.version import __version__

if TYPE_CHECKING:
    from PIL import Image

    from mflux_api.engine.messages import Event, Picture
    from mflux_api.engine.model import Model

OK, FAILED, BAD_INPUT, CANCELLED = 0, 1, 2, 130
WORDS_IN_NAME = 5
LONGEST_NAME = 40

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
    "--strength": {"type": float, "metavar": "X", "help": "how much of it: 0 keeps, 1 ignores (default: 0.75)"},
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
        print(f"error: {error.message}", file=sys.stderr)
        return BAD_INPUT if isinstance(error, InvalidRequest) else FAILED
    except KeyboardInterrupt:
        print("Cancelled.", file=sys.stderr)
        return CANCELLED
    except BrokenPipeError:
        # Whoever read our lines has gone; there is nobody left to tell.
        return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mflux_api", description="FLUX.2 on MLX.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    painting = commands.add_parser("generate", help="paint pictures of a prompt")
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
    timing = commands.add_parser("bench", help="time the embedded model on this machine")
    timing.add_argument("--sizes", type=int, nargs="+", default=[256, 512], metavar="N", help="default: 256 512")
    timing.add_argument("--repeats", type=int, default=5, metavar="N", help="default: %(default)s")
    timing.set_defaults(command=bench)
    return parser


def generate(arguments: argparse.Namespace) -> int:
    """Paint, and print the path of each picture on standard output as soon as it is there."""
    width, height = parse_size(arguments.size)
    seeds = _seeds(arguments.seed, arguments.n)
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
    """Print the bench table."""
    # mflux draws a bar of its own; tqdm reads this when it is imported.
    os.environ["TQDM_DISABLE"] = "1"
    from mflux_api.engine.bench import run

    for line in run(arguments.sizes, arguments.repeats):
        print(line, flush=True)
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


def _open(path: Path | None) -> "Image.Image | None":
    if path is None:
        return None
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
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
    """Write the picture under a name of its own, complete or not at all."""
    from mflux_api.engine.encode import encode_png

    text = {"parameters": _parameters(picture, model, arguments)}
    path = _free(_target(picture, model, arguments))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(encode_png(picture.image, text))
    partial.rename(path)
    return path


def _target(picture: "Picture", model: "Model", arguments: argparse.Namespace) -> Path:
    output: Path = arguments.output
    if output.suffix.lower() == ".png" and not output.is_dir():
        return output if arguments.n == 1 else output.with_stem(f"{output.stem}_seed{picture.seed}")
    words = re.findall(r"[a-z0-9]+", arguments.prompt.lower())[:WORDS_IN_NAME]
    name = "-".join(words)[:LONGEST_NAME].strip("-") or "picture"
    return output / f"{model.spec.name}_{name}_seed{picture.seed}.png"


def _free(path: Path) -> Path:
    """The path, or the first of path-2, path-3, ... that nothing has yet."""
    names = (path if number == 1 else path.with_stem(f"{path.stem}-{number}") for number in itertools.count(1))
    return next(name for name in names if not name.exists())


def _parameters(picture: "Picture", model: "Model", arguments: argparse.Namespace) -> str:
    """Generation data as the SD-WebUI family writes it, so that its readers know the picture."""
    facts = {
        "Steps": picture.steps,
        "Sampler": "Euler",
        "CFG scale": f"{picture.guidance:g}",
        "Seed": picture.seed,
        "Size": "{}x{}".format(*picture.image.size),
        "Model": model.spec.name,
        "Denoising strength": arguments.strength if arguments.image else None,
        "Quantized": f"{model.pipeline.bits} bits" if model.pipeline.bits else None,
        "Lora": "; ".join(f"{Path(use.path).stem}:{use.scale:g}" for use in picture.loras) or None,
        "Version": f"mflux-api {__version__}",
    }
    negative = f"Negative prompt: {arguments.negative}\n" if arguments.negative and picture.guidance > 1 else ""
    return f"{arguments.prompt}\n{negative}" + ", ".join(
        f"{name}: {value}" for name, value in facts.items() if value is not None
    )


def _tell(picture: "Picture", model: "Model", arguments: argparse.Namespace) -> None:
    """One line for a person, beside the path for a program."""
    size = "{}x{}".format(*picture.image.size)
    seconds = picture.timings["total"]
    print(f"{model.spec.name}, {size}, {picture.steps} steps, seed {picture.seed}, {seconds:.1f} s", file=sys.stderr)
    if arguments.guidance is not None and arguments.guidance > 1 >= picture.guidance:
        print(f"{model.spec.name} is distilled: guidance ran at 1.", file=sys.stderr)
    for use in picture.loras:
        print(f"{Path(use.path).name}: {use.keys} of {use.total_keys} keys, {use.layers} layers", file=sys.stderr)
