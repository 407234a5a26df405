"""What makes pictures of captions: diffusers' own pipeline, or the project's own library."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from PIL import Image


@dataclass(frozen=True)
class Order:
    """One picture to paint: the words, the size, the seed, and the reference of an edit."""

    caption: str
    width: int
    height: int
    seed: int
    reference: Image.Image | None = None


class Painter(Protocol):
    """Anything that makes pictures of captions."""

    def paint(self, orders: Sequence[Order]) -> Iterator[Image.Image]:
        """One picture an order, in the same sequence."""
        ...


class DiffusersPainter:
    """The checkpoint run by diffusers' own pipeline, several captions of one size at a time."""

    def __init__(self, folder: Path, steps: int, batch: int = 10) -> None:
        import torch
        from diffusers import Flux2KleinPipeline

        told = json.loads((folder / "model_index.json").read_text())
        self.torch, self.steps, self.batch = torch, steps, batch
        self.extra = {
            "max_sequence_length": told["max_sequence_length"],
            "text_encoder_out_layers": tuple(told["text_encoder_out_layers"]),
        }
        self.pipeline = Flux2KleinPipeline.from_pretrained(folder, dtype=torch.float32)
        self.pipeline.set_progress_bar_config(disable=True)

    def paint(self, orders: Sequence[Order]) -> Iterator[Image.Image]:
        """One picture an order; edits are painted one by one."""
        batch = 1 if any(order.reference for order in orders) else self.batch
        for start in range(0, len(orders), batch):
            yield from self._paint_alike(orders[start : start + batch])

    def _paint_alike(self, orders: Sequence[Order]) -> list[Image.Image]:
        references = {"image": [orders[0].reference]} if orders[0].reference else {}
        made: list[Image.Image] = self.pipeline(
            prompt=[order.caption for order in orders],
            height=orders[0].height,
            width=orders[0].width,
            num_inference_steps=self.steps,
            guidance_scale=1.0,
            generator=[self.torch.Generator().manual_seed(order.seed) for order in orders],
            **references,
            **self.extra,
        ).images
        return made


class ProjectPainter:
    """The project's own library."""

    def __init__(self, name: str, steps: int) -> None:
        import mflux_api

        self.model, self.steps = mflux_api.load_model(name), steps

    def paint(self, orders: Sequence[Order]) -> Iterator[Image.Image]:
        """One picture an order."""
        for order in orders:
            made = self.model.generate(
                order.caption,
                width=order.width,
                height=order.height,
                steps=self.steps,
                guidance=1.0,
                seeds=(order.seed,),
                images=(order.reference,) if order.reference else (),
            )
            yield made[0].image
