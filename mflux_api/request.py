"""The one validated object a picture is painted from: no HTTP, no MLX."""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mflux_api.errors import InvalidRequest

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


@dataclass(frozen=True, kw_only=True)
class GenerateRequest:
    """What to paint.

    `width`, `height` in pixels, multiples of 16 from 64 up. `guidance` above 1 paints against `negative_prompt`
    on base models; distilled models always run at 1. One picture a seed. `references` are the pictures an edit
    looks at; `source` is the picture repainted with `strength` (0 keeps it, 1 ignores it), only where `mask` is
    white when there is one. `latents` is initial noise, float32 (B, 128, H/16, W/16), one row a seed.

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
    strength: float = 1.0
    mask: Image.Image | None = None
    loras: tuple[LoraUse, ...] = ()
    latents: NDArray[np.float32] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        for check in (_check_prompts, _check_size, _check_numbers, _check_seeds, _check_pictures, _check_latents):
            check(self)


def _require(condition: bool, message: str, field_name: str) -> None:
    if not condition:
        raise InvalidRequest(message, field=field_name)


def _is_integer(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return (_is_integer(value) or isinstance(value, (float, np.floating))) and math.isfinite(float(value))  # type: ignore[arg-type]


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
    shape = (len(request.seeds), request.height // SIDE_STEP, request.width // SIDE_STEP)
    given = np.shape(request.latents)
    valid = len(given) == 4 and (given[0], *given[2:]) == shape
    expected = f"({shape[0]}, channels, {shape[1]}, {shape[2]})"
    _require(valid, f"latents must have the shape {expected} for this size and these seeds, not {given}.", "latents")
    _require(bool(np.isfinite(request.latents).all()), "latents hold a value that is not finite.", "latents")
