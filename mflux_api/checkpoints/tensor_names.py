"""Map tensor names of diffusers, transformers, llama.cpp and Black Forest Labs to those of the networks here.

Source for the single files by Black Forest Labs (`flux2-dev.safetensors`, GGUF):
`convert_flux2_transformer_checkpoint_to_diffusers` of diffusers. No other layout has the tensor SINGLE_FILE_MARKER.
"""

import re
from collections.abc import Mapping
from dataclasses import replace

from mflux_api.checkpoints.safetensors import Tensor

SINGLE_FILE_MARKER = "double_blocks.0.img_attn.qkv.weight"
OUTER = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in.in_layer": "time_guidance_embed.linear_1",
    "time_in.out_layer": "time_guidance_embed.linear_2",
    "guidance_in.in_layer": "time_guidance_embed.guidance_linear_1",
    "guidance_in.out_layer": "time_guidance_embed.guidance_linear_2",
    "double_stream_modulation_img.lin": "double_stream_modulation_img.linear",
    "double_stream_modulation_txt.lin": "double_stream_modulation_txt.linear",
    "single_stream_modulation.lin": "single_stream_modulation.linear",
    "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
}
BLOCKS = {"double_blocks": "transformer_blocks", "single_blocks": "single_transformer_blocks"}
INNER = {
    "img_attn.qkv": "attn.to_qkv",
    "txt_attn.qkv": "attn.add_qkv_proj",
    "img_attn.norm.query_norm": "attn.norm_q",
    "img_attn.norm.key_norm": "attn.norm_k",
    "img_attn.proj": "attn.to_out",
    "img_mlp.0": "ff.linear_in",
    "img_mlp.2": "ff.linear_out",
    "txt_attn.norm.query_norm": "attn.norm_added_q",
    "txt_attn.norm.key_norm": "attn.norm_added_k",
    "txt_attn.proj": "attn.to_add_out",
    "txt_mlp.0": "ff_context.linear_in",
    "txt_mlp.2": "ff_context.linear_out",
    "linear1": "attn.to_qkv_mlp_proj",
    "linear2": "attn.to_out",
    "norm.query_norm": "attn.norm_q",
    "norm.key_norm": "attn.norm_k",
}
FUSED = re.compile(r"(.*\.attn\.(?:to|add))_qkv((?:_proj)?\.(?:weight|scales|biases))$")
# Stored as (shift, scale) by Black Forest Labs, used as (scale, shift) here.
SWAPPED = re.compile(r"norm_out\.linear\.(?:weight|scales|biases)")


def is_single_file(tensors: Mapping[str, Tensor]) -> bool:
    return SINGLE_FILE_MARKER in tensors


def map_single_file_name(name: str) -> str | None:
    """Map a name of Black Forest Labs to mflux's, with query, key and value still fused; None for other names."""
    layer, _, kind = name.rpartition(".")
    kind = "weight" if kind == "scale" else kind
    if layer in OUTER:
        return f"{OUTER[layer]}.{kind}"
    blocks, number, inner = [*layer.split(".", 2), "", ""][:3]
    known = blocks in BLOCKS and inner in INNER
    return f"{BLOCKS[blocks]}.{number}.{INNER[inner]}.{kind}" if known else None


def split_fused_name(name: str) -> list[str]:
    """Return the names of the equal parts of a fused tensor (query, key and value), or the name itself."""
    match = FUSED.match(name)
    return [f"{match[1]}_{part}{match[2]}" for part in "qkv"] if match else [name]


def split_fused_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the header entries under mflux's names, with fused tensors split."""
    found = {}
    for old, tensor in tensors.items():
        names = split_fused_name(map_single_file_name(old) or old)
        shape = (tensor.shape[0] // len(names), *tensor.shape[1:])
        found.update({name: replace(tensor, shape=shape, nbytes=tensor.nbytes // len(names)) for name in names})
    return found


# Prefixes of a decoder's tensors. Transformers 4 and 5 write them in a Mistral3ForConditionalGeneration.
DECODERS = re.compile(r"^(language_model\.model|model\.language_model|model)\.")
VISION = re.compile(r"^(model\.)?(vision_tower|multi_modal_projector)\.")
LM_HEAD_WEIGHT = "lm_head.weight"


def map_transformer_name(name: str) -> str | None:
    """Map a name of diffusers' Flux2Transformer2DModel to mflux's Flux2Transformer."""
    name = name.replace("time_guidance_embed.timestep_embedder.", "time_guidance_embed.")
    name = name.replace("time_guidance_embed.guidance_embedder.", "time_guidance_embed.guidance_")
    return name.replace(".attn.to_out.0.", ".attn.to_out.")


def map_text_encoder_name(name: str) -> str | None:
    """Map a name of transformers' Qwen3 or Mistral 3, with or without a head, to the decoder's.

    None for the head and the vision parts, which are not used.
    """
    known = map_decoder_name(name)
    return None if known is None or known.startswith("lm_head.") else known


def map_decoder_name(name: str) -> str | None:
    """Like `map_text_encoder_name`, but keeps the language model's head."""
    return None if VISION.match(name) else DECODERS.sub("", name.replace("language_model.lm_head.", "lm_head."))


def map_vae_name(name: str) -> str | None:
    """Map a name of diffusers' AutoencoderKLFlux2 to mflux's Flux2VAE; None for unused tensors."""
    return None if name.endswith("num_batches_tracked") else name.replace(".to_out.0.", ".to_out.")


def keep_name(name: str) -> str | None:
    """Return the name unchanged, for folders that mflux saved."""
    return name


# Qwen3 layers: llama.cpp's names -> transformers'.
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


def map_llama_cpp_name(name: str) -> str:
    """Map a Qwen3 tensor's name in a GGUF file to transformers'. Other names are returned unchanged."""
    layer, _, kind = name.rpartition(".")
    block, _, inner = layer.rpartition(".")
    known = LLAMA.get(inner)
    return f"{block.replace('blk.', 'layers.')}{'.' if block else ''}{known}.{kind}" if known else name
