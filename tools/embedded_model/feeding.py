"""Batches for the transformer: banks opened as they are drawn, subsets of their tokens, captions worded anew."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from banks import Bank
from captions import caption
from diet import EARLY_SHARE, KINDS, ROUNDS, Kind
from edits import word_request
from labels import label_scene
from networks import image_ids
from supervision import BLOCKS, Lesson
from text import MAX_TOKENS

EMPTY_SHARE = 0.05
IDLE_SHARE = 0.1
REQUEST_SHARE = 0.55
SECOND_SHARE = 0.25
# From here on half of the batches are whole pictures.
WHOLE_FROM = 0.85
DULL_WORTH = 0.12


@dataclass(frozen=True)
class Batch:
    """Captions, the tokens to learn and their references, all positions, and the lesson of the heads.

    `kind` is its name in the diet, `words` are the positions of the text tokens to read, `tokens` how many image tokens
    the whole picture has.
    """

    kind: str
    captions: list[str]
    clean: Tensor
    references: Tensor
    places: Tensor
    words: Tensor
    tokens: int
    lesson: Lesson


class OpenBank:
    """A bank with everything laid out by tokens, dealt in batches without repeating before all were seen."""

    def __init__(self, kind: Kind, bank: Bank) -> None:
        self.kind, self.scenes, self.edits = kind, bank.scenes, bank.edits or []
        self.rows, self.columns = bank.size[1] // 16, bank.size[0] // 16
        self.tokens = self.rows * self.columns
        self.ids = image_ids(self.rows, self.columns)
        self.latents = bank.latents.flatten(2).transpose(1, 2).contiguous()
        self.coarse, self.covers = self._by_token(bank.coarse), self._by_token(bank.covers)
        self.quantiles, self.spots = bank.quantiles, bank.spots
        self.classes = torch.tensor([label_scene(scene) for scene in bank.scenes])
        self.plain = torch.tensor([scene.kind == "landscape" for scene in bank.scenes])
        # A token is worth more where something happens in it.
        sharp = self.coarse.float().div(127).unflatten(2, (3, BLOCKS)).std(-1).mean(-1)
        self.worth = (DULL_WORTH + (sharp / 0.25).clamp(0, 1)).half()
        if bank.before is not None and bank.coarse_before is not None:
            self.before = bank.before.flatten(2).transpose(1, 2).contiguous()
            self.coarse_before = self._by_token(bank.coarse_before)
            self.classes_before = torch.tensor([label_scene(edit.before) for edit in self.edits])
        self.order: list[int] = []

    def _by_token(self, maps: Tensor) -> Tensor:
        """(N, C, 4H, 4W) to (N, T, 16 C)."""
        blocks = maps.view(*maps.shape[:2], self.rows, 4, self.columns, 4)
        return blocks.permute(0, 2, 4, 1, 3, 5).reshape(len(maps), self.tokens, -1)

    def deal(self, whole: bool, rng: np.random.Generator) -> Batch:
        """The next batch: a subset of the tokens of each scene, or fewer scenes whole."""
        count, whole = self.kind.batch, whole or self.kind.subset == 1
        if whole:
            count = max(4, int(count * self.kind.subset))
        if len(self.order) < count:
            self.order = [int(index) for index in rng.permutation(len(self.scenes))]
        index, self.order = torch.tensor(self.order[:count]), self.order[count:]
        chosen = (
            torch.arange(self.tokens).expand(count, -1) if whole else self._choose_tokens(index, self.kind.image_tokens)
        )
        words = MAX_TOKENS if whole else round(MAX_TOKENS * self.kind.subset)
        return self._serve(index, chosen, np.sort(rng.permutation(MAX_TOKENS)[:words]), rng)

    def _choose_tokens(self, index: Tensor, subset: int) -> Tensor:
        """Tokens by lot without replacement, those worth more sooner (the first in an exponential race)."""
        worth = self.worth[index].float()
        race = torch.rand(worth.shape).log().neg() / worth
        return race.topk(subset, largest=False).indices.sort(dim=1).values

    def _serve(self, index: Tensor, chosen: Tensor, words: np.ndarray, rng: np.random.Generator) -> Batch:
        clean, coarse, classes = self.latents[index].float(), self.coarse[index], self.classes[index]
        places, references, quantiles = self.ids[chosen], clean[:, :0], self.quantiles[index]
        if self.edits:
            idle = torch.from_numpy(rng.random(len(index)) < IDLE_SHARE)
            captions = [self._ask(int(i), still, rng) for i, still in zip(index, idle.tolist(), strict=True)]
            before = self.before[index].float()
            clean = torch.where(idle[:, None, None], before, clean)
            coarse = torch.where(idle[:, None, None], self.coarse_before[index], coarse)
            classes = torch.where(idle[:, None], self.classes_before[index], classes)
            references, places = self._refer(before, chosen, places, rng)
            # An edit's free variables are its reference's, not the noise's.
            quantiles = torch.zeros_like(quantiles)
        else:
            captions = ["" if rng.random() < EMPTY_SHARE else caption(self.scenes[int(i)], rng) for i in index]
        lesson = Lesson(
            places=self.ids[chosen][..., 1:3],
            sides=(self.rows, self.columns),
            spots=self.spots[index],
            classes=classes,
            coarse=take(coarse, chosen).float() / 127,
            covers=take(self.covers[index], chosen).float() / 255 * 2,
            quantiles=torch.where(quantiles == 0, torch.randn(quantiles.shape), quantiles),
            plain=self.plain[index],
        )
        return Batch(
            kind=self.kind.name,
            captions=captions,
            clean=take(clean, chosen),
            references=references,
            places=places,
            words=torch.from_numpy(words),
            tokens=self.tokens,
            lesson=lesson,
        )

    def _ask(self, index: int, still: bool, rng: np.random.Generator) -> str:
        """Half of the prompts ask for the change, the others say what is wanted; without words the reference stays."""
        if still:
            return ""
        edit = self.edits[index]
        return word_request(edit, rng) if rng.random() < REQUEST_SHARE else caption(edit.after, rng)

    def _refer(self, before: Tensor, chosen: Tensor, places: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """The reference's tokens and positions, and now and then a second picture that has nothing to do with it."""
        pictures = [before]
        if rng.random() < SECOND_SHARE:
            pictures.append(before.roll(1, dims=0))
        moments = [10.0 * (number + 1) for number in range(len(pictures))]
        far = [torch.cat([torch.full_like(places[..., :1], moment), places[..., 1:]], -1) for moment in moments]
        return torch.cat([take(picture, chosen) for picture in pictures], 1), torch.cat([places, *far], 1)


