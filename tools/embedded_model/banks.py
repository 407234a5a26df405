"""Stage 3: draw and encode banks of fresh scenes. Runs beside the training, which takes each bank when it is there."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLFlux2
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from diet import KINDS, ROUNDS, Kind, Size
from drawing import Jitter, cover_shapes, shift_things
from edits import Edit, random_edit
from latents import normalise, to_tensor
from pictures import draw, quantiles_to_jitter, random_quantiles
from scenes import Scene, Shapes, draw_lot
from vae import load_vae

Picture = NDArray[np.uint8]
LANDSCAPE_SHARE = 0.6


@dataclass
class Bank:
    """Scenes of one size (width, height) with what is taught about them.

    `latents` (N, 128, H, W) in tokens; `quantiles` (N, 6) are the free variables; `coarse` (N, 3, 4H, 4W) the picture
    and `covers` (N, 2, 4H, 4W) both shapes in blocks of four pixels; `spots` (N, 2, 3) the shapes' centres and radii
    in tokens. The bank of edits has the edits and the pictures before as well.
    """

    size: Size
    scenes: list[Scene]
    quantiles: Tensor
    latents: Tensor
    coarse: Tensor
    covers: Tensor
    spots: Tensor
    edits: list[Edit] | None = None
    before: Tensor | None = None
    coarse_before: Tensor | None = None

    def save(self, path: Path) -> None:
        """Write the bank whole or not at all."""
        path.parent.mkdir(exist_ok=True)
        part = path.with_suffix(".part")
        torch.save({field.name: getattr(self, field.name) for field in fields(self)}, part)
        part.replace(path)

    @staticmethod
    def load(path: Path) -> "Bank":
        """Read a bank of this workshop's own making."""
        return Bank(**torch.load(path, weights_only=False))


@dataclass(frozen=True)
class Sitting:
    """One scene about to be drawn, before and after an edit or alone, with its free variables."""

    scene: Scene
    edit: Edit | None
    quantiles: NDArray[np.float64]

    @property
    def jitter(self) -> Jitter:
        """The free variables as the drawing takes them."""
        return quantiles_to_jitter(self.quantiles)


def draw_sitting(kind: Kind, rng: np.random.Generator) -> Sitting:
    """A scene or an edit by lot; landscapes are easier and some of them are passed over."""
    while True:
        edit = random_edit(rng) if kind.edits else None
        scene = edit.after if edit else draw_lot(rng)
        if isinstance(scene, Shapes) or rng.random() < LANDSCAPE_SHARE:
            return Sitting(scene, edit, random_quantiles(scene, rng))


def place_spots(scene: Scene, size: Size, jitter: Jitter) -> NDArray[np.float32]:
    """Where the shapes stand, in tokens; zeros where there is none."""
    spots = np.zeros((2, 3), np.float32)
    if isinstance(scene, Shapes):
        for index, spot in enumerate(shift_things(scene, *size, jitter)):
            spots[index] = np.asarray(spot) / 16
    return spots


def cover(scene: Scene, size: Size, jitter: Jitter) -> Picture:
    """How much both shapes cover, zeros for landscapes."""
    if isinstance(scene, Shapes):
        return cover_shapes(scene, *size, jitter)
    return np.zeros((2, size[1] // 4, size[0] // 4), np.uint8)


@torch.no_grad()
def encode_pictures(vae: AutoencoderKLFlux2, pictures: Iterator[Picture]) -> tuple[Tensor, Tensor]:
    """Latents in half precision and coarse pictures in -127..127, a few pictures at a time."""
    latents, coarse = [], []
    while some := list(islice(pictures, 8)):
        images = torch.stack([to_tensor(picture) for picture in some]).float().div(127.5).sub(1)
        coarse.append(F.avg_pool2d(images, 4).mul(127).round().to(torch.int8))
        found = vae.encode(images.to(memory_format=torch.channels_last)).latent_dist.mean
        latents.append(normalise(vae, found.contiguous()).half())
    return torch.cat(latents), torch.cat(coarse)


def fill_bank(vae: AutoencoderKLFlux2, kind: Kind, count: int, seed: int) -> Bank:
    """Draw and encode fresh scenes."""
    rng = np.random.default_rng(seed)
    sittings = [draw_sitting(kind, rng) for _ in range(count)]
    latents, coarse = encode_pictures(vae, (draw(one.scene, *kind.size, one.jitter) for one in sittings))
    bank = Bank(
        size=kind.size,
        scenes=[one.scene for one in sittings],
        quantiles=torch.from_numpy(np.stack([one.quantiles for one in sittings])).float(),
        latents=latents,
        coarse=coarse,
        covers=torch.from_numpy(np.stack([cover(one.scene, kind.size, one.jitter) for one in sittings])),
        spots=torch.from_numpy(np.stack([place_spots(one.scene, kind.size, one.jitter) for one in sittings])),
    )
    if kind.edits:
        bank.edits = [one.edit for one in sittings if one.edit]
        earlier = (draw(one.edit.before, *kind.size, one.jitter) for one in sittings if one.edit)
        bank.before, bank.coarse_before = encode_pictures(vae, earlier)
    return bank


def draw_banks(work: Path, quick: bool) -> None:
    """Draw what is not there yet, the first round of every kind before any second one."""
    vae = load_vae(work).to(memory_format=torch.channels_last)
    for number in range(1 if quick else ROUNDS):
        for index, kind in enumerate(KINDS):
            path = kind.bank(work, number)
            if not path.exists():
                seed = 1000 * number + index
                fill_bank(vae, kind, kind.batch if quick else kind.scenes, seed).save(path)
                print(f"drew {path.name}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder with the VAE's checkpoint; receives the banks")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="one batch of each kind")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    draw_banks(args.work, args.quick)
