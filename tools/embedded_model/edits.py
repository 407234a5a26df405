"""Pairs for reference editing: a scene, the same layout with one thing changed, and the words that ask for it."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from diffusers import AutoencoderKLFlux2
from torch import Tensor

from captions import caption
from painter_data import Batch, Size, encode_drawn, token_ids
from pictures import draw
from scenes import COLOURS, TIMES, Landscape, Scene, Shapes, draw_lot

BACKGROUND_WORDS = ("make the background {}", "change the background to {}", "turn the background {}", "{} background")
THING_WORDS = ("make the {} {}", "change the {} to {}", "turn the {} {}", "make the {} {}")
TIME_WORDS = ("make it {}", "change it to {}", "turn it into {}", "the same at {}", "{}")


@dataclass(frozen=True)
class Edit:
    """The scene before and after, and the request in words."""

    before: Scene
    after: Scene
    request: str


def random_edit(rng: np.random.Generator) -> Edit:
    """A scene by lot with its time of day, its background or one shape's colour changed."""
    scene = draw_lot(rng)
    if isinstance(scene, Landscape):
        time = str(rng.choice([name for name in TIMES if name != scene.time]))
        return Edit(scene, replace(scene, time=time), str(rng.choice(TIME_WORDS)).format(time))
    return _recolour(scene, rng)


def _recolour(scene: Shapes, rng: np.random.Generator) -> Edit:
    used = {scene.background} | {thing.colour for thing in scene.things}
    colour = str(rng.choice([name for name in COLOURS if name not in used]))
    if rng.random() < 0.5:
        return Edit(scene, replace(scene, background=colour), str(rng.choice(BACKGROUND_WORDS)).format(colour))
    index = int(rng.integers(len(scene.things)))
    thing = scene.things[index]
    things = tuple(replace(one, colour=colour) if one is thing else one for one in scene.things)
    alone = len({one.shape for one in scene.things}) == len(scene.things) and rng.random() < 0.6
    name = thing.shape if alone else f"{thing.colour} {thing.shape}"
    return Edit(scene, replace(scene, things=things), str(rng.choice(THING_WORDS)).format(name, colour))


@dataclass
class EditBucket:
    """Edits of one size with the latents of both pictures."""

    size: Size
    edits: list[Edit]
    before: Tensor
    after: Tensor


def fill_edits(vae: AutoencoderKLFlux2, size: Size, count: int, seed: int) -> EditBucket:
    """Draw both pictures of every edit from the same chance, so that they differ in what is asked only."""
    rng = np.random.default_rng(seed)
    edits = [random_edit(rng) for _ in range(count)]
    seeds = [zlib.crc32(f"{seed} {number}".encode()) for number in range(count)]

    def pictures(scenes: list[Scene]) -> Iterator[np.ndarray]:
        return (draw(scene, *size, np.random.default_rng(chance)) for scene, chance in zip(scenes, seeds, strict=True))

    before = encode_drawn(vae, pictures([edit.before for edit in edits]))
    return EditBucket(size, edits, before, encode_drawn(vae, pictures([edit.after for edit in edits])))


def edit_batches(bucket: EditBucket, size: int, rng: np.random.Generator) -> Iterator[Batch]:
    """Endless batches with one reference, or with a second one that has nothing to do with it."""
    while True:
        order = rng.permutation(len(bucket.edits))
        for start in range(0, len(order) - size + 1, size):
            yield _edit_batch(bucket, order[start : start + size], rng)


def _edit_batch(bucket: EditBucket, chosen: np.ndarray, rng: np.random.Generator) -> Batch:
    """Half of the prompts ask for the change, the others say what is wanted; without words the reference stays."""
    idle = torch.from_numpy(rng.random(len(chosen)) < 0.1)
    index = torch.from_numpy(chosen)
    clean = torch.where(idle[:, None, None, None], bucket.before[index], bucket.after[index])
    words = [_request(bucket.edits[i], rng) for i in chosen]
    words = ["" if still else text for still, text in zip(idle.tolist(), words, strict=True)]
    references = [bucket.before[index]]
    if rng.random() < 0.25:
        references.append(bucket.before[torch.from_numpy(rng.permutation(chosen))])
    packed = [latents.float().flatten(2).transpose(1, 2) for latents in (clean, *references)]
    ids = torch.cat([token_ids(bucket.size, 10 * moment) for moment in range(len(packed))])
    return Batch(words, packed[0], torch.cat(packed[1:], dim=1), ids)


def _request(edit: Edit, rng: np.random.Generator) -> str:
    return edit.request if rng.random() < 0.5 else caption(edit.after, rng)
