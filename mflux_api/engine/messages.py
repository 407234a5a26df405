"""What painting yields, in plain Python: steps, previews and finished pictures. No MLX here."""

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True, kw_only=True)
class Step:
    """A denoising step that has been computed. `number` counts from 1 to `steps`; `seconds` is its duration."""

    number: int
    steps: int
    seed: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Preview:
    """The picture as it would end now, an eighth of its width and height, from a linear map of the latents."""

    number: int
    seed: int
    image: Image.Image


@dataclass(frozen=True, kw_only=True)
class LoraReport:
    """How an adapter fitted: `layers` it changed, `keys` of the file used out of `total_keys`."""

    path: str
    scale: float
    layers: int
    keys: int
    total_keys: int


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A finished picture.

    `image`: RGB PIL image, in an inpainting with the source's own pixels wherever the mask is black.
    `array`: the decoder's float32 (H, W, 3) in 0..1 before rounding and before those pixels are put back.
    `guidance`: the value really used (distilled models run at 1 whatever was asked).
    `timings`: seconds for "encoding" (prompt and pictures), "diffusion", "decoding" and "total".
    """

    image: Image.Image
    array: NDArray[np.float32]
    seed: int
    timings: dict[str, float]
    steps: int
    guidance: float
    loras: tuple[LoraReport, ...] = field(default=())


Event: TypeAlias = Step | Preview | Picture
