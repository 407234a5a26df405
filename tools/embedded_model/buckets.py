"""Stage 2: draw and encode the buckets of scenes that the transformer learns from, those needed first first."""

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKLFlux2

from edits import EditBucket, fill_edits
from export import load_vae
from painter_data import Bucket, Size, fill_bucket


@dataclass(frozen=True)
class Diet:
    """A bucket's scenes and batch size, how often it is eaten early and late in the run, and whether it holds edits."""

    size: Size
    scenes: int
    batch: int
    early: float
    late: float
    edits: bool = False

    def path(self, work: Path) -> Path:
        """Where the bucket is kept."""
        kind = "edits" if self.edits else "scenes"
        return work / "buckets" / f"{kind}-{self.size[0]}x{self.size[1]}-{self.scenes}.pt"


DIETS = (
    Diet((128, 128), 6000, 48, 0.60, 0.10),
    Diet((160, 112), 1200, 44, 0.07, 0.02),
    Diet((112, 160), 1200, 44, 0.07, 0.02),
    Diet((64, 64), 800, 64, 0.01, 0.01),
    Diet((192, 192), 2000, 28, 0.19, 0.12),
    Diet((256, 256), 6000, 18, 0.06, 0.55),
    Diet((320, 192), 700, 18, 0.0, 0.04),
    Diet((192, 320), 700, 18, 0.0, 0.04),
    Diet((384, 384), 200, 8, 0.0, 0.01),
    Diet((512, 512), 100, 4, 0.0, 0.01),
    Diet((128, 128), 1200, 28, 0.0, 0.05, edits=True),
    Diet((256, 256), 600, 9, 0.0, 0.03, edits=True),
)


def fill(diet: Diet, vae: AutoencoderKLFlux2) -> Bucket | EditBucket:
    """Draw and encode one bucket."""
    seed = diet.size[0] * 1000 + diet.size[1]
    return (fill_edits if diet.edits else fill_bucket)(vae, diet.size, diet.scenes, seed)


def main() -> None:
    """Make what is missing; training may run beside this and takes up each bucket when it is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--work", type=Path, required=True, help="folder with the VAE's checkpoint; receives the buckets"
    )
    args = parser.parse_args()
    vae = load_vae(args.work).to(memory_format=torch.channels_last)
    for diet in sorted(DIETS, key=lambda one: (-one.early, -one.late)):
        path = diet.path(args.work)
        path.parent.mkdir(exist_ok=True)
        if not path.exists():
            torch.save(fill(diet, vae), path.with_suffix(".part"))
            path.with_suffix(".part").replace(path)
            print(f"made {path.name}", flush=True)


if __name__ == "__main__":
    main()