def take(values: Tensor, chosen: Tensor) -> Tensor:
    """The values (B, T, C) of the chosen tokens (B, K)."""
    return values.gather(1, chosen[:, :, None].expand(-1, -1, values.shape[-1]))


class Kitchen:
    """All banks that are drawn so far."""

    def __init__(self, work: Path, rng: np.random.Generator) -> None:
        self.work, self.rng = work, rng
        self.banks: dict[Path, OpenBank] = {}

    def open_new(self) -> None:
        """Take up the banks that were drawn since."""
        for kind in KINDS:
            for path in (kind.bank(self.work, number) for number in range(ROUNDS)):
                if path not in self.banks and path.exists():
                    self.banks[path] = OpenBank(kind, Bank.load(path))

    def serve(self, done: float) -> Batch:
        """A batch of a kind by lot, by its share at this point of the run."""
        early = done < EARLY_SHARE
        ready = [kind for kind in KINDS if any(bank.kind == kind for bank in self.banks.values())]
        weights = np.array([kind.early if early else kind.late for kind in ready])
        if not weights.sum():
            weights = np.ones(len(ready))
        kind = ready[int(self.rng.choice(len(ready), p=weights / weights.sum()))]
        banks = [bank for bank in self.banks.values() if bank.kind == kind]
        sizes = np.array([len(bank.scenes) for bank in banks], float)
        bank = banks[int(self.rng.choice(len(banks), p=sizes / sizes.sum()))]
        whole = done > WHOLE_FROM and self.rng.random() < 0.5
        return bank.deal(whole, self.rng)
