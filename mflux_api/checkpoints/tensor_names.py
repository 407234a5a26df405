"""What the tensors of a checkpoint are called here. No MLX: estimates ask too."""

import re

# Before Mistral's decoder in a Mistral3ForConditionalGeneration, as transformers 4 and 5 write it.
DECODERS = re.compile(r"^(language_model\.model|model\.language_model|model)\.")
VISION = re.compile(r"^(model\.)?(vision_tower|multi_modal_projector)\.")
HEAD = "lm_head.weight"


def transformer_name(name: str) -> str | None:
    """diffusers' Flux2Transformer2DModel -> mflux's Flux2Transformer."""
    name = name.replace("time_guidance_embed.timestep_embedder.", "time_guidance_embed.")
    name = name.replace("time_guidance_embed.guidance_embedder.", "time_guidance_embed.guidance_")
    return name.replace(".attn.to_out.0.", ".attn.to_out.")


def text_encoder_name(name: str) -> str | None:
    """transformers' Qwen3 or Mistral 3, with or without a head -> its decoder; head and vision are not used."""
    known = decoder_name(name)
    return None if known is None or known.startswith("lm_head.") else known


def decoder_name(name: str) -> str | None:
    """As `text_encoder_name`, with the head that writes."""
    return None if VISION.match(name) else DECODERS.sub("", name.replace("language_model.lm_head.", "lm_head."))


def vae_name(name: str) -> str | None:
    """diffusers' AutoencoderKLFlux2 -> mflux's Flux2VAE."""
    return None if name.endswith("num_batches_tracked") else name.replace(".to_out.0.", ".to_out.")


def same_name(name: str) -> str | None:
    """Names of a folder that mflux saved."""
    return name


# llama.cpp's names of a Qwen3 -> transformers'.
LLAMA = {
    "token_embd": "embed_tokens",
    "output_norm": "norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def llama_name(name: str) -> str:
    """A tensor of a Qwen3 in a GGUF file, as transformers calls it; others keep their name."""
    layer, _, kind = name.rpartition(".")
    block, _, inner = layer.rpartition(".")
    known = LLAMA.get(inner)
    return f"{block.replace('blk.', 'layers.')}{'.' if block else ''}{known}.{kind}" if known else name
