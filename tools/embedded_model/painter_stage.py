"""Stage 4: train the transformer by flow matching on the banks that are drawn, with the text encoder frozen."""

import copy
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import Qwen2Tokenizer

import optim
from feeding import Batch, Kitchen
from networks import Felt, Painter
from noise import couple, draw_times, inference_sigmas, measure_carriers
from pictures import FREE
from progress import Deadline, Progress
from store import load_checkpoint, save_checkpoint
from supervision import Heads
from text import encode

RATES = [0.012, 1.2e-3, 1.2e-3]
HOLD = 0.5
KEEP = 0.98
PLAIN = ("embed", "proj_out", "modulation", "norm", "heads")
ROLLOUT_FROM, ROLLOUT_SHARE = 0.35, 0.2
EARLY_WEIGHT, COARSE_WEIGHT, QUANTILE_WEIGHT, LEAST_SUPERVISION = 0.5, 1.0, 0.3, 0.1
QUIET, LOUD = 0.3, 4.0
CHECKPOINT = "painter.pt"
CHECKPOINT_EVERY = 100


class Pupil(nn.Module):
    """What is trained: the painter, the heads, and the directions that carry the free variables."""

    def __init__(self) -> None:
        super().__init__()
        self.painter, self.heads = Painter(), Heads()
        self.register_buffer("carriers", torch.zeros(FREE, 128))
        self.painter.text_encoder.requires_grad_(False)


class Flow:
    """The velocity field of one batch: everything but the noisy picture and its level is settled."""

    def __init__(self, pupil: Pupil, text: Tensor, batch: Batch) -> None:
        self.pupil, self.text, self.batch = pupil, text[:, batch.words], batch

    def __call__(self, noisy: Tensor, times: Tensor) -> Felt:
        """The velocity of the noisy picture beside its references."""
        tokens = torch.cat([noisy, self.batch.references], dim=1)
        felt: Felt = self.pupil.painter(
            tokens, times, self.text, words=self.batch.words, places=self.batch.places, own=noisy.shape[1]
        )
        return felt


def pass_noise(pupil: Pupil, text: Tensor, batch: Batch) -> None:
    """Set the ends of a fresh transformer so that its first output is the noise itself, by least squares.

    The carriers enter louder than the rest, or nothing would notice them for two thousand steps.
    """
    net = pupil.painter.transformer
    weight = nn.init.orthogonal_(torch.empty_like(net.x_embedder.weight)) * QUIET
    weight += (LOUD - 1) * (weight @ pupil.carriers.T) @ pupil.carriers
    net.x_embedder.weight.copy_(weight)
    noise = torch.randn_like(batch.clean)
    kept: list[Tensor] = []
    hook = net.proj_out.register_forward_hook(lambda _, inputs, __: kept.append(inputs[0]))
    Flow(pupil, text, batch)(noise, torch.ones(len(noise)))
    hook.remove()
    inputs, outputs = kept[0].flatten(0, 1).double(), noise.flatten(0, 1).double()
    gram = inputs.T @ inputs
    gram += 1e-3 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    net.proj_out.weight.copy_(torch.linalg.solve(gram, inputs.T @ outputs).T.float())


def roll_out(flow: Flow, noise: Tensor, tokens: int, rng: np.random.Generator) -> tuple[Tensor, float]:
    """The model's own picture after some steps from pure noise, and the noise level where it stands."""
    levels = inference_sigmas(tokens, 4 if rng.random() < 0.8 else int(rng.choice([2, 6, 8])))
    steps = int(rng.integers(1, len(levels)))
    picture = noise
    with torch.no_grad():
        for level, following in pairwise(levels[: steps + 1]):
            velocity = flow(picture, torch.full((len(noise),), level)).velocity
            picture = picture + (following - level) * velocity
    return picture, levels[steps]


