"""Deep supervision: linear heads, thrown away afterwards, that say early on what the picture is to show.

After the double block every token must say where it is and where it lies seen from each shape, and the free variables
that the noise carries; in the middle and at the end, its own coarse picture and how much both shapes cover of it.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labels import FIELDS, INDEX
from networks import WIDTH, Felt
from pictures import FREE
from scenes import COLOURS, SHAPES

WAVES = 4
COORDINATES = 4 * WAVES
NEIGHBOURS = 2 * 5
TOLD = 2 * len(SHAPES) + 3 * 3
EARLY = COORDINATES + NEIGHBOURS + TOLD
BLOCKS = 16
COARSE = (3 + 2) * BLOCKS


@dataclass(frozen=True)
class Lesson:
    """What the heads must say: `places` (B, T, 2) rows and columns, `sides` rows and columns of the whole picture."""

    places: Tensor
    sides: tuple[int, int]
    spots: Tensor
    classes: Tensor
    coarse: Tensor
    covers: Tensor
    quantiles: Tensor
    plain: Tensor


class Heads(nn.Module):
    """The linear heads."""

    def __init__(self) -> None:
        super().__init__()
        self.early, self.quantiles = nn.Linear(WIDTH, EARLY), nn.Linear(WIDTH, FREE)
        self.middle, self.late = nn.Linear(WIDTH, COARSE), nn.Linear(WIDTH, COARSE)

    def losses(self, felt: Felt, lesson: Lesson) -> tuple[Tensor, Tensor, Tensor]:
        """The errors of the early head, of both coarse heads together, and of the free variables."""
        early, middle, late = (F.layer_norm(part, part.shape[-1:]) for part in (felt.early, felt.middle, felt.late))
        wanted = torch.cat([lesson.coarse, lesson.covers], dim=-1)
        coarse = (self.middle(middle) - wanted).square().mean() + (self.late(late) - wanted).square().mean()
        quantiles = (self.quantiles(early) - lesson.quantiles[:, None]).square().mean()
        return self._early_loss(early, lesson), coarse, quantiles

    def _early_loss(self, early: Tensor, lesson: Lesson) -> Tensor:
        """Landscapes have no shapes to be seen from: only their coordinates count."""
        error = (self.early(early) - early_targets(lesson)).square()
        weight = torch.ones_like(error)
        weight[lesson.plain, :, COORDINATES:] = 0
        return (error * weight).sum() / weight.sum()


def early_targets(lesson: Lesson) -> Tensor:
    """Coordinates, the way to each shape, and the shapes' names and colours, for every token."""
    places, tokens = lesson.places, lesson.places.shape[1]
    share = (places + 0.5) / torch.tensor(lesson.sides)
    waves = share[..., None] * torch.arange(1, WAVES + 1) * math.pi
    coordinates = torch.cat([waves.sin().flatten(2), waves.cos().flatten(2)], dim=-1)
    told = torch.cat([_shape_targets(lesson.classes), _colour_targets(lesson.classes)], dim=1)
    return torch.cat([coordinates, *_neighbour_targets(lesson), told[:, None].expand(-1, tokens, -1)], dim=-1)


def _neighbour_targets(lesson: Lesson) -> tuple[Tensor, Tensor]:
    """Where each token lies seen from each shape, in radii; and how near its rim, and whether inside."""
    spots = lesson.spots[:, None]
    there, radius = (spots[..., 2] > 0).float(), spots[..., 2].clamp(min=1e-3)
    across = (lesson.places[..., 1, None] + 0.5 - spots[..., 0]) / radius
    down = (lesson.places[..., 0, None] + 0.5 - spots[..., 1]) / radius
    way = (torch.stack([across, down], dim=-1) / 2).clamp(-1, 1) * there[..., None]
    away = (way * 2).norm(dim=-1) - 1
    near = torch.cat([away.clamp(-1, 1), torch.exp(-3 * away.abs()), (away < 0).float()], dim=-1)
    return way.flatten(2), near * there.repeat(1, 1, 3)


def _shape_targets(classes: Tensor) -> Tensor:
    found = [classes[:, INDEX[name]] for name in ("shape 1", "shape 2")]
    hot = [F.one_hot(one.clamp(min=0), len(FIELDS["shape 1"])) * (one >= 0)[:, None] for one in found]
    return torch.cat(hot, dim=1).float()


def _colour_targets(classes: Tensor) -> Tensor:
    palette = torch.tensor(list(COLOURS.values()))
    found = [classes[:, INDEX[name]] for name in ("background", "colour 1", "colour 2")]
    return torch.cat([palette[one.clamp(min=0)] * (one >= 0)[:, None] for one in found], dim=1)
