"""The validated request that a picture is painted from. Every API and the Python library use it."""

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
    """An adapter file and its scale (1.0: as trained, 0.0: off)."""

    path: str
    scale: float


@dataclass(frozen=True)
class Upload:
    """An uploaded picture. Only its header was checked. Sizes in pixels."""

    data: bytes
    width: int
    height: int


class EarlyStop(StrEnum):
    """End the current picture early and keep it as it is.

    SKIP goes on with the next picture of the job; INTERRUPT ends the job.
    """

    SKIP = "skip"
    INTERRUPT = "interrupt"


# How a picture is resized: stretched, cropped, placed in a blurred frame, or stretched as latents.
Resize: TypeAlias = Literal["stretch", "crop", "fill", "latent"]
# What the masked area holds before it is repainted.
Fill: TypeAlias = Literal["original", "surroundings", "noise", "zero"]
# How latents are interpolated to another size.
Stretch: TypeAlias = Literal["nearest", "bilinear", "bicubic"]


@dataclass(frozen=True, kw_only=True)
class Variation:
    """A mix of the noise of the picture's own seed (strength 0) and that of `seed` (1). Picture k uses `seed` + k."""

    seed: int
    strength: float


@dataclass(frozen=True, kw_only=True)
class InpaintOptions:
    """How the source and the mask are prepared for a repaint.

    `blur`: sigmas of the mask's edge in pixels, (horizontal, vertical). `closeup`: paint only the masked part, with
    this many pixels around it, at the size of the request, and paste it back into the source.
    """

    resize: Resize = "stretch"
    fill: Fill = "original"
    invert: bool = False
    blur: tuple[float, float] = (0.0, 0.0)
    closeup: int | None = None


@dataclass(frozen=True, kw_only=True)
class Hires:
    """A second pass: the picture is enlarged to `width` x `height` pixels, then repainted with `strength`.

    `prompt`, `negative_prompt`: None means those of the first pass. `scale`: the value the client sent, kept for the
    metadata. `resized`: the client sent a size instead of a scale.
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
    """Enlarge the source `scale` times, then repaint it in tiles of the request's size.

    `overlap`: pixels that neighbouring tiles share, at most half a tile.
    """

    scale: float
    overlap: int
    upscaler: str


@dataclass(frozen=True, kw_only=True)
class Emphasis:
    """Weights for parts of the prompt `text`.

    `spans`: (start, end, scale). The embeddings of the tokens in characters `start` to `end` are multiplied by
    `scale`.
    """

    text: str
    spans: tuple[tuple[int, int, float], ...]


@dataclass(frozen=True, kw_only=True)
class PaintOptions:
    """Options beyond one plain pass of the model.

    `crop`: size in pixels that the painted picture is cropped to, at its centre. `stretch`: resize the source to the
    request's size as latents, with this interpolation, instead of as pixels. `schedule`: (last step, prompt) pairs;
    each prompt is used up to and including its last step; empty means one prompt for all steps. `emphasis`: weights
    for any of the prompts. `said`: prompt and negative prompt as the client wrote them, for the metadata, when they
    differ from what the model reads. `upsample`: the model's text encoder first rewrites the prompt in more detail.
    `note`: values that the dialect stores with the job.
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
        """Return only the fields of PaintOptions, also from a subclass."""
        return {each.name: getattr(self, each.name) for each in fields(PaintOptions)}


@dataclass(frozen=True, kw_only=True)
class GenerateRequest(PaintOptions):
    """A complete request, checked on creation.

    `width`, `height`: pixels, multiples of 16, at least 64. `guidance`: above 1, base models steer away from
    `negative_prompt`; distilled models always run at 1. `seeds`: one picture is painted for each. `references`: the
    pictures that an edit uses. `source`: the picture to repaint with `strength` (0 keeps it, 1 ignores it). `mask`:
    only its white part is repainted. `further_sources`: sources of the second picture, the third, and so on.
    `latents`: initial noise, float32 (B, 128, H/16, W/16), one row for each seed.

    Raises InvalidRequest for any value out of range.
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
        """Width and height that the client asked for, in pixels."""
        return self.crop or (self.width, self.height)

    @property
    def largest_size(self) -> tuple[int, int]:
        """Width and height of the largest picture painted for this request, in pixels."""
        return (self.width, self.height) if self.hires is None else round_up_size(self.hires.width, self.hires.height)

    @property
    def is_one_pass(self) -> bool:
        return self.hires is None and self.tiles is None


def count_repaint_steps(steps: int, strength: float) -> int:
    """Return how many of `steps` a repaint with `strength` runs."""
    return 0 if strength == 0 else max(1, math.ceil(steps * strength - 1e-6))


def round_up_size(width: int, height: int) -> tuple[int, int]:
    """Return the smallest paintable size that contains this one, in pixels."""
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
    import numpy as np  # Imported late: the server never has latents, and numpy takes 15 MiB.

    shape = (len(request.seeds), request.height // SIDE_STEP, request.width // SIDE_STEP)
    given = np.shape(request.latents)
    valid = len(given) == 4 and (given[0], *given[2:]) == shape
    expected = f"({shape[0]}, channels, {shape[1]}, {shape[2]})"
    _require(valid, f"latents must have the shape {expected} for this size and these seeds, not {given}.", "latents")
    _require(bool(np.isfinite(request.latents).all()), "latents hold a value that is not finite.", "latents")
