"""A text encoder as a language model: the decoder's config, and whether its files contain the complete model.

FLUX.2 encodes prompts with the first layers of an instruct model: klein with Qwen3, dev with Mistral Small 3. Text
generation also needs the other layers, the last norm and the head.
"""

import re
from dataclasses import dataclass

from mflux_api.checkpoints.checkpoint import Checkpoint
from mflux_api.checkpoints.safetensors import Config, Tensor
from mflux_api.checkpoints.tensor_names import LM_HEAD_WEIGHT, map_decoder_name
from mflux_api.errors import ModelUnsupported

# Defaults of transformers: for a Mistral3Config without a text_config, and for values missing in a text_config.
MISTRAL_SMALL_3_CONFIG = {
    "vocab_size": 131072,
    "hidden_size": 5120,
    "num_hidden_layers": 40,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 32768,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e9,
    "sliding_window": None,
}
MISTRAL_DEFAULTS = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "rms_norm_eps": 1e-6,
    "sliding_window": 4096,
}
NORM = "norm.weight"
EMBEDDING = "embed_tokens.weight"
# In tokens: the longest prompt for upsampling, including its chat template, and the longest answer.
MAX_INPUT_TOKENS = 1024
MAX_NEW_TOKENS = 256


def is_mistral(config: Config) -> bool:
    """Return whether a text encoder's config.json is that of a Mistral 3, or of its decoder alone."""
    return "text_config" in config or config.get("model_type") in {"mistral", "mistral3"}


def complete_decoder_config(config: Config) -> Config:
    """Return the decoder's config from config.json, with transformers' defaults for missing values."""
    if config.get("model_type") == "mistral3" and not config.get("text_config"):
        return dict(MISTRAL_SMALL_3_CONFIG)
    return {**MISTRAL_DEFAULTS, **(config.get("text_config") or config)}


@dataclass(frozen=True)
class LanguageModel:
    """A complete language model. `layers`: all layers; `prompt_layers`: the first ones, which also encode prompts.

    `tie_word_embeddings`: the embedding is also the head. `tail`: tensors needed beside those of the prompt encoder.
    `cached_values`: the largest number of values in its key and value cache.
    """

    layers: int
    prompt_layers: int
    tie_word_embeddings: bool
    tail: dict[str, Tensor]
    cached_values: int


def find_language_model(checkpoint: Checkpoint) -> LanguageModel:
    """Return the text encoder as a language model. Raises ModelUnsupported if its files are not a complete one."""
    if not checkpoint.has_language_model:
        raise _unavailable("its text encoder was trained to read prompts and cannot write.")
    shards = checkpoint.text_encoder.shards
    tensors = {
        name: tensor for shard in shards for old, tensor in shard.tensors.items() if (name := map_decoder_name(old))
    }
    whole = checkpoint.text_encoder.config
    config = complete_decoder_config(whole)
    layers, read = int(config["num_hidden_layers"]), max(checkpoint.out_layers)
    last = f"layers.{layers - 1}.mlp.down_proj.weight"
    tied = LM_HEAD_WEIGHT not in tensors
    # In a Mistral 3 the outer config sets this.
    may_be_tied = bool(whole.get("tie_word_embeddings"))
    if not {NORM, EMBEDDING, last} <= tensors.keys() or (tied and not may_be_tied):
        raise _unavailable(
            "the files of its text encoder hold only what prompts are read with, as those that mflux saves."
        )
    heads = int(config.get("num_key_value_heads") or config["num_attention_heads"])
    head = int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])
    memory = 2 * layers * heads * head * (MAX_INPUT_TOKENS + MAX_NEW_TOKENS)
    tail = {name: tensor for name, tensor in tensors.items() if _is_in_tail(name, read)}
    return LanguageModel(layers=layers, prompt_layers=read, tie_word_embeddings=tied, tail=tail, cached_values=memory)


def map_tail_name(name: str, prompt_layers: int) -> str | None:
    """Map a tensor's name to the tail, the part that does not encode prompts; None if it is not in the tail."""
    known = map_decoder_name(name)
    if known is None or not _is_in_tail(known, prompt_layers):
        return None
    return re.sub(r"^layers\.(\d+)\.", lambda match: f"layers.{int(match[1]) - prompt_layers}.", known)


def _is_in_tail(name: str, prompt_layers: int) -> bool:
    layer = re.match(r"layers\.(\d+)\.", name)
    return int(layer[1]) >= prompt_layers if layer else name.startswith(("norm.", "lm_head."))


def _unavailable(reason: str) -> ModelUnsupported:
    return ModelUnsupported(f"prompt_upsampling is not available with this model: {reason}", field="prompt_upsampling")
