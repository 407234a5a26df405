"""Build the three networks from a checkpoint's configuration with mflux's MLX modules.

Large transformers are evaluated block by block and never compiled: macOS kills a command buffer that keeps the GPU busy
for seconds. One step of 32 billion weights as a single graph is such a buffer, even more if it is compiled. One of its
56 blocks takes some tenths of a second.
"""

import math
from typing import Any, TypeAlias

import mlx.core as mx
import numpy as np
from mflux.models.flux2.model.flux2_text_encoder.qwen3_text_encoder import Qwen3TextEncoder
from mflux.models.flux2.model.flux2_transformer.single_transformer_block import Flux2SingleTransformerBlock
from mflux.models.flux2.model.flux2_transformer.timestep_guidance_embeddings import Flux2TimestepGuidanceEmbeddings
from mflux.models.flux2.model.flux2_transformer.transformer import Flux2Transformer
from mflux.models.flux2.model.flux2_transformer.transformer_block import Flux2TransformerBlock
from mflux.models.flux2.model.flux2_vae.decoder.decoder import Flux2Decoder
from mflux.models.flux2.model.flux2_vae.encoder.encoder import Flux2Encoder
from mflux.models.flux2.model.flux2_vae.vae import Flux2VAE
from mlx import nn

from mflux_api.checkpoints.language_model import complete_decoder_config, is_mistral
from mflux_api.checkpoints.safetensors import Config
from mflux_api.engine.flux2.mistral import MistralEncoder, read_rope_theta
from mflux_api.errors import ModelUnsupported


class EvaluatedBlock(Flux2TransformerBlock):  # type: ignore[misc]
    """mflux's block, evaluated before it returns."""

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        outputs = super().__call__(*inputs, **named)
        mx.eval(outputs)
        return outputs


class EvaluatedSingleBlock(Flux2SingleTransformerBlock):  # type: ignore[misc]
    """mflux's single-stream block, evaluated before it returns."""

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        outputs = super().__call__(*inputs, **named)
        mx.eval(outputs)
        return outputs


def evaluate_by_block(transformer: Flux2Transformer) -> None:
    """Make every block evaluate its output, in place."""
    for block in transformer.transformer_blocks:
        block.__class__ = EvaluatedBlock
    for block in transformer.single_transformer_blocks:
        block.__class__ = EvaluatedSingleBlock


LONGEST_PERIOD = 10_000.0


class TimeGuidanceEmbeddings(Flux2TimestepGuidanceEmbeddings):  # type: ignore[misc]
    """mflux's module with frequencies in float32 as torch computes them.

    mflux computes them with MLX's exponential, which is wrong by a few units in the last place. A guidance of 4 is the
    angle 4000 here, so the error becomes 2e-4 radians: the picture of a dev checkpoint differs from diffusers' by 5e-5,
    and with exact frequencies by 1.5e-5.
    """

    def __call__(self, timestep: mx.array, guidance: mx.array | None) -> mx.array:
        """Map noise level and guidance, both times 1000 and (batch,), to (batch, hidden)."""
        embedded: mx.array = self.linear_2(nn.silu(self.linear_1(embed_timesteps(timestep, self.in_channels))))
        if guidance is None or self.guidance_linear_1 is None:
            return embedded
        inner = nn.silu(self.guidance_linear_1(embed_timesteps(guidance, self.in_channels)))
        guided: mx.array = self.guidance_linear_2(inner)
        return embedded + guided


def embed_timesteps(values: mx.array, channels: int) -> mx.array:
    """Return cosines, then sines, of the values times frequencies from 1 down to 1 / 10000. float32 (batch, channels).

    An odd number of channels ends in 0. Source: diffusers' `get_timestep_embedding` with flip_sin_to_cos and without a
    shift.
    """
    half = channels // 2
    exponents = np.float32(-math.log(LONGEST_PERIOD)) * np.arange(half, dtype=np.float32) / np.float32(half)
    frequencies = mx.array(np.exp(exponents.astype(np.float64)).astype(np.float32))
    angles = values.astype(mx.float32)[:, None] * frequencies
    return mx.concatenate([mx.cos(angles), mx.sin(angles), mx.zeros((len(values), channels % 2))], axis=-1)


EMBEDDING_STATE = 0
# The three halvings between four levels make the factor of 8 between pixels and latents.
VAE_LEVELS = 4


def build_transformer(config: Config) -> Flux2Transformer:
    """Build the transformer from `transformer/config.json` of diffusers' Flux2Transformer2DModel."""
    transformer = Flux2Transformer(
        patch_size=config.get("patch_size", 1),
        in_channels=config.get("in_channels", 128),
        out_channels=config.get("out_channels"),
        num_layers=config.get("num_layers", 8),
        num_single_layers=config.get("num_single_layers", 48),
        attention_head_dim=config.get("attention_head_dim", 128),
        num_attention_heads=config.get("num_attention_heads", 48),
        joint_attention_dim=config.get("joint_attention_dim", 15360),
        timestep_guidance_channels=config.get("timestep_guidance_channels", 256),
        mlp_ratio=config.get("mlp_ratio", 3.0),
        axes_dims_rope=tuple(config.get("axes_dims_rope", (32, 32, 32, 32))),
        rope_theta=config.get("rope_theta", 2000),
        guidance_embeds=config.get("guidance_embeds", True),
    )
    _set_eps(transformer, float(config.get("eps", 1e-6)))
    transformer.time_guidance_embed.__class__ = TimeGuidanceEmbeddings
    if config.get("guidance_embeds", True):
        evaluate_by_block(transformer)
    return transformer


