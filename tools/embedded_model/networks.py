"""The text encoder and the transformer: FLUX.2 klein's classes at a tiny size, and how they are called."""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import Flux2Transformer2DModel
from diffusers.models.transformers import transformer_flux2
from torch import Tensor, nn
from transformers import Qwen3Config, Qwen3ForCausalLM

from text import MAX_TOKENS, VOCABULARY

OUT_LAYERS = (1, 2, 4)
TEXT_WIDTH = 128
HEADS, HEAD_WIDTH = 6, 32
WIDTH = HEADS * HEAD_WIDTH
CHANNELS = 128
MIDDLE = 2


def build_text_encoder() -> Qwen3ForCausalLM:
    """Five layers, the last unused: the final norm must not touch a layer that is read."""
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=TEXT_WIDTH,
        intermediate_size=256,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        tie_word_embeddings=True,
        max_position_embeddings=512,
        initializer_range=0.08,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=0,
    )
    model = Qwen3ForCausalLM(config)
    nn.init.normal_(model.model.embed_tokens.weight, std=0.7)
    nn.init.zeros_(model.model.layers[-1].self_attn.o_proj.weight)
    nn.init.zeros_(model.model.layers[-1].mlp.down_proj.weight)
    return model


def build_transformer() -> Flux2Transformer2DModel:
    """One double and four single blocks, 192 wide.

    Rotary waves of 6 to 116 tokens (theta 30) tell near places apart in pictures of 4 to 32 tokens a side; the usual
    theta of 2,000 wastes most of the dimensions on waves that such a picture never completes.
    """
    return Flux2Transformer2DModel(
        in_channels=CHANNELS,
        num_layers=1,
        num_single_layers=4,
        attention_head_dim=HEAD_WIDTH,
        num_attention_heads=HEADS,
        joint_attention_dim=len(OUT_LAYERS) * TEXT_WIDTH,
        timestep_guidance_channels=256,
        mlp_ratio=3.0,
        axes_dims_rope=(2, 14, 14, 2),
        rope_theta=30,
        guidance_embeds=False,
    )


def rotate(x: Tensor, waves: tuple[Tensor, Tensor], sequence_dim: int = 1, **_: Any) -> Tensor:
    """Turn queries or keys by their positions, which may differ from sample to sample in a batch."""
    cos, sin = (wave[None, :, None] if wave.ndim == 2 else wave[:, :, None] for wave in waves)
    real, imaginary = x.unflatten(-1, (-1, 2)).unbind(-1)
    return x * cos + torch.stack([-imaginary, real], -1).flatten(-2) * sin


# diffusers' own knows one set of positions for the whole batch; subsets of tokens need one a sample.
transformer_flux2.apply_rotary_emb = rotate


@dataclass(frozen=True)
class Felt:
    """The velocity, and what the picture's tokens hold after the double block, in the middle and at the end."""

    velocity: Tensor
    early: Tensor
    middle: Tensor
    late: Tensor


class Painter(nn.Module):
    """Text encoder and transformer together."""

    def __init__(self) -> None:
        super().__init__()
        self.text_encoder = build_text_encoder()
        self.transformer = build_transformer()

    def read(self, ids: Tensor, mask: Tensor) -> Tensor:
        """The stacked hidden states of the prompt, as Flux2KleinPipeline stacks them."""
        return stack_states(self.text_encoder, ids, mask)

    def forward(self, tokens: Tensor, times: Tensor, text: Tensor, *, words: Tensor, places: Tensor, own: int) -> Felt:
        """The velocity of the first `own` image tokens; the others are references.

        `words` are the positions of the text tokens, `places` those of the image tokens: (T, 4) for all samples alike
        or (B, T, 4).
        """
        net = self.transformer
        moment = net.time_guidance_embed(times * 1000, None)
        image_shift, text_shift = net.double_stream_modulation_img(moment), net.double_stream_modulation_txt(moment)
        single_shift = net.single_stream_modulation(moment)
        image, told = net.x_embedder(tokens), net.context_embedder(text)
        waves = self._waves(words, places)
        for block in net.transformer_blocks:
            told, image = block(
                hidden_states=image,
                encoder_hidden_states=told,
                temb_mod_img=image_shift,
                temb_mod_txt=text_shift,
                image_rotary_emb=waves,
            )
        early, middle, length = image[:, :own], image[:, :own], told.shape[1]
        both = torch.cat([told, image], 1)
        for number, block in enumerate(net.single_transformer_blocks, 1):
            both = block(hidden_states=both, encoder_hidden_states=None, temb_mod=single_shift, image_rotary_emb=waves)
            if number == MIDDLE:
                middle = both[:, length : length + own]
        late = both[:, length : length + own]
        return Felt(net.proj_out(net.norm_out(late, moment)), early, middle, late)

    def _waves(self, words: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """The rotary waves of the text and then of the image."""
        embed = self.transformer.pos_embed
        told = embed(text_ids(MAX_TOKENS)[words])
        if places.ndim == 2:
            seen = embed(places)
            return torch.cat([told[0], seen[0]]), torch.cat([told[1], seen[1]])
        seen = tuple(wave.view(*places.shape[:2], -1) for wave in embed(places.flatten(0, 1)))
        each = tuple(wave[None].expand(len(places), -1, -1) for wave in told)
        return torch.cat([each[0], seen[0]], 1), torch.cat([each[1], seen[1]], 1)


def read_states(text_encoder: Qwen3ForCausalLM, ids: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
    """The hidden states before the first and after every layer."""
    states: tuple[Tensor, ...] = text_encoder.model(
        input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=False
    ).hidden_states
    return states


def stack_states(text_encoder: Qwen3ForCausalLM, ids: Tensor, mask: Tensor) -> Tensor:
    """The states that the transformer reads, side by side."""
    states = read_states(text_encoder, ids, mask)
    return torch.cat([states[layer] for layer in OUT_LAYERS], dim=-1)


def text_ids(length: int) -> Tensor:
    """Positions (t, h, w, l) of text tokens."""
    ids = torch.zeros(length, 4)
    ids[:, 3] = torch.arange(length)
    return ids


def image_ids(height: int, width: int, moment: int = 0) -> Tensor:
    """Positions (t, h, w, l) of image tokens; references stand at t = 10, 20, ..."""
    return torch.cartesian_prod(
        torch.tensor([moment]), torch.arange(height), torch.arange(width), torch.tensor([0])
    ).float()
