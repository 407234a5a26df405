"""The one validated object a picture is painted from, whatever door it came by."""

import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from PIL import Image

from mflux_api.errors import InvalidRequest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SIDE_STEP = 16
SMALLEST_SIDE = 64
LARGEST_SEED = 2**64 - 1


@dataclass(frozen=True, kw_only=True)
class LoraUse:
    """An adapter file and the weight it is used with (1.0: as trained, 0.0: off)."""

    path: str
    scale: float


@dataclass(frozen=True)
class Upload:
    """A picture as it came, checked by its header only. Sizes in pixels."""

    data: bytes
    width: int
    height: int


class EarlyStop(StrEnum):
    """End the picture that is being painted with what there is of it, and go on with the next one, or with none."""

    SKIP = "skip"
    INTERRUPT = "interrupt"


# How a picture is brought to another size: distorted, cut, set into a blurred frame, or distorted as latents.
Resize: TypeAlias = Literal["stretch", "crop", "fill", "latent"]
# What is under the mask before it is repainted.
Fill: TypeAlias = Literal["original", "surroundings", "noise", "zero"]
# How latents are brought to another size.
Stretch: TypeAlias = Literal["nearest", "bilinear", "bicubic"]


@dataclass(frozen=True, kw_only=True)
class Variation:
    """Noise between that of the picture's seed (strength 0) and that of `seed` (1); picture k takes `seed` + k."""

    seed: int
    strength: float


@dataclass(frozen=True, kw_only=True)
class InpaintOptions:
    """How the source becomes the canvas. `blur`: sigmas of the mask's edge in pixels, across and down.

    `closeup`: paint only the masked part, with so many pixels around it, at the size of the request, and set it
    back into the source.
    """

    resize: Resize = "stretch"
    fill: Fill = "original"
    invert: bool = False
    blur: tuple[float, float] = (0.0, 0.0)
    closeup: int | None = None


@dataclass(frozen=True, kw_only=True)
class Hires:
    """A second pass: the picture enlarged to `width` x `height` pixels, then repainted with `strength`.

    `prompt`, `negative_prompt`: None for those of the first pass. `scale`: as the client said it, for the record;
    `resized`: it named the size instead.
    """

    width: int
    height: int
    steps: int
    strength: float
    upscaler: str
    prompt: str | None = None
    negative_prompt: str | None = None
    scale: float | None = None
    resized: bool = False


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """Enlarge the source `scale` times and repaint it in tiles of the request's size that share `overlap` pixels,
    half a tile at most."""

    scale: float
    overlap: int
    upscaler: str


@dataclass(frozen=True, kw_only=True)
class Emphasis:
    """Letters `start` to `end` of a prompt, and how much their tokens' embeddings are scaled: `spans` of the three."""

    text: str
    spans: tuple[tuple[int, int, float], ...]


@dataclass(frozen=True, kw_only=True)
class PaintOptions:
    """What may be asked for beyond one pass of the model.

    `crop`: the size in pixels that the painted picture is cut to, at its centre. `stretch`: bring the source to the
    request's size as latents, by this interpolation, instead of as pixels. `schedule`: prompts by step, each up to and
    with the step it names; empty for the one prompt. `emphasis`: of any of the prompts. `said`: prompts as they were
    written, for the record, where what the model reads differs. `upsample`: the model's text encoder first puts the
    prompt into more words. `note`: what the dialect that took the order wants to remember with it.
    """

    variation: Variation | None = None
    retouch: InpaintOptions = InpaintOptions()
    hires: Hires | None = None
    tiles: Tiles | None = None
    crop: tuple[int, int] | None = None
    stretch: Stretch | None = None
    schedule: tuple[tuple[int, str], ...] = ()
    emphasis: tuple[Emphasis, ...] = ()
    said: tuple[str, str] | None = None
    upsample: bool = False
    note: Mapping[str, str] = field(default_factory=dict)

    def options_as_dict(self) -> dict[str, Any]:
        """These fields alone."""
        return {each.name: getattr(self, each.name) for each in fields(PaintOptions)}


