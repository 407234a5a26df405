"""Muon for the matrices and convolutions, AdamW for the rest, and the learning-rate schedule."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """Push the singular values of a stack of matrices towards one by a Newton-Schulz iteration.

    All of it happens on the small Gram matrices and the product is applied once: the same to 1e-6, and two and a half
    times as fast for matrices that are much wider than tall.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices / (matrices.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    gram = x @ x.mT
    identity = torch.eye(gram.shape[-1], dtype=x.dtype, device=x.device)
    product = identity
    for _ in range(steps):
        push = a * identity + b * gram + c * gram @ gram
        product = push @ product
        gram = push @ push @ gram
        # Rounding would let it drift from symmetry, and the iteration with it.
        gram = (gram + gram.mT) / 2
    x = product @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum, made orthogonal; a convolution counts as the matrix (out, in x height x width)."""

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.01) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        """Move every matrix by an update of equal size in every direction, those of one shape together."""
        for group in self.param_groups:
            alike: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is not None:
                    alike[weight.shape].append(weight)
            for weights in alike.values():
                self._move(weights, group)

    def _move(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        updates = orthogonalise(torch.stack([self._momentum(weight, group["momentum"]) for weight in weights]))
        scale = max(1.0, updates.shape[-2] / updates.shape[-1]) ** 0.5
        for weight, update in zip(weights, updates, strict=True):
            weight.mul_(1 - group["lr"] * group["weight_decay"])
            weight.add_(update.view_as(weight), alpha=-group["lr"] * scale)

    def _momentum(self, weight: Tensor, keep: float) -> Tensor:
        """Nesterov's momentum as a matrix."""
        buffer = self.state[weight].setdefault("momentum", torch.zeros_like(weight))
        buffer.lerp_(weight.grad, 1 - keep)
        return weight.grad.lerp(buffer, keep).flatten(1)


def build(
    model: nn.Module, matrix_lr: float, other_lr: float, plain: Callable[[str], bool]
) -> list[torch.optim.Optimizer]:
    """Muon for weights of two or more dimensions, AdamW for the rest and for those `plain` names."""
    matrices, others = [], []
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            (others if weight.ndim < 2 or plain(name) else matrices).append(weight)
    return [Muon(matrices, matrix_lr), torch.optim.AdamW(others, other_lr, betas=(0.9, 0.98), weight_decay=0.0)]


def pace(optimizers: list[torch.optim.Optimizer], base: list[float], done: float, hold: float = 0.0) -> None:
    """Set learning rates for a share of the run: a short rise, a level stretch, then half a cosine."""
    rise = 0.01
    fall = max(0.0, (done - max(hold, rise)) / (1 - max(hold, rise)))
    share = done / rise if done < rise else 0.5 + 0.5 * math.cos(math.pi * fall)
    for optimizer, lr in zip(optimizers, base, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = lr * max(share, 0.01)


@torch.no_grad()
def follow(average: nn.Module, model: nn.Module, keep: float) -> None:
    """Move a running average of the weights a little towards the weights."""
    for slow, fast in zip(average.parameters(), model.parameters(), strict=True):
        slow.lerp_(fast, 1 - keep)
