"""Names that LoRA trainers give to the layers outside FLUX.2's blocks, in mflux's words.

mflux's own mapping knows every naming of the blocks, and of these layers only some. diffusers' converters
(`loaders/lora_conversion_utils.py`) are the source of the pairs.
"""

import re

from mflux_api.checkpoints.tensor_names import OUTER as PUBLISHED

# Trainers' name -> mflux's: Black Forest Labs' names, then diffusers'.
OUTER = {
    **PUBLISHED,
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
