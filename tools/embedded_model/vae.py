"""Stage 1: train the VAE on drawn scenes, then measure its batch-norm statistics and the preview matrix."""

import json
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLFlux2
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

import optim
from latents import draw_pool, normalise, patchify, to_tensor, unpatchify
from progress import Deadline, Progress
from store import load_checkpoint, load_part, save_checkpoint

CHANNELS = (16, 32, 64, 64)
SIZES = ((128, 128), (128, 128), (128, 128), (128, 128), (192, 192), (160, 128), (128, 160), (256, 256))
NOISE = 0.3
RATES = [0.02, 0.0025]
BATCH = 16
CHECKPOINT, FINISHED, PREVIEW = "vae.pt", "vae_final.pt", "latent_rgb.json"
PLAIN = ("conv_in", "conv_out", "quant_conv", "norm")


def build_vae() -> AutoencoderKLFlux2:
    """A VAE in FLUX.2's form: 32 latent channels at an eighth of the size, no attention."""
    vae = AutoencoderKLFlux2(
        block_out_channels=CHANNELS,
        layers_per_block=1,
        latent_channels=32,
        norm_num_groups=8,
        sample_size=256,
        mid_block_add_attention=False,
    )
    with torch.no_grad():
        vae.quant_conv.weight[32:] = 0
        vae.quant_conv.bias[32:] = 0
    return vae


def reconstruct(vae: AutoencoderKLFlux2, pictures: Tensor, noise: float) -> Tensor:
    """Encode, normalise as the batch norm will, disturb, decode."""
    latents = vae.quant_conv(vae.encoder(pictures))[:, :32]
    spread, centre = torch.std_mean(latents, dim=(0, 2, 3), keepdim=True)
    latents = (latents - centre) / (spread + 1e-3)
    latents = latents + noise * torch.rand(len(latents), 1, 1, 1) * torch.randn_like(latents)
    return vae.decoder(vae.post_quant_conv(latents * (spread + 1e-3) + centre))


def loss_of(wanted: Tensor, got: Tensor) -> Tensor:
    """Absolute and squared error, the same on a four times smaller picture for the hues, and on edges."""
    error = got - wanted
    coarse = F.avg_pool2d(error, 8)
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return error.abs().mean() + 4 * error.square().mean() + coarse.abs().mean() + 0.5 * edges


def crops(pool: list[Tensor], batch: int, size: int, rng: np.random.Generator) -> Tensor:
    """Random squares cut from random pictures, half of them mirrored."""
    chosen = []
    for index in rng.integers(len(pool), size=batch):
        picture = pool[index]
        y, x = (int(rng.integers(side - size + 1)) for side in picture.shape[1:])
        cut = picture[:, y : y + size, x : x + size]
        chosen.append(cut.flip(-1) if rng.random() < 0.5 else cut)
    return torch.stack(chosen).float().div(127.5).sub(1).to(memory_format=torch.channels_last)


def psnr(vae: AutoencoderKLFlux2, pictures: Tensor) -> float:
    """The mean over pictures of the reconstruction's signal-to-noise ratio, in dB."""
    with torch.no_grad():
        got = reconstruct(vae, pictures, 0.0).clamp(-1, 1)
    error = ((got - pictures) / 2).square().mean(dim=(1, 2, 3))
    return float((-10 * torch.log10(error)).mean())


def as_images(pictures: list[NDArray[np.uint8]]) -> Tensor:
    """Pictures of one size as the VAE takes them, in -1..1."""
    return torch.stack([to_tensor(p) for p in pictures]).float().div(127.5).sub(1).to(memory_format=torch.channels_last)


def learn(vae: AutoencoderKLFlux2, optimizers: list[torch.optim.Optimizer], pictures: Tensor) -> float:
    """One step; the posterior's width is not learned, the noise is laid on by hand."""
    loss = loss_of(pictures, reconstruct(vae, pictures, NOISE))
    loss.backward()
    vae.quant_conv.weight.grad[32:] = 0
    vae.quant_conv.bias.grad[32:] = 0
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return loss.item()


