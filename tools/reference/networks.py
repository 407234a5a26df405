"""Random FLUX.2 klein pipelines, as small as possible, in which every tensor affects the result."""

from typing import Any

import torch
from diffusers import (
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
)
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import Qwen2TokenizerFast, Qwen3Config, Qwen3ForCausalLM

CHAT_TEMPLATE = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}"
    "{%- endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]

# "klein" has the published proportions. "odd" has an unusual value for everything that a config file can set.
CHECKPOINTS: dict[str, dict[str, dict[str, Any]]] = {
    "klein": {
        "text_encoder": {"num_hidden_layers": 28, "hidden_size": 32, "num_attention_heads": 4},
        "transformer": {"num_attention_heads": 2, "num_single_layers": 3},
        "vae": {"block_out_channels": (16, 16, 32, 32)},
        "scheduler": {},
        "index": {},
    },
    "odd": {
        "text_encoder": {
            "num_hidden_layers": 5,
            "hidden_size": 48,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "head_dim": 24,
            "intermediate_size": 80,
            "rms_norm_eps": 1e-3,
            "rope_parameters": {"rope_type": "default", "rope_theta": 5_000.0},
            "tie_word_embeddings": True,
        },
        "transformer": {
            "num_attention_heads": 3,
            "attention_head_dim": 24,
            "axes_dims_rope": (4, 8, 8, 4),
            "num_layers": 3,
            "num_single_layers": 1,
            "mlp_ratio": 2.5,
            "rope_theta": 700,
            "timestep_guidance_channels": 64,
            "eps": 1e-2,
        },
        "vae": {
            "block_out_channels": (12, 24, 24, 36),
            "decoder_block_out_channels": (12, 12, 24, 24),
            "layers_per_block": 2,
            "norm_num_groups": 6,
            "mid_block_add_attention": False,
            "batch_norm_eps": 0.3,
        },
        "scheduler": {"shift_terminal": 0.05, "time_shift_type": "linear"},
        "index": {"text_encoder_out_layers": [0, 3, 5], "max_sequence_length": 40},
    },
}


def build(name: str) -> Flux2KleinPipeline:
    """Build the pipeline of an entry of CHECKPOINTS. Every call gives the same weights."""
    torch.manual_seed(0)
    sizes = CHECKPOINTS[name]
    states = len(sizes["index"].get("text_encoder_out_layers", (9, 18, 27)))
    text_encoder = build_text_encoder(sizes["text_encoder"])
    return Flux2KleinPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0, **sizes["scheduler"]),
        vae=build_vae(sizes["vae"]),
        text_encoder=text_encoder,
        tokenizer=build_tokenizer(),
        transformer=build_transformer(states * text_encoder.config.hidden_size, sizes["transformer"]),
        is_distilled=True,
    )


def build_text_encoder(sizes: dict[str, Any]) -> Qwen3ForCausalLM:
    defaults = {"vocab_size": 512, "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 64}
    return randomise(Qwen3ForCausalLM(Qwen3Config(**{**defaults, **sizes})))


def build_transformer(joint: int, sizes: dict[str, Any]) -> Flux2Transformer2DModel:
    defaults = {"num_layers": 2, "attention_head_dim": 32, "axes_dims_rope": (8, 8, 8, 8), "guidance_embeds": False}
    return randomise(Flux2Transformer2DModel(joint_attention_dim=joint, **{**defaults, **sizes}))


def build_vae(sizes: dict[str, Any]) -> AutoencoderKLFlux2:
    vae = randomise(AutoencoderKLFlux2(**{"layers_per_block": 1, "norm_num_groups": 8, **sizes}))
    vae.bn.running_mean.normal_(0, 0.3)
    vae.bn.running_var.uniform_(0.5, 2.0)
    return vae


def randomise(module: torch.nn.Module) -> Any:
    """Randomise all parameters: weights that keep activations near 1, norms near 1, and small nonzero biases."""
    for name, parameter in module.named_parameters():
        noise = torch.randn_like(parameter)
        if parameter.ndim == 1:
            parameter.data = 0.05 * noise if name.endswith("bias") else 1 + 0.2 * noise
        else:
            parameter.data = noise / (parameter[0].numel()) ** 0.5
    return module.eval()


def build_tokenizer() -> Qwen2TokenizerFast:
    """Train a byte-level BPE of 512 tokens, which can encode any text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(["a red circle above a blue square", "a long prompt", "a green star"] * 4, trainer)
    fast = Qwen2TokenizerFast(tokenizer_object=tokenizer, pad_token=SPECIAL[0], eos_token=SPECIAL[2], unk_token=None)
    fast.chat_template = CHAT_TEMPLATE
    return fast