class Run:
    """One training run: the pupil, its running average, and the optimizers."""

    def __init__(self, work: Path, tokenizer: Qwen2Tokenizer, prepare: Callable[[Painter], bool]) -> None:
        """`prepare` loads the text encoder, and the transformer if there is one to go on from (true then)."""
        self.work, self.tokenizer, self.rng = work, tokenizer, np.random.default_rng()
        self.pupil = Pupil()
        self.fresh = not prepare(self.pupil.painter)
        self.optimizers = self._build_optimizers()
        self.average = copy.deepcopy(self.pupil)
        names = ("muon", "adamw", "hint")
        self.parts = {"model": self.pupil, "average": self.average, **dict(zip(names, self.optimizers, strict=True))}
        _, self.step = load_checkpoint(work / CHECKPOINT, self.parts)
        self.rng = np.random.default_rng(100 + self.step)
        torch.manual_seed(100 + self.step)
        self.kitchen = Kitchen(work, self.rng)

    def _build_optimizers(self) -> list[torch.optim.Optimizer]:
        """Muon, AdamW, and an AdamW of its own for the hint that makes the free variables noticed."""
        hint = list(self.pupil.heads.quantiles.parameters())
        for weight in hint:
            weight.requires_grad_(False)
        optimizers = optim.build(self.pupil, RATES[0], RATES[1], lambda name: any(word in name for word in PLAIN))
        for weight in hint:
            weight.requires_grad_(True)
        return [*optimizers, torch.optim.AdamW(hint, RATES[2], betas=(0.9, 0.98), weight_decay=0.0)]

    @torch.no_grad()
    def begin(self, batch: Batch) -> None:
        """Before the first step: find the carriers in the banks unless they are known, and let the noise pass."""
        if not self.pupil.carriers.any():
            bank = next(iter(self.kitchen.banks.values()))
            self.pupil.carriers.copy_(measure_carriers(bank.latents))
        if self.fresh:
            pass_noise(self.pupil, self._read(batch), batch)
        self.average.load_state_dict(self.pupil.state_dict())

    @torch.no_grad()
    def _read(self, batch: Batch) -> Tensor:
        return self.pupil.painter.read(*encode(self.tokenizer, batch.captions))

    def loss(self, batch: Batch, done: float) -> tuple[Tensor, dict[str, float]]:
        """The error of the velocity and of the heads on one batch, and what is measured."""
        clean, lesson = batch.clean, batch.lesson
        flow = Flow(self.pupil, self._read(batch), batch)
        noise = couple(torch.randn_like(clean), lesson.quantiles, self.pupil.carriers, batch.tokens)
        if done > ROLLOUT_FROM and self.rng.random() < ROLLOUT_SHARE:
            noisy, level = roll_out(flow, noise, batch.tokens, self.rng)
            times, aim = torch.full((len(clean),), level), (noisy - clean) / level
        else:
            times = draw_times(len(clean), batch.tokens, self.rng)
            noisy, aim = torch.lerp(clean, noise, times[:, None, None]), noise - clean
        felt = flow(noisy, times)
        error = (felt.velocity - aim).square().mean(dim=(1, 2))
        early, coarse, quantiles = self.pupil.heads.losses(felt, lesson)
        fade = min(1.0, max(LEAST_SUPERVISION, 2 - 2 * done))
        total = error.mean() + fade * (EARLY_WEIGHT * early + COARSE_WEIGHT * coarse) + QUANTILE_WEIGHT * quantiles
        pure = error[times == 1]
        measured = {"error": error.mean(), "early": early, "coarse": coarse, "free": quantiles}
        if len(pure):
            measured |= {"pure": pure.mean(), f"[{batch.kind}]": pure.mean()}
        return total, {name: value.item() for name, value in measured.items()}

    def learn(self, batch: Batch, done: float) -> dict[str, float]:
        """One step on one batch."""
        total, measured = self.loss(batch, done)
        total.backward()
        torch.nn.utils.clip_grad_norm_(self.pupil.parameters(), 1.0)
        optim.pace(self.optimizers, RATES, done, hold=HOLD)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        optim.follow(self.average, self.pupil, min(KEEP, (1 + self.step) / (10 + self.step)))
        return measured

    def go(self, steps: int, deadline: Deadline) -> bool:
        """Train for so many steps in all; false when the time was up before."""
        progress = Progress("painter", self.step, steps, every=50)
        while self.step < steps and not deadline.passed():
            if self.step % 50 == 0 or not self.kitchen.banks:
                self.kitchen.open_new()
            batch = self.kitchen.serve(self.step / steps)
            if self.step == 0:
                self.begin(batch)
            measured = self.learn(batch, self.step / steps)
            progress.note(self.step, measured)
            if self.step % CHECKPOINT_EVERY == 0:
                self.save()
        self.save()
        return self.step >= steps

    def save(self) -> None:
        """Write the checkpoint."""
        save_checkpoint(self.work / CHECKPOINT, self.parts, 0, self.step)
