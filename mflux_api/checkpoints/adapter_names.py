"""Parse the tensor names of adapter files: the kind of a tensor, and the layers of the transformer it belongs to.

Sources: PEFT's and diffusers' `save_lora_adapter`, kohya's sd-scripts, OneTrainer, SimpleTuner, ai-toolkit, LyCORIS
(`lokr_`, `hada_`, `dora_scale`) and ComfyUI (`diff`, `diff_b`).
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from mflux_api.checkpoints.tensor_names import BLOCKS, INNER, OUTER, split_fused_name

# Prefixes of whole names. Trainers also nest them.
PREFIXES = re.compile(r"(transformer|diffusion_model|model|base_model|unet|module|_orig_mod)\.")
# Prefixes of names whose dots are underscores.
FLAT_PREFIXES = re.compile(r"(lora|lycoris|oft)_(unet_|transformer_)?")
# Parts of a pipeline that no adapter changes here: text encoders, and embeddings that trainers add to the file.
LEFT_OUT = re.compile(
    r"(base_model\.model\.)?(lora_te\d*_|lycoris_te\d*_|lora_text_encoder|text_encoders?(_\d)?\.|te\d*\.|"
    r"cond_stage_model\.|conditioner\.|bundle_emb\.)"
)
# An adapter's name, which PEFT writes between factor and suffix.
NAMED = r"(?:\.(?P<adapter>(?!weight$|bias$)[^.]+))?"
KINDS = {
    "down": re.compile(rf"(?:\.lora_(?:A|down){NAMED}(?:\.weight)?|[._]lora\.down\.weight)$"),
    "up": re.compile(rf"(?:\.lora_(?:B|up){NAMED}(?:\.weight)?|[._]lora\.up\.weight)$"),
    "down_bias": re.compile(rf"\.lora_(?:A|down){NAMED}\.bias$"),
    "up_bias": re.compile(rf"\.lora_(?:B|up){NAMED}\.bias$"),
    "alpha": re.compile(r"\.alpha$"),
    "magnitude": re.compile(rf"\.(?:dora_scale|lora_magnitude_vector{NAMED}(?:\.weight)?|magnitude)$"),
    **{
        part: re.compile(rf"\.{part}{NAMED}$")
        for part in ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b")
    },
    **{part: re.compile(rf"\.{part}{NAMED}$") for part in ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")},
    "diff": re.compile(r"\.(?:diff|w_norm)$"),
    "diff_bias": re.compile(r"\.(?:diff_b|b_norm)$"),
}


@dataclass(frozen=True)
class AdapterKey:
    """A parsed name. `layer`: the layer as the file names it. `adapter`: PEFT's name of the adapter, or ""."""

    layer: str
    kind: str
    adapter: str


@dataclass(frozen=True)
class Target:
    """A layer of the transformer and its share of the rows: part `index` of `parts` equal ones.

    `swapped`: the file has the halves of the rows in the other order.
    """

    path: str
    index: int
    parts: int
    swapped: bool


def parse_adapter_key(key: str) -> AdapterKey | None:
    """Return the parts of a tensor's name, or None if its kind is not known."""
    for kind, pattern in KINDS.items():
        if found := pattern.search(key):
            return AdapterKey(key[: found.start()], kind, found.groupdict().get("adapter") or "")
    return None


def is_left_out(key: str) -> bool:
    """Return whether a tensor belongs to another part of the pipeline than the transformer."""
    return LEFT_OUT.match(key) is not None


class LayerNames:
    """All names of the transformer's layers. `paths`: the layers' names in mflux's transformer."""

    def __init__(self, paths: Collection[str]) -> None:
        dotted: dict[str, list[Target]] = {path: [Target(path, 0, 1, swapped=False)] for path in paths}
        dotted.update({theirs: [Target(path, 0, 1, swapped=False)] for path in paths for theirs in _list_aliases(path)})
        dotted.update(_list_published_names(paths))
        flat = {name.replace(".", "_"): targets for name, targets in dotted.items()}
        self._targets: Mapping[str, list[Target]] = {**flat, **dotted}

    def find_targets(self, layer: str) -> list[Target]:
        """Return the layers that a name in a file means; none for a layer of another model."""
        name = layer
        while name not in self._targets and (prefix := PREFIXES.match(name)):
            name = name[prefix.end() :]
        if name in self._targets:
            return self._targets[name]
        prefix = FLAT_PREFIXES.match(name)
        if prefix is None:
            return []
        # `lycoris_transformer_blocks_0_...` starts with a layer's name, `lora_transformer_x_embedder` does not.
        short = name[prefix.end() :]
        return self._targets.get(f"{prefix[2] or ''}{short}") or self._targets.get(short, [])


def _list_aliases(path: str) -> list[str]:
    """Return the names that diffusers gives a layer, other than mflux's."""
    theirs = path.replace("time_guidance_embed.guidance_linear_", "time_guidance_embed.guidance_embedder.linear_")
    theirs = theirs.replace("time_guidance_embed.linear_", "time_guidance_embed.timestep_embedder.linear_")
    if path.startswith("transformer_blocks.") and path.endswith(".attn.to_out"):
        theirs = f"{path}.0"
    return [theirs]


def _list_published_names(paths: Collection[str]) -> dict[str, list[Target]]:
    """Return Black Forest Labs' names, and those of diffusers' fused projections."""
    found = {
        theirs: [Target(ours, 0, 1, swapped=ours == "norm_out.linear")]
        for theirs, ours in OUTER.items()
        if ours in paths
    }
    numbers = {tuple(path.split(".", 2)[:2]) for path in paths if "." in path}
    for theirs, ours in BLOCKS.items():
        for number in (number for kind, number in numbers if kind == ours):
            for inner, mine in INNER.items():
                # The two kinds of blocks have names of their own.
                if inner.startswith(("img_", "txt_")) == (theirs == "double_blocks"):
                    targets = _split(f"{ours}.{number}.{mine}")
                    if all(target.path in paths for target in targets):
                        names = [f"{theirs}.{number}.{inner}", f"{theirs}.{number}.{inner}.scale"]
                        found.update(dict.fromkeys([*names, *_list_fused_names(ours, number, mine)], targets))
    return found


def _list_fused_names(blocks: str, number: str, inner: str) -> list[str]:
    if inner not in {"attn.to_qkv", "attn.add_qkv_proj"}:
        return []
    return [f"{blocks}.{number}.{'attn.to_qkv' if inner == 'attn.to_qkv' else 'attn.to_added_qkv'}"]


def _split(path: str) -> list[Target]:
    names = [name.removesuffix(".weight") for name in split_fused_name(f"{path}.weight")]
    return [Target(name, index, len(names), swapped=False) for index, name in enumerate(names)]
