"""What a text encoder is as a language model: its decoder's sizes, and whether its files hold all of one.

FLUX.2 reads prompts with the first layers of an instruct model: klein with Qwen3's, dev with Mistral Small 3's. The
other layers, the last norm and the head make it write.
"""

import re
from dataclasses import dataclass

from mflux_api.checkpoints.checkpoint import Checkpoint
from mflux_api.checkpoints.safetensors import Config, Tensor
from mflux_api.checkpoints.tensor_names import LM_HEAD_WEIGHT, map_decoder_name
from mflux_api.errors import ModelUnsupported

# transformers' own: for a Mistral3Config that says nothing of its text_config, and for what a text_config leaves out.
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
# Tokens: the longest prompt that is rewritten, with what is said around it, and the longest answer.
MAX_INPUT_TOKENS = 1024
MAX_NEW_TOKENS = 256


def is_mistral(config: Config) -> bool:
    """Whether a text encoder's config.json is that of a Mistral 3, or of its decoder alone."""
    return "text_config" in config or config.get("model_type") in {"mistral", "mistral3"}


def complete_decoder_config(config: Config) -> Config:
    """What config.json says of the decoder, gaps filled as transformers fills them."""
    if config.get("model_type") == "mistral3" and not config.get("text_config"):
        return dict(MISTRAL_SMALL_3_CONFIG)
    return {**MISTRAL_DEFAULTS, **(config.get("text_config") or config)}


@dataclass(frozen=True)
class LanguageModel:
    """A whole language model. `layers`: how many it has, `prompt_layers`: those that prompts are read with already.

    `tie_word_embeddings`: its head is its embedding; `tail`: the tensors needed beside those; `cached_values`: numbers
    it remembers at most.
    """

    layers: int
    prompt_layers: int
    tie_word_embeddings: bool
    tail: dict[str, Tensor]
    cached_values: int


def find_language_model(checkpoint: Checkpoint) -> LanguageModel:
    """Raises ModelUnsupported where the files of the text encoder are not all of a language model."""
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
    # Of a Mistral 3 the outer config decides.
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
    """A tensor's name in the part of the language model that prompts are not read with; None: it is not in it."""
    known = map_decoder_name(name)
    if known is None or not _is_in_tail(known, prompt_layers):
        return None
    return re.sub(r"^layers\.(\d+)\.", lambda match: f"layers.{int(match[1]) - prompt_layers}.", known)


def _is_in_tail(name: str, prompt_layers: int) -> bool:
    layer = re.match(r"layers\.(\d+)\.", name)
    return int(layer[1]) >= prompt_layers if layer else name.startswith(("norm.", "lm_head."))


def _unavailable(reason: str) -> ModelUnsupported:
    return ModelUnsupported(f"prompt_upsampling is not available with this model: {reason}", field="prompt_upsampling")
