"""Make tests/reference: tiny random checkpoints, LoRA files, and the pictures of diffusers in float32."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import Flux2KleinInpaintPipeline, Flux2KleinKVPipeline, Flux2KleinPipeline, Flux2Pipeline
from diffusers.pipelines.flux2 import pipeline_flux2_klein_inpaint
from networks_dev import DEV_CHECKPOINTS, build_dev
from safetensors.torch import save_file

from networks import CHECKPOINTS, build

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "tests" / "reference"
sys.path.insert(0, str(ROOT))

from tests.reference.cases import CASES, ENCODINGS, Case, Encoding  # noqa: E402

PIPELINES: dict[str, tuple[type, dict[str, bool]]] = {
    "klein": (Flux2KleinPipeline, {"is_distilled": True}),
    "base": (Flux2KleinPipeline, {"is_distilled": False}),
    "inpaint": (Flux2KleinInpaintPipeline, {"is_distilled": True}),
    "inpaint-base": (Flux2KleinInpaintPipeline, {"is_distilled": False}),
    "kv": (Flux2KleinKVPipeline, {"is_distilled": True}),
    "dev": (Flux2Pipeline, {}),
}
PARTS = ("scheduler", "vae", "text_encoder", "tokenizer", "transformer")
# diffusers' layer names -> those of Black Forest Labs, which kohya's and ComfyUI's files use.
BFL_BLOCK = {
    "attn.to_q": "img_attn.qkv",
    "attn.add_q_proj": "txt_attn.qkv",
    "attn.to_out.0": "img_attn.proj",
    "attn.to_add_out": "txt_attn.proj",
    "ff.linear_in": "img_mlp.0",
    "ff.linear_out": "img_mlp.2",
    "ff_context.linear_in": "txt_mlp.0",
    "ff_context.linear_out": "txt_mlp.2",
    "attn.to_qkv_mlp_proj": "linear1",
    "attn.to_out": "linear2",
}
BFL_OUTER = {
    "x_embedder": "img_in",
    "context_embedder": "txt_in",
    "time_guidance_embed.timestep_embedder.linear_1": "time_in.in_layer",
    "time_guidance_embed.timestep_embedder.linear_2": "time_in.out_layer",
    "time_guidance_embed.guidance_embedder.linear_1": "guidance_in.in_layer",
    "time_guidance_embed.guidance_embedder.linear_2": "guidance_in.out_layer",
    "proj_out": "final_layer.linear",
}
FUSED = {
    "attn.to_q": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "attn.add_q_proj": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
}
RANK, ALPHA = 4, 6.0


def main() -> None:
    torch.set_num_threads(1)
    for name in (*CHECKPOINTS, *DEV_CHECKPOINTS):
        write_checkpoint(name, REFERENCE / "checkpoints" / name)
    write_loras()
    for folder in ("cases", "encodings"):
        shutil.rmtree(REFERENCE / folder, ignore_errors=True)
    for encoding in ENCODINGS:
        encoding.store(*encode(encoding))
    for case in CASES:
        pixels = paint(case)
        case.store(pixels)
        print(f"{case.name:24} mean {pixels.mean():.3f} deviation {pixels.std():.3f}")


def write_checkpoint(name: str, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    torch.manual_seed(0)
    pipe = build(name) if name in CHECKPOINTS else build_dev(name)
    pipe.to(torch.bfloat16).save_pretrained(folder)
    # Our own entries in the index; diffusers takes them as arguments of a call instead.
    path = folder / "model_index.json"
    index = json.loads(path.read_text()) | (CHECKPOINTS | DEV_CHECKPOINTS)[name]["index"]
    path.write_text(json.dumps(index, indent=2) + "\n")


def paint(case: Case) -> np.ndarray:
    pipe = load(case)
    pipeline_flux2_klein_inpaint.randn_tensor = lambda *_, **__: torch.from_numpy(case.latents)
    for lora, _ in case.loras:
        adapter = lora.replace(".", "_")
        pipe.load_lora_weights(str(REFERENCE / "loras"), weight_name=f"{lora}.safetensors", adapter_name=adapter)
    if case.loras:
        names = [lora.replace(".", "_") for lora, _ in case.loras]
        pipe.set_adapters(names, [scale for _, scale in case.loras])
    return pipe(**arguments(case, pipe)).images[0]


def load(case: Case) -> Any:
    folder = REFERENCE / "checkpoints" / case.checkpoint
    kind = Flux2Pipeline if case.pipeline == "dev" else Flux2KleinPipeline
    loaded = kind.from_pretrained(folder, dtype=torch.float32)
    parts = {part: getattr(loaded, part) for part in PARTS}
    kind, options = PIPELINES[case.pipeline]
    pipe = kind(**parts, **options) if kind is not Flux2KleinKVPipeline else kind(**parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def arguments(case: Case, pipe: Any) -> dict[str, Any]:
    words: dict[str, Any] = {
        "prompt": case.prompt,
        "num_inference_steps": case.steps,
        "latents": None if case.seeded else torch.from_numpy(case.latents),
        "output_type": "np",
        **text_options(case.checkpoint, (10, 20, 30) if case.pipeline == "dev" else (9, 18, 27)),
    }
    if case.pipeline.startswith("inpaint"):
        words |= {"image": case.source, "mask_image": case.mask, "strength": case.strength}
        words |= {"image_reference": case.images[0]} if case.images else {}
    else:
        words |= {"width": case.width, "height": case.height, "image": case.images or None}
    if case.pipeline != "kv":
        words["guidance_scale"] = case.guidance
    if case.negative:
        pipe.encode_prompt = negative_encoder(pipe.encode_prompt, case.negative)
    return words


def text_options(checkpoint: str, layers: tuple[int, ...]) -> dict[str, Any]:
    index = json.loads((REFERENCE / "checkpoints" / checkpoint / "model_index.json").read_text())
    return {
        "max_sequence_length": index.get("max_sequence_length", 512),
        "text_encoder_out_layers": tuple(index.get("text_encoder_out_layers", layers)),
    }


def encode(encoding: Encoding) -> tuple[np.ndarray, np.ndarray]:
    """Encode a prompt with dev's text encoder. Returns the attention mask and the hidden states."""
    pipe = load(Case(name="", pipeline="dev", checkpoint=encoding.checkpoint))
    options = text_options(encoding.checkpoint, (10, 20, 30))
    masks: list[torch.Tensor] = []
    pipe.text_encoder.register_forward_pre_hook(
        lambda _, __, words: masks.append(words["attention_mask"]), with_kwargs=True
    )
    states, _ = pipe.encode_prompt(encoding.prompt, **options)
    return masks[0][0].numpy(), states[0].detach().numpy()


