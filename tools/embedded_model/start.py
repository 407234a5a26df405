"""Set up a work folder from the shipped checkpoint, so that `buckets.py` and `train.py` go on from its weights."""

import argparse
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKLFlux2, Flux2Transformer2DModel
from transformers import Qwen3ForCausalLM

from export import TOKENIZER
from networks import Painter
from store import save_checkpoint


def load_shipped(folder: Path) -> Painter:
    """The stored text encoder and transformer, in float32."""
    painter = Painter()
    text_encoder = Qwen3ForCausalLM.from_pretrained(folder / "text_encoder", dtype=torch.float32)
    transformer = Flux2Transformer2DModel.from_pretrained(folder / "transformer", torch_dtype=torch.float32)
    painter.text_encoder.load_state_dict(text_encoder.state_dict())
    painter.transformer.load_state_dict(transformer.state_dict())
    return painter


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="the shipped checkpoint's folder")
    parser.add_argument("--work", type=Path, required=True, help="an empty folder for the stages' checkpoints")
    args = parser.parse_args()
    args.work.mkdir(parents=True)
    vae = AutoencoderKLFlux2.from_pretrained(args.model / "vae", torch_dtype=torch.float32)
    save_checkpoint(args.work / "vae_final.pt", {"model": vae}, 0, 0)
    save_checkpoint(args.work / "start.pt", {"model": load_shipped(args.model)}, 0, 0)
    shutil.copytree(args.model / "tokenizer", args.work / TOKENIZER)
    shutil.copyfile(args.model / "vae" / "latent_rgb.json", args.work / "latent_rgb.json")


if __name__ == "__main__":
    main()