def train_vae(work: Path, steps: int, scenes: int, deadline: Deadline) -> bool:
    """Train for so many steps in all, resuming where an earlier run stopped; false when the time was up before."""
    vae = build_vae().to(memory_format=torch.channels_last)
    optimizers = optim.build(vae, *RATES, lambda name: any(word in name for word in PLAIN))
    parts = {"model": vae, "muon": optimizers[0], "adamw": optimizers[1]}
    _, step = load_checkpoint(work / CHECKPOINT, parts)
    rng = np.random.default_rng(1 + step)
    pool = [to_tensor(p) for p in draw_pool(scenes, SIZES, seed=1)]
    probe = as_images(draw_pool(24, [(256, 256)], seed=2))
    progress = Progress("vae", step, steps, every=50)
    while step < steps and not deadline.passed():
        optim.pace(optimizers, RATES, step / steps)
        size, count = (64, BATCH) if step % 8 else (128, BATCH // 4)
        loss = learn(vae, optimizers, crops(pool, count, size, rng))
        step += 1
        progress.note(step, {"loss": loss})
        if step % 200 == 0:
            print(f"vae: {psnr(vae, probe):.2f} dB", flush=True)
            save_checkpoint(work / CHECKPOINT, parts, 0, step)
    save_checkpoint(work / CHECKPOINT, parts, 0, step)
    return step >= steps


def load_vae(work: Path) -> AutoencoderKLFlux2:
    """The trained VAE with its statistics."""
    vae = build_vae()
    load_part(work / FINISHED, "model", vae)
    return vae.eval()


@torch.no_grad()
def finish_vae(work: Path, scenes: int) -> None:
    """Measure the batch norm's statistics over scenes, fit the preview's matrix, and keep both with the weights."""
    vae = build_vae()
    load_part(work / CHECKPOINT, "model", vae)
    sizes = ((256, 256), (128, 128), (192, 128), (128, 192))
    images = [as_images([p]) for p in draw_pool(scenes, sizes, seed=3)]
    latents = [vae.encode(image).latent_dist.mean for image in images]
    tokens = torch.cat([patchify(one)[0].flatten(1).T for one in latents])
    vae.bn.running_mean.copy_(tokens.mean(0))
    vae.bn.running_var.copy_(tokens.var(0))
    vae.bn.num_batches_tracked.fill_(len(latents))
    vae.quant_conv.bias[32:] = torch.log(0.0025 * tokens.var())
    print(f"psnr {np.mean([psnr(vae, image) for image in images]):.2f} dB over {len(images)} scenes")
    save_checkpoint(work / FINISHED, {"model": vae}, 0, 0)
    (work / PREVIEW).write_text(json.dumps(fit_preview(vae, latents, images)))


def fit_preview(vae: AutoencoderKLFlux2, latents: list[Tensor], images: list[Tensor]) -> dict[str, object]:
    """The matrix from normalised latents, un-patchified, to colours in 0..1 at an eighth of the size."""
    inputs = torch.cat([unpatchify(normalise(vae, one))[0].flatten(1).T for one in latents])
    inputs = torch.cat([inputs, torch.ones(len(inputs), 1)], dim=1)
    colours = torch.cat([F.avg_pool2d(image / 2 + 0.5, 8)[0].flatten(1).T for image in images])
    inputs, colours = inputs.double(), colours.double()
    matrix = torch.linalg.solve(inputs.T @ inputs, inputs.T @ colours)
    print(f"preview: rms error {(inputs @ matrix - colours).square().mean().sqrt():.4f} over {len(inputs)} points")
    rows = [[round(value, 6) for value in row] for row in matrix.tolist()]
    return {"factors": rows[:32], "bias": rows[32], "domain": "normalised"}