@dataclass(frozen=True, kw_only=True)
class GenerateRequest(PaintOptions):
    """What to paint.

    `width`, `height` in pixels, multiples of 16 from 64 up. `guidance` above 1 paints against `negative_prompt`
    on base models; distilled models always run at 1. One picture a seed. `references` are the pictures an edit
    looks at; `source` is the picture repainted with `strength` (0 keeps it, 1 ignores it), only where `mask` is
    white when there is one; `further_sources` are those of the second picture, the third, ... `latents` is initial
    noise, float32 (B, 128, H/16, W/16), one row a seed.

    Raises InvalidRequest for anything out of range.
    """

    prompt: str
    negative_prompt: str
    width: int
    height: int
    steps: int
    guidance: float
    seeds: tuple[int, ...]
    references: tuple[Image.Image, ...] = ()
    source: Image.Image | None = None
    further_sources: tuple[Image.Image, ...] = ()
    strength: float = 1.0
    mask: Image.Image | None = None
    loras: tuple[LoraUse, ...] = ()
    latents: "NDArray[np.float32] | None" = field(default=None, compare=False)

    def __post_init__(self) -> None:
        for check in (_check_prompts, _check_size, _check_numbers, _check_seeds, _check_pictures, _check_latents):
            check(self)

    @property
    def requested_size(self) -> tuple[int, int]:
        """Width and height as the client said them."""
        return self.crop or (self.width, self.height)

    @property
    def largest_size(self) -> tuple[int, int]:
        """Width and height of the largest picture that is painted on the way, in pixels."""
        return (self.width, self.height) if self.hires is None else round_up_size(self.hires.width, self.hires.height)

    @property
    def is_one_pass(self) -> bool:
        return self.hires is None and self.tiles is None


def count_repaint_steps(steps: int, strength: float) -> int:
    """How many of the steps a repaint of this strength runs."""
    return 0 if strength == 0 else max(1, math.ceil(steps * strength - 1e-6))


def round_up_size(width: int, height: int) -> tuple[int, int]:
    """The smallest size that can be painted and holds this one, in pixels."""
    sides = (max(SMALLEST_SIDE, -(-side // SIDE_STEP) * SIDE_STEP) for side in (width, height))
    return next(sides), next(sides)


def _require(condition: bool, message: str, field_name: str) -> None:
    if not condition:
        raise InvalidRequest(message, field=field_name)


def _is_integer(value: object) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def _check_prompts(request: GenerateRequest) -> None:
    for name in ("prompt", "negative_prompt"):
        value = getattr(request, name)
        _require(isinstance(value, str), f"{name} must be text, not {type(value).__name__}.", name)


def _check_size(request: GenerateRequest) -> None:
    for name in ("width", "height"):
        value = getattr(request, name)
        valid = _is_integer(value) and value >= SMALLEST_SIDE and value % SIDE_STEP == 0
        _require(valid, f"{name} must be a multiple of {SIDE_STEP} from {SMALLEST_SIDE} up, not {value!r}.", name)


def _check_numbers(request: GenerateRequest) -> None:
    _require(
        _is_integer(request.steps) and request.steps >= 1, f"steps must be 1 or more, not {request.steps!r}.", "steps"
    )
    valid = _is_number(request.guidance) and request.guidance >= 0
    _require(valid, f"guidance must be a number from 0 up, not {request.guidance!r}.", "guidance")
    valid = _is_number(request.strength) and 0 <= request.strength <= 1
    _require(valid, f"strength must be between 0 (keep) and 1 (ignore), not {request.strength!r}.", "strength")


def _check_seeds(request: GenerateRequest) -> None:
    _require(len(request.seeds) > 0, "At least one seed is needed: one picture is painted for each.", "seeds")
    for seed in request.seeds:
        valid = _is_integer(seed) and 0 <= seed <= LARGEST_SEED
        _require(valid, f"A seed must be an integer from 0 to 2^64-1, not {seed!r}.", "seeds")


def _check_pictures(request: GenerateRequest) -> None:
    _require(
        request.mask is None or request.source is not None,
        "A mask needs the picture it belongs to: pass image as well.",
        "mask",
    )


def _check_latents(request: GenerateRequest) -> None:
    if request.latents is None:
        return
    import numpy as np  # here: the server has no latents, and saves numpy's 15 MiB

    shape = (len(request.seeds), request.height // SIDE_STEP, request.width // SIDE_STEP)
    given = np.shape(request.latents)
    valid = len(given) == 4 and (given[0], *given[2:]) == shape
    expected = f"({shape[0]}, channels, {shape[1]}, {shape[2]})"
    _require(valid, f"latents must have the shape {expected} for this size and these seeds, not {given}.", "latents")
    _require(bool(np.isfinite(request.latents).all()), "latents hold a value that is not finite.", "latents")
