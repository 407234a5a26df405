"""`generate`: paint pictures from the command line."""

import argparse
import os
import random
import re
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mflux_api.errors import InvalidImage, InvalidRequest

if TYPE_CHECKING:
    from PIL import Image

    from mflux_api.engine.model import Model
    from mflux_api.ipc.messages import PaintingEvent, Picture

WORDS_IN_NAME = 5
LONGEST_NAME = 40
OTHER_FORMATS = {".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"}


def generate(arguments: argparse.Namespace) -> None:
    """Paint pictures. Print the path of each on standard output as soon as it is written."""
    width, height = parse_size(arguments.size)
    seeds = _choose_seeds(arguments.seed, arguments.n)
    _check_output(arguments.output)
    # Imported here because Pillow takes a moment, and --help does not need it.
    from mflux_api.pixels.decoding import decode_mask, decode_picture

    image, *references = (_open_picture(path, decode_picture) for path in [arguments.image, *arguments.reference])
    mask = _open_picture(arguments.mask, decode_mask)
    model = load_from_arguments(arguments)
    progress = _ProgressBar(len(seeds))

    def on_event(event: "PaintingEvent") -> None:
        from mflux_api.ipc.messages import Picture

        progress(event)
        if isinstance(event, Picture):
            progress.clear()
            print(_save_picture(event, model, arguments), flush=True)
            _print_summary(event, model, arguments)

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
            upsample=arguments.upsample_prompt,
            on_event=on_event,
        )


def parse_size(text: str | None) -> tuple[int | None, int | None]:
    """Parse "512x768" into width and height; (None, None) without a text. Raises InvalidRequest."""
    if text is None:
        return None, None
    match = re.fullmatch(r"(\d{1,6})x(\d{1,6})", text.lower())
    if match is None:
        raise InvalidRequest(f"--size must look like 512x512, not {text!r}.", field="size")
    return int(match[1]), int(match[2])


def _choose_seeds(first: int | None, count: int) -> list[int]:
    if count < 1:
        raise InvalidRequest(f"--n must be 1 or more, not {count}.", field="n")
    start = first if first is not None else random.randrange(2**32)
    return [start + offset for offset in range(count)]


def _check_output(output: Path) -> None:
    """Check before painting that the output can be written. Raises InvalidRequest."""
    if output.suffix.lower() in OTHER_FORMATS and not output.is_dir():
        raise InvalidRequest(f"--output must be a folder or end in .png, not {output}.", field="output")
    folder = output.parent if output.suffix.lower() == ".png" and not output.is_dir() else output
    nearest = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise InvalidRequest(f"--output: {nearest} is not a folder that can be written to.", field="output")


def _open_picture(path: Path | None, decode: "Callable[..., Image.Image]") -> "Image.Image | None":
    if path is None:
        return None
    try:
        return decode(path.read_bytes(), formats=None)
    except (OSError, InvalidImage):
        raise InvalidImage(f"{path} is not a picture that can be read.", path=str(path)) from None


def load_from_arguments(arguments: argparse.Namespace) -> "Model":
    from mflux_api.engine.model import load_model

    return load_model(
        arguments.model,
        quantize=arguments.quantize,
        precision=arguments.precision,
        low_ram=arguments.low_ram,
        models_dir=arguments.models_dir,
    )


class _ProgressBar:
    """A progress bar over the steps of all pictures, with the time left; shown on terminals only."""

    def __init__(self, pictures: int) -> None:
        self.pictures = pictures
        self.bar: Any = None

    def __call__(self, event: "PaintingEvent") -> None:
        from tqdm import tqdm

        from mflux_api.ipc.messages import Step

        if isinstance(event, Step):
            if self.bar is None:
                self.bar = tqdm(total=event.steps * self.pictures, unit="step", disable=None, leave=False)
            self.bar.update()

    def clear(self) -> None:
        """Remove the bar so that a line can be printed."""
        if self.bar is not None:
            self.bar.clear()

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def _save_picture(picture: "Picture", model: "Model", arguments: argparse.Namespace) -> Path:
    """Write the picture with its generation data to a new file, and return the path."""
    from mflux_api.engine.metadata import format_generation_text
    from mflux_api.pixels.png import encode_png, write_new_file

    text = format_generation_text(
        picture,
        prompt=arguments.prompt if picture.prompt is None else picture.prompt,
        negative=arguments.negative or "",
        model=model.spec.name,
        bits=model.bits,
        strength=arguments.strength if arguments.image else None,
        original=arguments.prompt if picture.prompt is not None else None,
    )
    return write_new_file(_output_path(picture, model, arguments), encode_png(picture.image, {"parameters": text}))


def _output_path(picture: "Picture", model: "Model", arguments: argparse.Namespace) -> Path:
    output: Path = arguments.output
    if output.suffix.lower() == ".png" and not output.is_dir():
        return output if arguments.n == 1 else output.with_stem(f"{output.stem}_seed{picture.seed}")
    words = re.findall(r"[a-z0-9]+", arguments.prompt.lower())[:WORDS_IN_NAME]
    name = "-".join(words)[:LONGEST_NAME].strip("-") or "picture"
    return output / f"{model.spec.name}_{name}_seed{picture.seed}.png"


def _print_summary(picture: "Picture", model: "Model", arguments: argparse.Namespace) -> None:
    """Print a summary on standard error; standard output has only the paths, for programs."""
    size = "{}x{}".format(*picture.image.size)
    seconds = picture.timings["total"]
    print(f"{model.spec.name}, {size}, {picture.steps} steps, seed {picture.seed}, {seconds:.1f} s", file=sys.stderr)
    if picture.prompt is not None:
        print(f"prompt: {picture.prompt}", file=sys.stderr)
    if arguments.guidance is not None and arguments.guidance > 1 >= picture.guidance:
        print(f"{model.spec.name} is distilled: guidance ran at 1.", file=sys.stderr)
    for use in picture.loras:
        print(f"{Path(use.path).name}: {use.keys} of {use.total_keys} keys, {use.layers} layers", file=sys.stderr)
