"""The text encoder and the transformer: FLUX.2 klein's classes at a tiny size, and how they are called."""

import torch
from diffusers import Flux2Transformer2DModel
from torch import Tensor, nn
from transformers import Qwen3Config, Qwen3ForCausalLM

from text import VOCABULARY

OUT_LAYERS = (1, 2, 4)
TEXT_WIDTH = 128


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
    """Two double and six single blocks, 192 wide; most of the rotary dimensions serve height and width."""
    model = Flux2Transformer2DModel(
        in_channels=128,
        num_layers=2,
        num_single_layers=6,
        attention_head_dim=32,
        num_attention_heads=6,
        joint_attention_dim=len(OUT_LAYERS) * TEXT_WIDTH,
        timestep_guidance_channels=256,
        mlp_ratio=3.0,
        axes_dims_rope=(4, 12, 12, 4),
        guidance_embeds=False,
    )
    nn.init.zeros_(model.proj_out.weight)
    return model


class Painter(nn.Module):
    """Text encoder and transformer together, trained as one."""

    def __init__(self) -> None:
        super().__init__()
        self.text_encoder = build_text_encoder()
        self.transformer = build_transformer()

    def read(self, ids: Tensor, mask: Tensor) -> Tensor:
        """The stacked hidden states of the prompt, as Flux2KleinPipeline stacks them."""
        states = self.text_encoder.model(
            input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=False
        ).hidden_states
        return torch.cat([states[layer] for layer in OUT_LAYERS], dim=-1)

    def forward(self, noisy: Tensor, times: Tensor, text: Tensor, image_ids: Tensor) -> Tensor:
        """The velocity for every image token, the references' included."""
        return self.transformer(
            hidden_states=noisy,
            timestep=times,
            encoder_hidden_states=text,
            img_ids=image_ids,
            txt_ids=text_ids(text.shape[1]),
            guidance=None,
            return_dict=False,
        )[0]


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