def _set_eps(transformer: nn.Module, eps: float) -> None:
    # mflux fixes these at 1e-5 (query and key) and 1e-6. diffusers takes all of them from the config.
    for module in transformer.modules():
        if isinstance(module, (nn.RMSNorm, nn.LayerNorm)):
            module.eps = eps


class Qwen3Encoder(Qwen3TextEncoder):  # type: ignore[misc]
    """Qwen3 up to the last hidden state needed. Later layers are neither loaded nor computed."""

    def __init__(self, config: Config, states: tuple[int, ...]) -> None:
        total = int(config["num_hidden_layers"])
        if not states or max(states) > total or min(states) < EMBEDDING_STATE:
            raise ModelUnsupported(
                f"Hidden states {list(states)} are asked of a text encoder with {total} layers.", layers=list(states)
            )
        super().__init__(
            vocab_size=config["vocab_size"],
            hidden_size=config["hidden_size"],
            num_hidden_layers=max(states),
            num_attention_heads=config["num_attention_heads"],
            num_key_value_heads=config.get("num_key_value_heads") or config["num_attention_heads"],
            intermediate_size=config["intermediate_size"],
            rope_theta=read_rope_theta(config),
            rms_norm_eps=config.get("rms_norm_eps", 1e-6),
            head_dim=config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"],
            attention_bias=config.get("attention_bias", False),
        )
        self.states = states
        # In transformers, only the last hidden state is normalised by the final norm.
        self.final_state = total
        if max(states) < total:
            del self.norm

    def __call__(self, input_ids: mx.array, attention_mask: mx.array) -> mx.array:
        """Map token ids and mask, int32 (1, L) each, to stacked hidden states (1, L, states * hidden)."""
        hidden = self.embed_tokens(input_ids)
        rotary = self.rotary_emb(hidden, mx.arange(input_ids.shape[1])[None])
        mask = make_causal_mask(attention_mask, hidden.dtype)
        states = {EMBEDDING_STATE: hidden}
        for number, layer in enumerate(self.layers, start=1):
            hidden, _ = layer(hidden, mask, rotary)
            states[number] = hidden
        if self.final_state in self.states:
            states[self.final_state] = self.norm(hidden)
        return mx.concatenate([states[number] for number in self.states], axis=-1)


def make_causal_mask(attention_mask: mx.array, dtype: mx.Dtype) -> mx.array:
    """Make an additive causal mask, (1, 1, L, L), from an attention mask (1, L) that is 1 for visible tokens."""
    length = attention_mask.shape[1]
    visible = mx.tril(mx.ones((length, length), dtype=mx.bool_), k=0) & (attention_mask[:, None, None, :] == 1)
    return mx.where(visible, mx.array(0, dtype=dtype), mx.array(-float("inf"), dtype=dtype))


Encoder: TypeAlias = Qwen3Encoder | MistralEncoder


def build_text_encoder(config: Config, states: tuple[int, ...]) -> Encoder:
    """Build the text encoder from `text_encoder/config.json` of a Mistral 3 (FLUX.2-dev) or a Qwen3 (klein)."""
    return MistralEncoder(config, states) if is_mistral(config) else Qwen3Encoder(config, states)


class LanguageModelTail(nn.Module):
    """The part of the language model that the text encoder lacks: the last layers, the final norm and the head.

    With `tie_word_embeddings` there is no head; the embedding is used in its place.
    """

    def __init__(self, config: Config, prompt_layers: int, *, tie_word_embeddings: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        sizes = complete_decoder_config(config) if is_mistral(config) else config
        whole = build_text_encoder(config, (int(sizes["num_hidden_layers"]),))
        self.layers = whole.layers[prompt_layers:]
        self.norm = whole.norm
        if not tie_word_embeddings:
            self.lm_head = nn.Linear(sizes["hidden_size"], sizes["vocab_size"], bias=False)


def build_vae(config: Config) -> Flux2VAE:
    """Build the VAE from `vae/config.json` of diffusers' AutoencoderKLFlux2. Raises ModelUnsupported."""
    channels = config.get("latent_channels", 32)
    widths = tuple(config.get("block_out_channels", (128, 256, 512, 512)))
    _check_vae(config, widths)
    vae = Flux2VAE()
    vae.latent_channels = channels
    shared = {
        "layers_per_block": config.get("layers_per_block", 2),
        "norm_num_groups": config.get("norm_num_groups", 32),
        "mid_block_add_attention": config.get("mid_block_add_attention", True),
    }
    decoder_widths = tuple(config.get("decoder_block_out_channels") or widths)
    vae.encoder = Flux2Encoder(config.get("in_channels", 3), channels, widths, **shared)
    vae.decoder = Flux2Decoder(channels, config.get("out_channels", 3), decoder_widths, **shared)
    vae.quant_conv = _pointwise(config.get("use_quant_conv", True), 2 * channels)
    vae.post_quant_conv = _pointwise(config.get("use_post_quant_conv", True), channels)
    vae.bn.running_mean = mx.zeros((4 * channels,))
    vae.bn.running_var = mx.ones((4 * channels,))
    vae.bn.eps = float(config.get("batch_norm_eps", 1e-4))
    return vae


def _check_vae(config: Config, widths: tuple[int, ...]) -> None:
    patch = tuple(config.get("patch_size", (2, 2)))
    if config.get("act_fn", "silu") != "silu" or patch != (2, 2) or len(widths) != VAE_LEVELS:
        raise ModelUnsupported(
            f"The VAE must have act_fn silu, patch_size 2x2 and {VAE_LEVELS} levels of block_out_channels."
        )


def _pointwise(used: bool, channels: int) -> nn.Module:
    return nn.Conv2d(channels, channels, kernel_size=1) if used else nn.Identity()
