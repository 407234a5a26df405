"""Names that LoRA trainers give to the layers outside FLUX.2's blocks, in mflux's words.

mflux's own mapping knows every naming of the blocks, and of these layers only some. diffusers' converters
(`loaders/lora_conversion_utils.py`) are the source of the pairs.
"""

import re

# Trainers' name -> mflux's. The first group are Black Forest Labs' names, the second diffusers'.
OUTER = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in.in_layer": "time_guidance_embed.linear_1",
    "time_in.out_layer": "time_guidance_embed.linear_2",
    "guidance_in.in_layer": "time_guidance_embed.guidance_linear_1",
    "guidance_in.out_layer": "time_guidance_embed.guidance_linear_2",
    "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
    "single_stream_modulation.lin": "single_stream_modulation.linear",
    "double_stream_modulation_img.lin": "double_stream_modulation_img.linear",
    "double_stream_modulation_txt.lin": "double_stream_modulation_txt.linear",
    "time_guidance_embed.timestep_embedder.linear_1": "time_guidance_embed.linear_1",
    "time_guidance_embed.timestep_embedder.linear_2": "time_guidance_embed.linear_2",
    "time_guidance_embed.guidance_embedder.linear_1": "time_guidance_embed.guidance_linear_1",
    "time_guidance_embed.guidance_embedder.linear_2": "time_guidance_embed.guidance_linear_2",
}
PREFIXES = ("", "transformer.", "diffusion_model.", "base_model.model.")
DOTTED = {f"{prefix}{theirs}": f"transformer.{ours}" for theirs, ours in OUTER.items() for prefix in PREFIXES}
KOHYA = {f"lora_unet_{theirs.replace('.', '_')}": f"transformer.{ours}" for theirs, ours in OUTER.items()}
KNOWN = DOTTED | KOHYA
FACTOR = re.compile(r"\.(lora_(A|B|up|down)(\.default)?(\.weight)?|alpha)$")


def known_name(key: str) -> str:
    """The key of a LoRA file as mflux's mapping knows it; PEFT's adapter name "default" is left out."""
    factor = FACTOR.search(key)
    if factor is None:
        return key
    layer = key[: factor.start()]
    return KNOWN.get(layer, layer) + factor[0].replace(".default", "")
