"""Paint held-out captions with a model, or take drawings or finished pictures, and count what is right."""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from captions import caption
from pictures import draw
from scenes import Scene, draw_lot
from scorer import Verdict, judge

Case = tuple[Scene, str]


class Painter(Protocol):
    """Anything that makes pictures of captions."""

    def paint(self, captions: list[str], size: int, seed: int) -> Iterator[Image.Image]:
        """One picture a caption, in order."""
        ...


class DiffusersPainter:
    """The checkpoint run by diffusers' own pipeline, several captions at a time."""

    def __init__(self, folder: Path, steps: int, batch: int = 10) -> None:
        import torch
        from diffusers import Flux2KleinPipeline

        told = json.loads((folder / "model_index.json").read_text())
        self.torch, self.steps, self.batch = torch, steps, batch
        self.extra = {
            "max_sequence_length": told["max_sequence_length"],
            "text_encoder_out_layers": tuple(told["text_encoder_out_layers"]),
        }
        self.pipeline = Flux2KleinPipeline.from_pretrained(folder, dtype=torch.float32)
        self.pipeline.set_progress_bar_config(disable=True)

    def paint(self, captions: list[str], size: int, seed: int) -> Iterator[Image.Image]:
        """One picture a caption, in order."""
        for start in range(0, len(captions), self.batch):
            part = captions[start : start + self.batch]
            generators = [self.torch.Generator().manual_seed(seed + start + i) for i in range(len(part))]
            yield from self.pipeline(
                prompt=part,
                height=size,
                width=size,
                num_inference_steps=self.steps,
                guidance_scale=1.0,
                generator=generators,
                **self.extra,
            ).images


class ProjectPainter:
    """The project's own library."""

    def __init__(self, name: str, steps: int) -> None:
        import mflux_api

        self.model, self.steps = mflux_api.load_model(name), steps

    def paint(self, captions: list[str], size: int, seed: int) -> Iterator[Image.Image]:
        """One picture a caption, in order."""
        for number, text in enumerate(captions):
            made = self.model.generate(
                text, width=size, height=size, steps=self.steps, guidance=1.0, seeds=(seed + number,)
            )
            yield made[0].image


def test_cases(count: int, seed: int, plain: bool) -> list[Case]:
    """Scenes that training never sees, with captions."""
    rng = np.random.default_rng(seed)
    scenes = [draw_lot(rng, held_out=True) for _ in range(count)]
    return [(scene, caption(scene, rng, plain)) for scene in scenes]


def drawings(cases: list[Case], size: int, seed: int) -> Iterator[NDArray[np.uint8]]:
    """The truth: what the grammar itself draws."""
    rng = np.random.default_rng(seed)
    for scene, _ in cases:
        yield draw(scene, size, size, rng)


def reconstructions(pictures: Iterable[NDArray[np.uint8]], folder: Path) -> Iterator[NDArray[np.uint8]]:
    """Pictures through the checkpoint's VAE and back; prints how much of them is left."""
    import torch
    from diffusers import AutoencoderKLFlux2

    vae = AutoencoderKLFlux2.from_pretrained(folder / "vae", dtype=torch.float32)
    ratios = []
    for picture in pictures:
        image = torch.from_numpy(picture.transpose(2, 0, 1).copy()).float()[None] / 127.5 - 1
        with torch.no_grad():
            got = vae.decode(vae.encode(image).latent_dist.mean).sample.clamp(-1, 1)
        ratios.append(-10 * float(((got - image) / 2).square().mean().log10()))
        yield (got[0].permute(1, 2, 0).add(1).mul(127.5) + 0.5).byte().numpy()
    print(f"psnr {np.mean(ratios):.2f} dB, worst {min(ratios):.2f}")


def folder_pictures(folder: Path) -> Iterator[NDArray[np.uint8]]:
    """Pictures of the cases in the order of their names."""
    for path in sorted(folder.iterdir()):
        yield np.asarray(Image.open(path).convert("RGB"))


def judge_all(
    cases: list[Case], pictures: Iterable[NDArray[np.uint8]], keep: Path | None = None
) -> list[tuple[str, Verdict]]:
    """Every verdict with its caption; pictures are kept in a folder when one is given."""
    verdicts = []
    for number, (picture, (scene, text)) in enumerate(zip(pictures, cases, strict=False)):
        verdicts += [(text, verdict) for verdict in judge(scene, picture)]
        if keep:
            keep.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(keep / f"{number:04d}.png")
    return verdicts


def table(verdicts: list[tuple[str, Verdict]]) -> str:
    """One line a question: how many of how many are right."""
    counts: dict[str, list[bool]] = defaultdict(list)
    for _, verdict in verdicts:
        counts[verdict.name].append(verdict.right)
    return "\n".join(
        f"{name:<11} {100 * np.mean(right):6.1f} %  ({sum(right)} of {len(right)})" for name, right in counts.items()
    )


def pictures_of(args: argparse.Namespace, cases: list[Case]) -> Iterable[NDArray[np.uint8]]:
    """The pictures to judge, from wherever the command line says."""
    if args.painter == "drawings":
        return drawings(cases, args.size, args.seed)
    if args.painter == "vae":
        return reconstructions(drawings(cases, args.size, args.seed), Path(args.model))
    if args.painter == "folder":
        return folder_pictures(Path(args.model))
    painter: Painter = (
        DiffusersPainter(Path(args.model), args.steps)
        if args.painter == "diffusers"
        else ProjectPainter(args.model, args.steps)
    )
    made = painter.paint([text for _, text in cases], args.size, args.seed)
    return (np.asarray(image.convert("RGB")) for image in made)


def main() -> None:
    """Read the command line, paint, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("painter", choices=("diffusers", "project", "drawings", "vae", "folder"))
    parser.add_argument("--model", default="flux2-tiny", help="checkpoint folder, model name or picture folder")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--plain", action="store_true", help="captions without filler and unknown words")
    parser.add_argument("--keep", type=Path, help="folder for the pictures")
    parser.add_argument("--wrong", type=int, default=0, help="print this many wrong verdicts")
    args = parser.parse_args()
    cases = test_cases(args.count, args.seed, args.plain)
    verdicts = judge_all(cases, pictures_of(args, cases), args.keep)
    print(table(verdicts))
    for text, verdict in [pair for pair in verdicts if not pair[1].right][: args.wrong]:
        print(f"{verdict.name}: wanted {verdict.wanted}, seen {verdict.seen}: {text}")


if __name__ == "__main__":
    main()
