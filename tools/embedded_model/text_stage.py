"""Stage 2: teach the text encoder, alone, to say by classes what a caption asks for; afterwards it is frozen.

The fourth layer's states at the last tokens and at the padding must give every class through a read-out that is fixed
and orthonormal: so the classes fill the states that the transformer reads and do not hide in them.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Qwen2Tokenizer, Qwen3ForCausalLM

import optim
from captions import caption
from edits import random_edit, word_request
from keeping import Keeper
from labels import CLASSES, FIELDS, REQUESTS, label_request, label_scene
from networks import OUT_LAYERS, TEXT_WIDTH, Painter, build_text_encoder, read_states
from progress import Deadline, Progress
from scenes import draw_lot
from store import load_checkpoint, save_checkpoint
from text import MAX_TOKENS, encode

RATES = [0.012, 0.002]
REQUEST_SHARE = 0.15
HOLD = 0.4
CHECKPOINT = "text.pt"


class Readout(nn.Module):
    """Class scores from a state: fixed directions at right angles, only the biases are learned."""

    def __init__(self) -> None:
        super().__init__()
        directions, _ = torch.linalg.qr(torch.randn(TEXT_WIDTH, TEXT_WIDTH, generator=torch.Generator().manual_seed(3)))
        self.register_buffer("directions", directions[:CLASSES].clone())
        self.bias = nn.Parameter(torch.zeros(CLASSES))
        self.request = nn.Linear(TEXT_WIDTH, len(REQUESTS))
        nn.init.zeros_(self.request.weight)

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Scores of all classes side by side, and of the kinds of request."""
        return states @ self.directions.T + self.bias, self.request(states)


class Reader(nn.Module):
    """The text encoder with its read-out."""

    def __init__(self) -> None:
        super().__init__()
        self.text_encoder: Qwen3ForCausalLM = build_text_encoder()
        self.readout = Readout()


@dataclass(frozen=True)
class Lesson:
    """Prompts as ids and mask, the same scenes in plain words, their classes, and what kinds of request they are."""

    prompt: tuple[Tensor, Tensor]
    plain: tuple[Tensor, Tensor]
    classes: Tensor
    kinds: Tensor


class Lessons:
    """Captions and requests with the classes that they say."""

    def __init__(self, tokenizer: Qwen2Tokenizer, seed: int) -> None:
        self.tokenizer, self.rng = tokenizer, np.random.default_rng(seed)
        self.end = tokenizer.convert_tokens_to_ids("<|im_end|>")

    def draw(self, count: int, held_out: bool = False) -> Lesson:
        """A lesson without the captions that are too long to be read whole."""
        texts, plain, classes, kinds = [], [], [], []
        for _ in range(count):
            if self.rng.random() < REQUEST_SHARE:
                edit = random_edit(self.rng, held_out)
                texts.append(word_request(edit, self.rng))
                plain.append(word_request(edit, self.rng, plain=True))
                row, kind = label_request(edit, texts[-1])
            else:
                scene = draw_lot(self.rng, held_out)
                texts.append(caption(scene, self.rng))
                plain.append(caption(scene, self.rng, plain=True))
                row, kind = label_scene(scene), 0
            classes.append(row)
            kinds.append(kind)
        (ids, mask), (plain_ids, plain_mask) = encode(self.tokenizer, texts), encode(self.tokenizer, plain)
        whole = (ids == self.end).any(dim=1)
        return Lesson(
            prompt=(ids[whole], mask[whole]),
            plain=(plain_ids[whole], plain_mask[whole]),
            classes=torch.tensor(classes)[whole],
            kinds=torch.tensor(kinds)[whole],
        )


def gather_slots(states: Tensor, mask: Tensor, rng: np.random.Generator) -> Tensor:
    """The states at the last three tokens of the prompt and at three of the padding."""
    lengths = mask.sum(dim=1)
    room = np.maximum(MAX_TOKENS - lengths.numpy(), 1)
    padding = [lengths + torch.from_numpy((rng.random(len(room)) * room).astype(np.int64)) for _ in range(3)]
    places = torch.stack([lengths - 1, lengths - 2, lengths - 3, *padding], dim=1).clamp(max=MAX_TOKENS - 1)
    return states.gather(1, places[:, :, None].expand(-1, -1, states.shape[-1]))


