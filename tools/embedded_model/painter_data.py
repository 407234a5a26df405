"""The transformer's diet: latents of drawn scenes in buckets of one size each, with captions worded anew every time."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from diffusers import AutoencoderKLFlux2
from numpy.typing import NDArray
from torch import Tensor

from captions import caption
from latents import normalise, to_tensor
from networks import image_ids
from pictures import draw
from scenes import Scene, draw_lot

Size = tuple[int, int]
EMPTY_SHARE = 0.1
LANDSCAPE_SHARE = 0.4


@dataclass(frozen=True)
class Batch:
    """Captions, the packed latents to learn, the packed references (often none), and all image positions."""

    captions: list[str]
    clean: Tensor
    references: Tensor
    ids: Tensor


@dataclass
class Bucket:
    """Scenes of one size (width, height) and their latents, (N, 128, H/16, W/16) in half precision."""

    size: Size
    scenes: list[Scene]
    latents: Tensor


def token_ids(size: Size, moment: int = 0) -> Tensor:
    """Positions of the tokens of a picture of this size."""
    return image_ids(size[1] // 16, size[0] // 16, moment)


@torch.no_grad()
def encode_drawn(vae: AutoencoderKLFlux2, pictures: Iterable[NDArray[np.uint8]]) -> Tensor:
    """Encode pictures of one size, a few at a time."""
    parts, rest = [], iter(pictures)
    while some := list(islice(rest, 8)):
        images = torch.stack([to_tensor(picture) for picture in some])
        images = images.float().div(127.5).sub(1).to(memory_format=torch.channels_last)
        parts.append(normalise(vae, vae.encode(images).latent_dist.mean.contiguous()).half())
    return torch.cat(parts)


def fill_bucket(vae: AutoencoderKLFlux2, size: Size, count: int, seed: int) -> Bucket:
    """A bucket of fresh scenes."""
    rng = np.random.default_rng(seed)
    scenes = [draw_lot(rng) for _ in range(count)]
    return Bucket(size, scenes, encode_drawn(vae, (draw(scene, *size, rng) for scene in scenes)))


def batches(bucket: Bucket, size: int, rng: np.random.Generator) -> Iterator[Batch]:
    """Endless batches, every scene once before any comes again, but only some of the easier landscapes."""
    ids = token_ids(bucket.size)
    plain = np.array([scene.kind == "shapes" for scene in bucket.scenes])
    while True:
        order = rng.permutation(np.nonzero(plain | (rng.random(len(plain)) < LANDSCAPE_SHARE))[0])
        for start in range(0, len(order) - size + 1, size):
            chosen = order[start : start + size]
            captions = ["" if rng.random() < EMPTY_SHARE else caption(bucket.scenes[i], rng) for i in chosen]
            clean = bucket.latents[torch.from_numpy(chosen)].float().flatten(2).transpose(1, 2)
            yield Batch(captions, clean, clean[:, :0], ids)
