"""Random FLUX.2-dev pipelines, with guidance embedding and a Mistral 3 whose vision tower is unused."""

from typing import Any

from diffusers import FlowMatchEulerDiscreteScheduler, Flux2Pipeline
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import Mistral3Config, Mistral3ForConditionalGeneration, PreTrainedTokenizerFast

from networks import build_transformer, build_vae, randomise

# The first tokens of the published tokenizer in order, from <unk> to [TOOL_CONTENT].
SPECIAL = [
    *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]"),
    *("[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]"),
    *("[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]"),
]
# Gives the published template's result for a system and a user message, each a list of texts.
CHAT_TEMPLATE = (
    "{{- bos_token }}{%- for message in messages %}"
    "{%- set word = '[SYSTEM_PROMPT]' if message['role'] == 'system' else '[INST]' %}{{- word }}"
    "{%- for block in message['content'] %}{{- block['text'] }}{%- endfor %}{{- '[/' + word[1:] }}{%- endfor %}"
)
VISION = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1, "head_dim": 16}

# "dev" has the published proportions, and a layer that is not used. "dev-odd" has an unusual value for everything that
# a config file can set.
DEV_CHECKPOINTS: dict[str, dict[str, dict[str, Any]]] = {
    "dev": {
        "text_encoder": {"num_hidden_layers": 31, "hidden_size": 32, "num_attention_heads": 4},
        "transformer": {"num_attention_heads": 2, "num_layers": 1, "num_single_layers": 1},
        "vae": {"block_out_channels": (8, 8, 16, 16)},
        "tokenizer": {"padding_side": "left"},
        "index": {},
    },
    "dev-odd": {
        "text_encoder": {
            "num_hidden_layers": 4,
            "hidden_size": 48,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "head_dim": 24,
            "intermediate_size": 80,
            "rms_norm_eps": 1e-3,
            "rope_parameters": {"rope_type": "default", "rope_theta": 5_000.0},
            "sliding_window": 24,
        },
        "transformer": {
            "num_attention_heads": 2,
            "attention_head_dim": 24,
            "axes_dims_rope": (4, 8, 8, 4),
            "num_layers": 1,
            "num_single_layers": 1,
            "mlp_ratio": 2.5,
            "rope_theta": 700,
            "timestep_guidance_channels": 64,
            "eps": 1e-2,
        },
        "vae": {"block_out_channels": (8, 16, 16, 8), "batch_norm_eps": 0.3, "mid_block_add_attention": False},
        "tokenizer": {"padding_side": "right"},
        "index": {"text_encoder_out_layers": [0, 2, 4], "max_sequence_length": 80},
    },
}


def build_dev(name: str) -> Flux2Pipeline:
    """Build the pipeline of an entry of DEV_CHECKPOINTS. The caller seeds torch."""
    sizes = DEV_CHECKPOINTS[name]
    states = len(sizes["index"].get("text_encoder_out_layers", (10, 20, 30)))
    text_encoder = build_mistral(sizes["text_encoder"])
    joint = states * text_encoder.config.text_config.hidden_size
    return Flux2Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0),
        vae=build_vae(sizes["vae"]),
        text_encoder=text_encoder,
        tokenizer=build_mistral_tokenizer(**sizes["tokenizer"]),
        transformer=build_transformer(joint, {**sizes["transformer"], "guidance_embeds": True}),
    )


def build_mistral(sizes: dict[str, Any]) -> Mistral3ForConditionalGeneration:
    defaults = {
        "vocab_size": 512,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "intermediate_size": 32,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e9},
        "sliding_window": None,
    }
    text = {"model_type": "mistral", **defaults, **sizes}
    config = Mistral3Config(text_config=text, vision_config={"model_type": "pixtral", **VISION}, image_token_index=10)
    model = randomise(Mistral3ForConditionalGeneration(config))
    for name, parameter in model.named_parameters():
        # Without this, 30 layers add up to states of about 18, on which two float32 libraries differ by 4e-5.
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            parameter.data *= 0.3
    return model


def build_mistral_tokenizer(**options: Any) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE of 512 tokens, which puts <s> first by default, like the published tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=512, special_tokens=SPECIAL, initial_alphabet=alphabet)
    learnt = "You are an AI that reasons about image descriptions focusing on object attribution and speculation"
    tokenizer.train_from_iterator([learnt, "a red circle above a blue square", "a long prompt"] * 4, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    named = {"unk_token": SPECIAL[0], "bos_token": SPECIAL[1], "eos_token": SPECIAL[2], "pad_token": SPECIAL[11]}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named, **options)
    fast.chat_template = CHAT_TEMPLATE
    return fast