def negative_encoder(encode: Callable[..., Any], negative: str) -> Callable[..., Any]:
    """Replace the empty prompt by `negative`: diffusers' pipeline uses the empty one as the only negative prompt."""

    def encode_prompt(prompt: str, **rest: Any) -> Any:
        return encode(prompt=prompt if prompt != "" else negative, **rest)

    return encode_prompt


def write_loras() -> None:
    transformer = load(Case(name="", checkpoint="klein")).transformer
    folder = REFERENCE / "loras"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for seed, name in enumerate(("style", "detail")):
        factors = draw_factors(transformer, seed)
        save_file(in_diffusers_names(factors), folder / f"{name}.diffusers.safetensors")
        save_file(in_bfl_names(factors), folder / f"{name}.bfl.safetensors")
        save_file(in_kohya_names(factors), folder / f"{name}.kohya.safetensors")
    factors = draw_factors(load(Case(name="", pipeline="dev", checkpoint="dev")).transformer, 2)
    save_file(in_diffusers_names(factors), folder / "dev.diffusers.safetensors")


Factors = dict[str, tuple[torch.Tensor, torch.Tensor]]


def draw_factors(transformer: torch.nn.Module, seed: int) -> Factors:
    """Draw random LoRA factors for the linear layers in and outside the blocks.

    Query, key and value share the lower factor, as in files with fused layers.
    """
    generator = torch.Generator().manual_seed(seed)
    factors: Factors = {}
    lower: dict[str, torch.Tensor] = {}
    for name, module in transformer.named_modules():
        if isinstance(module, torch.nn.Linear) and ("transformer_blocks" in name or name in BFL_OUTER):
            rows, columns = module.weight.shape
            down = torch.randn(RANK, columns, generator=generator) / columns**0.5
            down = lower.setdefault(first_of_fused(name), down)
            factors[name] = (down, torch.randn(rows, RANK, generator=generator) * 0.3)
    return factors


def first_of_fused(name: str) -> str:
    for first, parts in FUSED.items():
        for part in parts:
            if name.endswith(part):
                return name.removesuffix(part) + first
    return name


def in_diffusers_names(factors: Factors) -> dict[str, torch.Tensor]:
    tensors = {}
    for name, (down, up) in factors.items():
        tensors[f"transformer.{name}.lora_A.weight"] = down.clone()
        tensors[f"transformer.{name}.lora_B.weight"] = up.clone()
    return tensors


def in_bfl_names(factors: Factors) -> dict[str, torch.Tensor]:
    tensors = {}
    for name, (down, up) in bfl_layers(factors):
        tensors[f"diffusion_model.{name}.lora_A.weight"] = down.clone()
        tensors[f"diffusion_model.{name}.lora_B.weight"] = up.clone()
    return tensors


def in_kohya_names(factors: Factors) -> dict[str, torch.Tensor]:
    tensors = {}
    for name, (down, up) in bfl_layers(factors):
        layer = f"lora_unet_{name.replace('.', '_')}"
        tensors[f"{layer}.lora_down.weight"] = down.clone()
        tensors[f"{layer}.lora_up.weight"] = up.clone()
        tensors[f"{layer}.alpha"] = torch.tensor(ALPHA)
    return tensors


def bfl_layers(factors: Factors) -> Iterator[tuple[str, tuple[torch.Tensor, torch.Tensor]]]:
    for name, (down, up) in factors.items():
        if name in BFL_OUTER:
            yield BFL_OUTER[name], (down, up)
            continue
        blocks, number, layer = name.split(".", 2)
        if layer in BFL_BLOCK:
            ups = [factors[f"{blocks}.{number}.{part}"][1] for part in FUSED.get(layer, (layer,))]
            short = "single_blocks" if blocks.startswith("single") else "double_blocks"
            yield f"{short}.{number}.{BFL_BLOCK[layer]}", (down, torch.cat(ups))


if __name__ == "__main__":
    main()
