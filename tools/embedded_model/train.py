"""Stage 2: train the text encoder and the transformer together by flow matching on cached latents."""

import argparse
import copy
import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import Qwen2Tokenizer

import optim
from buckets import DIETS, Diet
from edits import edit_batches
from export import tokenizer_of
from networks import Painter
from painter_data import Batch, batches
from store import load_checkpoint, load_part, save_checkpoint
from text import encode

STEPS = 4
EARLY_SHARE = 0.7
EXACT_SHARE = 0.85
EARLY_ODDS = (0.55, 0.20, 0.13, 0.12)
LATE_ODDS = (0.34, 0.24, 0.20, 0.22)
Odds = tuple[float, float, float, float]
PLAIN = ("embed", "proj_out", "modulation", "norm_out", "norm")


def inference_sigmas(tokens: int, steps: int = STEPS) -> list[float]:
    """The noise levels of diffusers' schedule for this many image tokens, without the last zero."""
    few = 8.73809524e-05 * tokens + 1.89833333
    many = 0.00016927 * tokens + 0.45666666
    slope = (many - few) / 190
    mu = slope * steps + many - 200 * slope
    return [math.exp(mu) / (math.exp(mu) + 1 / s - 1) for s in np.linspace(1, 1 / steps, steps)]


def draw_times(count: int, tokens: int, odds: Odds, rng: np.random.Generator) -> Tensor:
    """Noise levels: most often those of inference, above all pure noise, and otherwise any level.

    The latents say everything many times over, so that a picture shows through all but the strongest noise: only close
    to pure noise does the caption matter, and only there is its meaning learned.
    """
    exact = rng.choice(inference_sigmas(tokens), size=count, p=odds)
    exact = np.clip(exact + rng.normal(0, 0.006, count) * (exact < 1), 0, 1)
    spread = 1 / (1 + np.exp(-(1.0 + 1.2 * rng.standard_normal(count))))
    return torch.from_numpy(np.where(rng.random(count) < EXACT_SHARE, exact, spread).astype(np.float32))


def flow_loss(
    painter: Painter, tokenizer: Qwen2Tokenizer, batch: Batch, odds: Odds, rng: np.random.Generator
) -> Tensor:
    """Mean squared error of the velocity from picture to noise; references are seen but not judged."""
    clean = batch.clean
    times = draw_times(len(clean), clean.shape[1], odds, rng)
    noise = torch.randn_like(clean)
    noisy = torch.lerp(clean, noise, times[:, None, None])
    text = painter.read(*encode(tokenizer, batch.captions))
    velocity = painter(torch.cat([noisy, batch.references], dim=1), times, text, batch.ids)
    return (velocity[:, : clean.shape[1]] - (noise - clean)).square().mean()


class Run:
    """One training run: weights, their running average, optimizers, and the buckets opened so far."""

    def __init__(self, work: Path, minutes: float, matrix_rate: float, other_rate: float, compile_blocks: bool) -> None:
        self.work, self.seconds, self.rates = work, minutes * 60, [matrix_rate, other_rate]
        self.painter = Painter()
        if (work / "start.pt").exists():
            load_part(work / "start.pt", "model", self.painter)
        self.average = copy.deepcopy(self.painter)
        self.optimizers = optim.build(
            self.painter, matrix_rate, other_rate, lambda name: any(word in name for word in PLAIN)
        )
        self.parts = {
            "model": self.painter,
            "average": self.average,
            "muon": self.optimizers[0],
            "adamw": self.optimizers[1],
        }
        self.before, self.step = load_checkpoint(work / "painter.pt", self.parts)
        self.rng = np.random.default_rng(100 + self.step)
        torch.manual_seed(100 + self.step)
        self.tokenizer = tokenizer_of(work)
        self.feeds: dict[Diet, Iterator[Batch]] = {}
        if compile_blocks:
            self.painter.transformer.compile_repeated_blocks(dynamic=True)

    def feed(self, diet: Diet) -> Iterator[Batch]:
        """The batches of a bucket."""
        if diet not in self.feeds:
            print(f"opened {diet.path(self.work).name}", flush=True)
            bucket = torch.load(diet.path(self.work), weights_only=False)
            self.feeds[diet] = (edit_batches if diet.edits else batches)(bucket, diet.batch, self.rng)
        return self.feeds[diet]

    def choose(self, done: float) -> Diet:
        """A bucket by lot, of those that are drawn by now."""
        ready = [diet for diet in DIETS if diet.path(self.work).exists()]
        weights = np.array([diet.early if done < EARLY_SHARE else diet.late for diet in ready])
        return ready[int(self.rng.choice(len(ready), p=weights / weights.sum()))]

    def learn(self, done: float) -> float:
        """One step on one batch."""
        odds = EARLY_ODDS if done < EARLY_SHARE else LATE_ODDS
        loss = flow_loss(self.painter, self.tokenizer, next(self.feed(self.choose(done))), odds, self.rng)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.painter.parameters(), 1.0)
        optim.pace(self.optimizers, self.rates, done, hold=EARLY_SHARE)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        optim.follow(self.average, self.painter, min(0.99, (1 + self.step) / (10 + self.step)))
        return loss.item()

    def go(self) -> None:
        """Train until the time is spent, saving every hundred steps."""
        start, losses = time.monotonic(), []
        while (spent := self.before + time.monotonic() - start) < self.seconds:
            losses.append(self.learn(spent / self.seconds))
            if self.step % 50 == 0:
                print(f"step {self.step} {spent:.0f}s loss {np.mean(losses[-50:]):.4f}", flush=True)
            if self.step % 100 == 0:
                save_checkpoint(self.work / "painter.pt", self.parts, spent, self.step)
        save_checkpoint(self.work / "painter.pt", self.parts, self.seconds, self.step)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--work", type=Path, required=True, help="folder with the VAE's checkpoint; receives this stage's"
    )
    parser.add_argument("--minutes", type=float, default=85)
    parser.add_argument("--matrix-rate", type=float, default=0.012)
    parser.add_argument("--other-rate", type=float, default=1.2e-3)
    parser.add_argument("--compile", action="store_true", help="compile the transformer's blocks")
    args = parser.parse_args()
    torch.set_num_threads(2)
    Run(args.work, args.minutes, args.matrix_rate, args.other_rate, args.compile).go()
