"""The names that trainers give to the transformer's layers: every layer is found in every naming."""

import pytest

from mflux_api.checkpoints.adapter_names import AdapterKey, LayerNames, Target, is_left_out, parse_adapter_key

PATHS = [
    "x_embedder",
    "context_embedder",
    "proj_out",
    "norm_out.linear",
    "time_guidance_embed.linear_1",
    "time_guidance_embed.linear_2",
    "time_guidance_embed.guidance_linear_1",
    "double_stream_modulation_img.linear",
    "transformer_blocks.0.attn.to_q",
    "transformer_blocks.0.attn.to_k",
    "transformer_blocks.0.attn.to_v",
    "transformer_blocks.0.attn.to_out",
    "transformer_blocks.0.attn.norm_q",
    "transformer_blocks.0.ff.linear_in",
    "single_transformer_blocks.12.attn.to_qkv_mlp_proj",
    "single_transformer_blocks.12.attn.to_out",
]
NAMES = LayerNames(PATHS)
PUBLISHED = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "final_layer.linear": "proj_out",
    "time_in.in_layer": "time_guidance_embed.linear_1",
    "guidance_in.in_layer": "time_guidance_embed.guidance_linear_1",
    "double_stream_modulation_img.lin": "double_stream_modulation_img.linear",
    "double_blocks.0.img_attn.proj": "transformer_blocks.0.attn.to_out",
    "double_blocks.0.img_attn.norm.query_norm": "transformer_blocks.0.attn.norm_q",
    "double_blocks.0.img_mlp.0": "transformer_blocks.0.ff.linear_in",
    "single_blocks.12.linear1": "single_transformer_blocks.12.attn.to_qkv_mlp_proj",
    "single_blocks.12.linear2": "single_transformer_blocks.12.attn.to_out",
}
DIFFUSERS = {
    **{path: path for path in PATHS},
    "transformer_blocks.0.attn.to_out.0": "transformer_blocks.0.attn.to_out",
    "time_guidance_embed.timestep_embedder.linear_2": "time_guidance_embed.linear_2",
    "time_guidance_embed.guidance_embedder.linear_1": "time_guidance_embed.guidance_linear_1",
}
PREFIXES = (
    "",
    "transformer.",
    "diffusion_model.",
    "model.diffusion_model.",
    "base_model.model.",
    "transformer.base_model.model.",
    "base_model.model.transformer.",
    "diffusion_model.base_model.model.",
    "module.",
)


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(("theirs", "ours"), [*PUBLISHED.items(), *DIFFUSERS.items()])
def test_a_layer_is_found_under_every_dotted_name(prefix: str, theirs: str, ours: str) -> None:
    assert [target.path for target in NAMES.find_targets(f"{prefix}{theirs}")] == [ours]


@pytest.mark.parametrize("prefix", ["lora_unet_", "lora_transformer_", "lycoris_", "lora_"])
@pytest.mark.parametrize(("theirs", "ours"), [*PUBLISHED.items(), *DIFFUSERS.items()])
def test_a_layer_is_found_under_every_flat_name(prefix: str, theirs: str, ours: str) -> None:
    assert [target.path for target in NAMES.find_targets(f"{prefix}{theirs.replace('.', '_')}")] == [ours]


@pytest.mark.parametrize(
    "name",
    [
        "diffusion_model.double_blocks.0.img_attn.qkv",
        "lora_unet_double_blocks_0_img_attn_qkv",
        "transformer.transformer_blocks.0.attn.to_qkv",
    ],
)
def test_fused_projections_are_three_layers(name: str) -> None:
    paths = [f"transformer_blocks.0.attn.to_{part}" for part in "qkv"]
    assert NAMES.find_targets(name) == [Target(path, index, 3, swapped=False) for index, path in enumerate(paths)]


def test_the_last_modulation_is_swapped_in_published_names_only() -> None:
    assert NAMES.find_targets("final_layer.adaLN_modulation.1") == [Target("norm_out.linear", 0, 1, swapped=True)]
    assert NAMES.find_targets("transformer.norm_out.linear") == [Target("norm_out.linear", 0, 1, swapped=False)]


@pytest.mark.parametrize(
    "name", ["transformer_blocks.9.attn.to_q", "lora_unet_single_blocks_99_linear1", "single_blocks.12.img_mlp.0", ""]
)
def test_layers_of_other_models_are_not_found(name: str) -> None:
    assert NAMES.find_targets(name) == []


@pytest.mark.parametrize(
    ("key", "parsed"),
    [
        ("x.lora_A.weight", AdapterKey("x", "down", "")),
        ("x.lora_A", AdapterKey("x", "down", "")),
        ("x.lora_up.weight", AdapterKey("x", "up", "")),
        ("x.lora_B.default.weight", AdapterKey("x", "up", "default")),
        ("x.lora_B.my-style_2.bias", AdapterKey("x", "up_bias", "my-style_2")),
        ("x.lora.down.weight", AdapterKey("x", "down", "")),
        ("x.lora_magnitude_vector", AdapterKey("x", "magnitude", "")),
        ("x.lora_magnitude_vector.style.weight", AdapterKey("x", "magnitude", "style")),
        ("x.dora_scale", AdapterKey("x", "magnitude", "")),
        ("x.lokr_w1_a", AdapterKey("x", "lokr_w1_a", "")),
        ("x.hada_w2_b.style", AdapterKey("x", "hada_w2_b", "style")),
        ("x.diff", AdapterKey("x", "diff", "")),
        ("x.diff_b", AdapterKey("x", "diff_bias", "")),
        ("img_in.weight", None),
        ("x.lora_mid.weight", None),
        ("x.oft_blocks", None),
        ("x.lora_A.style.more.weight", None),
        ("", None),
    ],
)
def test_the_kind_of_a_tensor_is_read_from_its_name(key: str, parsed: AdapterKey | None) -> None:
    assert parse_adapter_key(key) == parsed


@pytest.mark.parametrize(
    ("key", "left_out"),
    [
        ("lora_te1_text_model_encoder_layers_0.lora_up.weight", True),
        ("text_encoder.layers.0.q_proj.lora_A.weight", True),
        ("text_encoders.qwen.x.lora_A.weight", True),
        ("bundle_emb.token.clip_l", True),
        ("transformer.text_encoder_like.lora_A.weight", False),
        ("lora_unet_txt_in.lora_up.weight", False),
    ],
)
def test_tensors_of_text_encoders_are_told_apart(key: str, left_out: bool) -> None:
    assert is_left_out(key) is left_out
