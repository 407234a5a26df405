"""Train a text encoder on without losing the transformer that reads it.

The transformer sees the text through its first layer alone. So that layer's output is kept where it was: for plain
captions at every token, and for the same scene in any other words at the end of the prompt and at the padding, where
the whole scene is said. The transformer then understands the new words without a step of its own.
"""

from pathlib import Path

import torch
from diffusers import Flux2Transformer2DModel
from torch import Tensor, nn
from transformers import Qwen3ForCausalLM

from networks import OUT_LAYERS, TEXT_WIDTH, WIDTH, stack_states
from text import MAX_TOKENS

# How many of the prompt's last tokens belong to the chat template.
TEMPLATE_END = 8
PLAIN_WEIGHT, END_WEIGHT, MIDDLE_WEIGHT = 10.0, 10.0, 1.5


class Keeper(nn.Module):
    """The encoder as the transformer knows it, and the first layer that goes with the new one."""

    def __init__(self, start: Path) -> None:
        super().__init__()
        self.known = Qwen3ForCausalLM.from_pretrained(start / "text_encoder", dtype=torch.float32)
        told = Flux2Transformer2DModel.from_pretrained(start / "transformer", torch_dtype=torch.float32)
        self.embedder = nn.Linear(len(OUT_LAYERS) * TEXT_WIDTH, WIDTH, bias=False)
        self.embedder.load_state_dict(told.context_embedder.state_dict())
        self.register_buffer("weight", self.embedder.weight.detach().clone())
        self.known.requires_grad_(False)

    def loss(
        self,
        text_encoder: Qwen3ForCausalLM,
        plain: tuple[Tensor, Tensor],
        worded: tuple[Tensor, Tensor],
    ) -> Tensor:
        """How far the first layer's output has moved, from plain captions and others of the same scenes."""
        with torch.no_grad():
            wanted = stack_states(self.known, *plain) @ self.weight.T
        found = self.embedder(
            stack_states(text_encoder, torch.cat([plain[0], worded[0]]), torch.cat([plain[1], worded[1]]))
        )
        seen, said = found.chunk(2)
        spread = wanted.flatten(0, 1).var(dim=0).mean()
        source, end = match_ends(plain[1].sum(dim=1), worded[1].sum(dim=1))
        there = wanted.gather(1, source[:, :, None].expand(-1, -1, WIDTH))
        at_end = (said - there).square().mean(dim=-1)[end].mean()
        # In the middle other words say other things; but what is said there must look like text.
        in_middle = (said - wanted).square().mean(dim=-1)[~end].mean()
        moved = PLAIN_WEIGHT * (seen - wanted).square().mean() + END_WEIGHT * at_end + MIDDLE_WEIGHT * in_middle
        return moved / spread


def match_ends(plain: Tensor, worded: Tensor) -> tuple[Tensor, Tensor]:
    """From the lengths of two prompts: which token of the first answers each of the second, and where that counts."""
    places = torch.arange(MAX_TOKENS)[None]
    after = places - worded[:, None]
    in_padding = torch.maximum(places.expand(len(plain), -1), plain[:, None])
    source = torch.where(after >= 0, in_padding, plain[:, None] + after).clamp(0, MAX_TOKENS - 1)
    return source, after >= -TEMPLATE_END