def class_loss(scores: Tensor, classes: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Cross entropy over the fields that apply, from scores (B, slots, CLASSES), and the share that is right."""
    total, right, start = scores.new_zeros(()), {}, 0
    for number, (name, names) in enumerate(FIELDS.items()):
        wanted = classes[:, number]
        rows = wanted >= 0
        if rows.any():
            part = scores[rows, :, start : start + len(names)]
            target = wanted[rows, None].expand(-1, part.shape[1])
            total = total + F.cross_entropy(part.flatten(0, 1), target.flatten()) * rows.float().mean()
            right[name] = (part.argmax(-1) == target).float().mean().item()
        start += len(names)
    return total, right


def lesson_loss(reader: Reader, lesson: Lesson, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
    """How wrong the reader is about a lesson, and what it gets right by field."""
    states = read_states(reader.text_encoder, *lesson.prompt)[OUT_LAYERS[-1]]
    slots = gather_slots(states, lesson.prompt[1], rng)
    scores, requests = reader.readout(slots)
    loss, right = class_loss(scores, lesson.classes)
    asked = lesson.kinds[:, None].expand(-1, slots.shape[1])
    right["request"] = (requests.argmax(-1) == asked).float().mean().item()
    return loss + F.cross_entropy(requests.flatten(0, 1), asked.flatten()), right


@torch.no_grad()
def print_exam(reader: Reader, tokenizer: Qwen2Tokenizer, count: int = 256) -> None:
    """What is right on held-out scenes, by field."""
    lessons = Lessons(tokenizer, seed=9)
    loss, right = lesson_loss(reader, lessons.draw(count, held_out=True), lessons.rng)
    print(
        f"text, held out: loss {loss.item():.3f}", {name: round(share, 3) for name, share in right.items()}, flush=True
    )


def train_text(
    work: Path,
    tokenizer: Qwen2Tokenizer,
    *,
    steps: int,
    batch: int,
    deadline: Deadline,
    keeper: Keeper | None,
) -> bool:
    """Train for so many steps in all, resuming where an earlier run stopped; false when the time was up before.

    With a keeper this begins with the encoder that it knows, and the transformer goes on understanding it.
    """
    model = nn.ModuleDict({"reader": Reader()} | ({"keeper": keeper} if keeper else {}))
    reader = model["reader"]
    if keeper:
        reader.text_encoder.load_state_dict(keeper.known.state_dict())
    plain = ("embed", "lm_head", "request")
    optimizers = optim.build(model, *RATES, lambda name: any(word in name for word in plain))
    parts = {"model": model, "muon": optimizers[0], "adamw": optimizers[1]}
    _, step = load_checkpoint(work / CHECKPOINT, parts)
    if step >= steps:
        return True
    lessons, progress = Lessons(tokenizer, seed=77 + step), Progress("text", step, steps, every=50)
    while step < steps and not deadline.passed():
        optim.pace(optimizers, RATES, step / steps, hold=HOLD)
        lesson = lessons.draw(batch)
        loss, right = lesson_loss(reader, lesson, lessons.rng)
        moved = keeper.loss(reader.text_encoder, lesson.plain, lesson.prompt) if keeper else loss.new_zeros(())
        (loss + moved).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        step += 1
        share = float(np.mean(list(right.values())))
        progress.note(step, {"loss": loss.item(), "moved": moved.item(), "right": share})
        if step % 200 == 0:
            save_checkpoint(work / CHECKPOINT, parts, 0, step)
    save_checkpoint(work / CHECKPOINT, parts, 0, step)
    print_exam(reader, tokenizer)
    return step >= steps


def load_text(work: Path, painter: Painter) -> None:
    """Give a painter the trained text encoder, and the first layer that goes with it if it was trained on."""
    model = torch.load(work / CHECKPOINT, weights_only=True)["parts"]["model"]
    head = "reader.text_encoder."
    told = {name.removeprefix(head): value for name, value in model.items() if name.startswith(head)}
    painter.text_encoder.load_state_dict(told)
    if "keeper.embedder.weight" in model:
        painter.transformer.context_embedder.load_state_dict({"weight": model["keeper.embedder.weight"]})
