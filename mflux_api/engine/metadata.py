"""Format the generation data that is written into a picture."""

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path, PurePath

from mflux_api.checkpoints.families import SAMPLER
from mflux_api.ipc.messages import LoraReport, Picture
from mflux_api.pixels import infotext
from mflux_api.request import Hires, InpaintOptions, PaintOptions
from mflux_api.version import __version__

HASH_LENGTH = 12
FILLED = {"original": "original", "surroundings": "fill", "noise": "latent noise", "zero": "latent nothing"}


def format_generation_text(
    picture: Picture,
    *,
    prompt: str,
    negative: str,
    model: str,
    bits: int | None,
    strength: float | None,
    size: tuple[int, int] | None = None,
    model_hash: str | None = None,
    masked: bool = False,
    index: int = 0,
    options: PaintOptions | None = None,
    original: str | None = None,
) -> str:
    """Format generation data as the SD-WebUI family does, so that its tools can read it. Contains no paths.

    `strength`: None if no picture was repainted. `bits`: None if nothing is quantized. `size`: None for the picture's
    own size. `masked`: only a part was repainted. `index`: the picture's place in its request, from 0. `original`: the
    prompt before it was upsampled.
    """
    options = options or PaintOptions()
    width, height = size or picture.image.size
    facts: dict[str, object] = {
        "Steps": picture.steps,
        "Sampler": SAMPLER,
        "CFG scale": f"{picture.guidance:g}",
        "Seed": picture.seed,
        "Size": f"{width}x{height}",
        "Model hash": model_hash,
        "Model": model,
        "Denoising strength": strength if options.hires is None else options.hires.strength,
        **_list_variation_facts(options, index),
        **(_list_inpaint_facts(options.retouch) if masked else {}),
        **(_list_hires_facts(options.hires) if options.hires else {}),
        **_list_tile_facts(options),
        "Quantized": f"{bits} bits" if bits else None,
        "Lora": "; ".join(f"{PurePath(use.path).stem}:{use.scale:g}" for use in picture.loras) or None,
        "Lora left out": "; ".join(_describe_left_out(use) for use in picture.loras if use.left_out) or None,
        "Lora hashes": _format_lora_hashes(picture.loras) if options.said else None,
        "Original prompt": original,
        "Version": f"mflux-api {__version__}",
    }
    if options.said is not None:
        return infotext.format_infotext(*options.said, facts)
    return infotext.format_infotext(prompt, negative if picture.guidance > 1 else "", facts)


def _list_variation_facts(options: PaintOptions, index: int) -> dict[str, object]:
    if options.variation is None:
        return {}
    strength = f"{options.variation.strength:g}"
    return {"Variation seed": options.variation.seed + index, "Variation seed strength": strength}


def _list_inpaint_facts(retouch: InpaintOptions) -> dict[str, object]:
    across, down = (f"{side:g}" for side in retouch.blur)
    return {
        "Mask blur": across,
        "Mask blur y": None if down == across else down,
        "Mask mode": "Inpaint not masked" if retouch.invert else None,
        "Masked content": FILLED[retouch.fill],
        "Inpaint area": None if retouch.closeup is None else "Only masked",
        "Masked area padding": retouch.closeup,
    }


def _list_hires_facts(hires: Hires) -> dict[str, object]:
    return {
        "Hires upscale": None if hires.resized else f"{hires.scale or 1:g}",
        "Hires resize": f"{hires.width}x{hires.height}" if hires.resized else None,
        "Hires steps": hires.steps,
        "Hires upscaler": hires.upscaler,
        "Hires prompt": hires.prompt,
        "Hires negative prompt": hires.negative_prompt,
    }


def _list_tile_facts(options: PaintOptions) -> dict[str, object]:
    if options.tiles is None:
        return {}
    return {"SD upscale overlap": options.tiles.overlap, "SD upscale upscaler": options.tiles.upscaler}


def _describe_left_out(use: LoraReport) -> str:
    return f"{use.left_out} of {use.total_keys} tensors of {PurePath(use.path).stem} (text encoder)"


def _format_lora_hashes(loras: Sequence[LoraReport]) -> str | None:
    named = ((PurePath(use.path).stem, Path(use.path)) for use in loras)
    return (
        ", ".join(f"{name}: {_hash_file(path, path.stat().st_mtime)}" for name, path in named if path.is_file()) or None
    )


@functools.lru_cache(maxsize=256)
def _hash_file(path: Path, changed: float) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:HASH_LENGTH]
