"""Write the checkpoint in FLUX.2 klein's diffusers layout, and put it in place file by file, each whole."""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, Flux2KleinPipeline

from networks import OUT_LAYERS, Painter
from painter_stage import CHECKPOINT as PAINTER_CHECKPOINT
from painter_stage import Pupil
from store import load_part
from text import MAX_TOKENS, load_tokenizer
from vae import PREVIEW, load_vae


def scheduler() -> FlowMatchEulerDiscreteScheduler:
    """FLUX.2's schedule."""
    return FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=1000,
        shift=3.0,
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=1.15,
        base_image_seq_len=256,
        max_image_seq_len=4096,
        time_shift_type="exponential",
    )


def load_painter(work: Path) -> Painter:
    """The averaged weights of the transformer with the text encoder, random where training has not begun."""
    pupil = Pupil()
    if (work / PAINTER_CHECKPOINT).exists():
        load_part(work / PAINTER_CHECKPOINT, "average", pupil)
    return pupil.painter.eval()


def export_model(work: Path, target: Path) -> None:
    """Build the whole folder aside, then move every file over the old one."""
    target.mkdir(parents=True, exist_ok=True)
    # The statistics scale every latent, so they keep their full precision.
    painter, vae = load_painter(work).to(torch.bfloat16), load_vae(work).to(torch.bfloat16)
    vae.bn = load_vae(work).bn
    with tempfile.TemporaryDirectory(dir=target.parent) as made:
        folder = Path(made)
        pipeline = Flux2KleinPipeline(
            scheduler=scheduler(),
            vae=vae,
            text_encoder=painter.text_encoder,
            tokenizer=load_tokenizer(work),
            transformer=painter.transformer,
            is_distilled=True,
        )
        pipeline.save_pretrained(folder)
        shutil.copyfile(work / PREVIEW, folder / "vae" / PREVIEW)
        _say_more(folder / "model_index.json")
        _replace(folder, target)


def _say_more(index: Path) -> None:
    """Add what the loader must know beyond diffusers' own fields."""
    told = json.loads(index.read_text())
    told |= {"text_encoder_out_layers": list(OUT_LAYERS), "max_sequence_length": MAX_TOKENS, "language_model": False}
    index.write_text(json.dumps(told, indent=2) + "\n")


def _replace(folder: Path, target: Path) -> None:
    for source in sorted(p for p in folder.rglob("*") if p.is_file()):
        place = target / source.relative_to(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, place.with_name(place.name + ".part"))
        place.with_name(place.name + ".part").replace(place)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder with the stages' checkpoints")
    parser.add_argument("--target", type=Path, required=True, help="the checkpoint's folder")
    args = parser.parse_args()
    export_model(args.work, args.target)
