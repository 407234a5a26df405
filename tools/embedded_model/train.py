"""The whole run in one command: VAE, text encoder, banks of scenes, transformer, export. Started again, it goes on."""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from diffusers import AutoencoderKLFlux2, Flux2Transformer2DModel

from export import export_model
from keeping import Keeper
from networks import Painter
from painter_stage import CHECKPOINT as PAINTER_CHECKPOINT
from painter_stage import Run
from progress import Deadline
from store import save_checkpoint
from text import TOKENIZER, load_tokenizer
from text_stage import load_text, train_text
from vae import FINISHED, PREVIEW, finish_vae, train_vae

HERE = Path(__file__).resolve().parent
# The directions of noise in which the shipped weights read the free variables.
SHIPPED_CARRIERS = HERE / "carriers.json"


@dataclass(frozen=True)
class Plan:
    """How much of everything."""

    vae_steps: int
    vae_scenes: int
    text_steps: int
    text_batch: int
    painter_steps: int


FULL = Plan(vae_steps=2250, vae_scenes=2400, text_steps=2500, text_batch=80, painter_steps=10_000)
QUICK = Plan(vae_steps=4, vae_scenes=16, text_steps=6, text_batch=16, painter_steps=14)


def copy_start(start: Path, work: Path) -> None:
    """Take the VAE and the tokenizer of a published checkpoint; they are not trained further."""
    vae = AutoencoderKLFlux2.from_pretrained(start / "vae", torch_dtype=torch.float32)
    shutil.copytree(start / "tokenizer", work / TOKENIZER)
    shutil.copyfile(start / "vae" / PREVIEW, work / PREVIEW)
    save_checkpoint(work / FINISHED, {"model": vae}, 0, 0)


def make_run(work: Path, start: Path | None) -> Run:
    """The transformer's run with the text encoder of stage 2, and with a published transformer to go on from."""

    def prepare(painter: Painter) -> bool:
        if start:
            told = Flux2Transformer2DModel.from_pretrained(start / "transformer", torch_dtype=torch.float32)
            painter.transformer.load_state_dict(told.state_dict())
        load_text(work, painter)
        return start is not None

    run = Run(work, load_tokenizer(work), prepare)
    if start and run.step == 0:
        run.pupil.carriers.copy_(torch.tensor(json.loads(SHIPPED_CARRIERS.read_text())))
    return run


@contextmanager
def drawing_beside(work: Path, quick: bool) -> Iterator[None]:
    """Draw banks in a process of its own as long as the training runs."""
    command = [sys.executable, str(HERE / "banks.py"), "--work", str(work), *(["--quick"] if quick else [])]
    drawer = subprocess.Popen(command)
    try:
        if quick:
            drawer.wait()
        yield
    finally:
        drawer.terminate()
        drawer.wait()


def run_stages(work: Path, plan: Plan, deadline: Deadline, *, start: Path | None, quick: bool) -> bool:
    """Every stage in turn; false when the time was up before the end."""
    if start and not (work / FINISHED).exists():
        copy_start(start, work)
    if not (work / FINISHED).exists():
        if not train_vae(work, plan.vae_steps, plan.vae_scenes, deadline):
            return False
        finish_vae(work, max(plan.vae_scenes // 4, 8))
    tokenizer = load_tokenizer(work)
    with drawing_beside(work, quick):
        keeper = Keeper(start) if start else None
        done = train_text(
            work, tokenizer, steps=plan.text_steps, batch=plan.text_batch, deadline=deadline, keeper=keeper
        )
        return done and make_run(work, start).go(plan.painter_steps, deadline)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints and banks; kept between calls")
    parser.add_argument("--target", type=Path, help="the published layout goes here (default: WORK/model)")
    parser.add_argument("--start", type=Path, help="a published checkpoint to train on instead of random weights")
    parser.add_argument("--seconds", type=float, help="stop after so long; the next call goes on")
    parser.add_argument("--steps", type=int, help="of the transformer in all, instead of the plan's")
    parser.add_argument("--threads", type=int, default=1, help="of the training; the drawing takes one more")
    parser.add_argument("--quick", action="store_true", help="a few steps of every stage: shows that all of them run")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    deadline = Deadline(args.seconds)
    plan = QUICK if args.quick else FULL
    plan = replace(plan, painter_steps=args.steps or plan.painter_steps)
    done = run_stages(args.work, plan, deadline, start=args.start, quick=args.quick)
    if (args.work / PAINTER_CHECKPOINT).exists():
        export_model(args.work, args.target or args.work / "model")
        print(f"exported to {args.target or args.work / 'model'}")
    print("done" if done else "stopped: the same command goes on")


if __name__ == "__main__":
    main()
